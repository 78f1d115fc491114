"""One list of the target's models: asked for, read, and kept as it came."""

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
from foreman.util.clock import Monotonic, now
from foreman.util.deadline import within

#: A target that accepts a connection and then does not list its models counts as silent after this many seconds.
POLL_PATIENCE = 10.0
#: The same for the list of what is loaded, once it has listed what is installed.
PS_PATIENCE = 5.0
#: Reasons that say: something answers there, but not as Ollama does when it is well.
THERE = ("garbage", "status")

_READERS: dict[str, tuple[Callable[[bytes], Listed[Any]], float]] = {
    "/api/tags": (read_tags, POLL_PATIENCE),
    "/api/ps": (read_ps, PS_PATIENCE),
}


@frozen
class Degraded:
    """The target does not answer.

    :ivar reason: one word of ``errors.FailureReason``; :ivar detail: a sentence; :ivar since: when it was found so;
    :ivar status: the HTTP status of its answer, None where it gave none.
    """

    reason: errors.FailureReason
    detail: str
    since: Monotonic
    status: int | None = None


@frozen
class ModelList:
    """One answer of the target, as it came.

    :ivar at: when it came; :ivar headers: raw; :ivar body: raw; :ivar read: what foreman read of it.
    """

    at: Monotonic
    headers: RawHeaders
    body: bytes
    read: Listed[Any]


async def list_at(
    clock: IReactorTime, client: TargetClient, path: str, before: ModelList | None
) -> ModelList | errors.TargetError:
    """Ask for one of the two lists; ``before`` is the last that was got.

    :return: the list, or why something that may be Ollama does not give it.
    :raises errors.ConnectionError: when nothing answers there.
    """
    read, patience = _READERS[path]
    fetching = Deferred.fromCoroutine(client.fetch(b"GET", path))
    within(fetching, patience, clock)
    try:
        answer, body = await fetching
        # Most often it is what it was, and need not be read again.
        listed = before.read if before is not None and before.body == body else read(body)
    except errors.HTTPError as problem:
        return problem
    except TimeoutError:
        return errors.ConnectionError("silence", f"the target did not list its models within {patience:g} s")
    except errors.ConnectionError as problem:
        if problem.why in THERE:
            return problem
        raise
    except ValueError as problem:
        return errors.ConnectionError("garbage", f"what answers there does not list models as Ollama does: {problem}")
    return ModelList(now(clock), answer.raw_headers, body, listed)
