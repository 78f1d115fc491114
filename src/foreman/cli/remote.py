"""Ask a running foreman over HTTP, and say plainly why it cannot be asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import click
from attrs import frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError  # noqa: A004 - Twisted's word
from twisted.web.client import Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from foreman.cli.asking import Unanswered, said, usable
from foreman.cli.explained import FAILED, NOT_ALLOWED, NOT_FOREMAN
from foreman.cli.options import with_reactor

T = TypeVar("T")

#: How long foreman may take to answer, in seconds.
PATIENCE = 10.0


@frozen
class Foreman:
    """A foreman as its client sees it.

    :ivar url: where it is, without a slash at the end; :ivar token: None where it wants none.
    """

    url: str
    _agent: IAgent
    token: str | None = None

    async def health(self) -> Mapping[str, Any]:
        """What it says of itself at ``/healthz``.

        :raises Unanswered: when it does not let us in, or what answers there is something else.
        """
        status, body = await self.ask("GET", "/healthz")
        if not isinstance(body, dict) or "degraded" not in body:
            raise Unanswered(
                NOT_FOREMAN, f"what answers at {self.url} is not foreman (/healthz: {status}); is it Ollama itself?"
            )
        return body

    async def queue(self) -> Mapping[str, Any]:
        """Who has a turn and who waits: its ``/queue``.

        :raises Unanswered: when it does not let us in, or does not tell.
        """
        status, body = await self.ask("GET", "/queue")
        if not isinstance(body, dict) or not {"running", "waiting"} <= body.keys():
            raise Unanswered(NOT_FOREMAN, f"{self.url} does not tell its queue (/queue: {status}{said(body)})")
        return body

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Status and JSON; None instead of what is no JSON.

        :raises Unanswered: when it does not let us in.
        """
        headers = Headers({"Accept": ["application/json"]})
        if self.token:
            headers.addRawHeader("Authorization", f"Bearer {self.token}")
        # A client for each question keeps no cookies (treq's jar belongs to the client).
        client = HTTPClient(self._agent)
        response = await client.request(method, self.url + path, headers=headers, allow_redirects=False)
        try:
            body = json.loads(await response.content())
        except ValueError:
            body = None
        if response.code in {401, 403}:
            cure = "is FOREMAN_TOKEN the right one?" if self.token else "set FOREMAN_TOKEN to foreman's token"
            raise Unanswered(NOT_ALLOWED, f"{self.url} does not let us in ({response.code}{said(body)}); {cure}")
        return response.code, body


async def answered(
    reactor: Any, foreman: Foreman, question: Callable[[Foreman], Coroutine[Any, Any, T]], patience: float = PATIENCE
) -> T:
    """What ``question`` finds out of ``foreman``, within ``patience`` seconds.

    :raises Unanswered: with a sentence, when it cannot be asked; and whatever ``question`` raises.
    """
    asking: Deferred[T] = Deferred.fromCoroutine(question(foreman))
    url = foreman.url
    try:
        return await asking.addTimeout(patience, reactor)
    except ConnectionRefusedError:
        raise Unanswered(
            FAILED, f"nobody listens at {url}; start foreman with foreman serve, or say where it is with --url"
        ) from None
    except DNSLookupError:
        raise Unanswered(FAILED, f"the name in {url} is not known here") from None
    except TimeoutError:
        raise Unanswered(FAILED, f"{url} did not answer within {patience:.0f} s") from None
    except (ConnectError, ResponseFailed) as problem:
        raise Unanswered(FAILED, f"{url} cannot be asked: {_reason(problem)}") from None


def agent(reactor: Any) -> IAgent:
    """The way to a foreman."""
    connecting: IAgent = Agent(reactor, connectTimeout=PATIENCE)
    return connecting


def answer_of(command: str, url: str, question: Callable[[Foreman], Coroutine[Any, Any, T]]) -> T:
    """Run the reactor until ``question`` is answered by the foreman at ``url``; its token is in the environment.

    Where it is not, the reason is told and the process ends with its status.

    :param command: whose name stands in front of the reason.
    """
    url = usable(url)
    token = os.environ.get("FOREMAN_TOKEN") or os.environ.get("FOREMAN_AUTH_TOKEN") or None

    async def ask(reactor: Any) -> T:
        try:
            return await answered(reactor, Foreman(url, agent(reactor), token), question)
        except Unanswered as problem:
            click.echo(f"foreman {command}: {problem}", err=True)
            raise SystemExit(problem.status) from None

    return with_reactor(ask)


def _reason(problem: Exception) -> str:
    reasons = getattr(problem, "reasons", None)
    return reasons[0].getErrorMessage() if reasons else str(problem)
