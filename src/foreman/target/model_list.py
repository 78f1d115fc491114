"""One list of the target's models: fetched, read, and kept unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - what ``within`` raises
from twisted.internet.interfaces import IReactorTime

from foreman import errors
from foreman.protocol.headers import RawHeaders
from foreman.target.client import TargetClient
from foreman.target.listings import Listed, read_ps, read_tags
from foreman.target.state import ANSWERS_WRONGLY
from foreman.util.clock import Monotonic, now
from foreman.util.deadline import within

#: A target that accepts a connection and has not listed its models after so many seconds counts as silent.
POLL_TIMEOUT = 10.0
#: The same for the list of loaded models, which is fetched after that of the installed ones.
PS_TIMEOUT = 5.0

_READERS: dict[str, tuple[Callable[[bytes], Listed[Any]], float]] = {
    "/api/tags": (read_tags, POLL_TIMEOUT),
    "/api/ps": (read_ps, PS_TIMEOUT),
}


@frozen
class ModelList:
    """One list, unchanged.

    :ivar at: when it arrived; :ivar headers: raw; :ivar body: raw; :ivar read: the models in it.
    """

    at: Monotonic
    headers: RawHeaders
    body: bytes
    read: Listed[Any]


async def list_at(
    clock: IReactorTime, client: TargetClient, path: str, before: ModelList | None
) -> ModelList | errors.TargetError:
    """Fetch one of the two lists; ``before`` is the one that was fetched last.

    :return: the list, or why a server that may be Ollama does not give it.
    :raises errors.ConnectionError: when no server answers.
    """
    read, timeout = _READERS[path]
    fetching = Deferred.fromCoroutine(client.fetch(b"GET", path))
    within(fetching, timeout, clock)
    try:
        answer, body = await fetching
        # Most often the list has not changed, and need not be read again.
        listed = before.read if before is not None and before.body == body else read(body)
    except errors.HTTPError as problem:
        return problem
    except TimeoutError:
        return errors.ConnectionError("silence", f"the target did not list its models within {timeout:g} s")
    except errors.ConnectionError as problem:
        if problem.why in ANSWERS_WRONGLY:
            return problem
        raise
    except ValueError as problem:
        return errors.ConnectionError("garbage", f"the server does not list models as Ollama does: {problem}")
    return ModelList(now(clock), answer.raw_headers, body, listed)
