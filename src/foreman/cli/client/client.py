"""Ask a running foreman over HTTP, and say plainly why it cannot be asked."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import click
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,  # noqa: A004 - Twisted's word
    DNSLookupError,
)
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, RequestTransmissionFailed, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from foreman.cli.client.address import normalize_url, token_from_environment
from foreman.cli.client.errors import RequestFailed, Unreachable, error_detail
from foreman.cli.client.response_body import Line, ResponseTooLarge, read_body, read_lines
from foreman.cli.reactor import run_with_reactor, signal_status
from foreman.cli.ui.exit_status import FAILED, NOT_ALLOWED, NOT_FOREMAN
from foreman.cli.ui.standard_streams import echo_stderr
from foreman.protocol import lenient_json
from foreman.target.failures import is_tls, tls_problem

T = TypeVar("T")

#: How long foreman may take to answer, in seconds.
REQUEST_TIMEOUT = 10.0
#: More than any list of foreman's, in bytes; artifacts may be larger.
MAX_RESPONSE = 64_000_000


@frozen
class Response:
    """What a foreman answered, whole."""

    status: int
    headers: Headers
    content: bytes

    @property
    def body(self) -> Any:
        """The content as JSON; None where it is none."""
        try:
            return lenient_json.read(self.content)
        except (ValueError, RecursionError):
            return None

    def header(self, name: str) -> str:
        """The value of one header; empty where there is none."""
        return (self.headers.getRawHeaders(name) or [""])[-1]


@frozen
class ForemanClient:
    """A foreman as its client sees it.

    :ivar url: where it is, without a slash at the end; :ivar token: None where it wants none; :ivar clock: by which each
        answer has its time; without it there is no limit.
    """

    url: str
    _agent: IAgent
    token: str | None = None
    clock: Any = None

    async def health(self) -> Mapping[str, Any]:
        """What it says of itself at ``/healthz``.

        :raises Unanswered: when it does not let us in, or what answers there is something else.
        """
        status, body = await self.ask("GET", "/healthz")
        if not isinstance(body, dict) or "degraded" not in body:
            raise RequestFailed(
                NOT_FOREMAN, f"what answers at {self.url} is not foreman (/healthz: {status}); is it Ollama itself?"
            )
        return body

    async def queue(self) -> Mapping[str, Any]:
        """Who has a turn and who waits: its ``/queue``.

        :raises Unanswered: when it does not let us in, or does not tell.
        """
        status, body = await self.ask("GET", "/queue")
        if not isinstance(body, dict) or not {"running", "waiting"} <= body.keys():
            raise RequestFailed(
                NOT_FOREMAN, f"{self.url} does not tell its queue (/queue: {status}{error_detail(body)})"
            )
        return body

    async def ask(self, method: str, path: str, patience: float = REQUEST_TIMEOUT) -> tuple[int, Any]:
        """Status and JSON; None instead of what is no JSON.

        :raises Unanswered: when it does not let us in, or cannot be asked.
        """
        answer = await self.fetch(method, path, patience=patience)
        return answer.status, answer.body

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = REQUEST_TIMEOUT,
        limit: int | None = None,
    ) -> Response:
        """The whole answer, within ``patience`` seconds.

        :raises Unanswered: when it does not let us in, cannot be asked, or answers with more than ``limit`` bytes.
        """

        async def asking() -> Response:
            return await self._whole(await self._head(method, path, body, headers or {}), limit or MAX_RESPONSE)

        return await run_request(self.url, asking(), self.clock, patience)

    async def lines(self, path: str, take: Callable[[Line], None], *, accept: str, silence: float) -> Response | None:
        """Hand over each line of an answer as it comes; None when it ended whole, or there was nothing more (204).

        Anything else is no such answer, and is what is returned.


        :param silence: so many seconds without a byte, and the connection counts as lost.
        :raises Unreached: when the connection broke.
        """

        async def asking() -> Response | None:
            response = await self._head("GET", path, None, {"Accept": accept})
            if response.code not in {200, 204}:
                return await self._whole(response, MAX_RESPONSE)
            await read_lines(response, take, self.clock, silence)
            return None

        return await run_request(self.url, asking(), self.clock, None)

    async def _head(self, method: str, path: str, body: bytes | None, more: Mapping[str, str]) -> Any:
        headers = Headers({"Accept": ["application/json"]})
        if body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
        for name, value in more.items():
            headers.setRawHeaders(name, [value])
        if self.token:
            headers.addRawHeader("Authorization", f"Bearer {self.token}")
        producer = None if body is None else FileBodyProducer(io.BytesIO(body))
        return await self._agent.request(method.encode(), (self.url + path).encode(), headers, producer)

    async def _whole(self, response: Any, limit: int) -> Response:
        answer = Response(response.code, response.headers, await read_body(response, limit))
        if answer.status in {401, 403}:
            cure = "is FOREMAN_TOKEN the right one?" if self.token else "set FOREMAN_TOKEN to foreman's token"
            reason = f"{answer.status}{error_detail(answer.body)}"
            raise RequestFailed(NOT_ALLOWED, f"{self.url} does not let us in ({reason}); {cure}")
        return answer


async def run_request(url: str, asking: Coroutine[Any, Any, T], clock: Any, patience: float | None) -> T:
    """What ``asking`` finds out at ``url``.

    :param patience: seconds that it may take by ``clock``; None for as long as it likes.
    :raises Unreached: with a sentence, when there is no answer; and whatever ``asking`` raises.
    """
    working: Deferred[T] = Deferred.fromCoroutine(asking)
    late: list[bool] = []
    unwanted: list[bool] = []

    def no_longer() -> None:
        late.append(True)
        working.cancel()

    def not_wanted(_: object) -> None:
        unwanted.append(True)
        working.cancel()

    # What is cancelled may end as if its connection had broken, which it has; only the cause is another.
    answer: Deferred[T] = Deferred(not_wanted)
    working.chainDeferred(answer)
    limit = None if clock is None or patience is None else clock.callLater(patience, no_longer)
    try:
        return await answer
    except ConnectionRefusedError:
        raise Unreachable(
            FAILED, f"nobody listens at {url}; start foreman with foreman serve, or say where it is with --url"
        ) from None
    except DNSLookupError:
        raise Unreachable(FAILED, f"the name in {url} is not known here") from None
    except ResponseTooLarge as problem:
        raise RequestFailed(
            FAILED, f"{url} answers with more than {problem.limit // 10**6} MB: is it foreman?"
        ) from None
    except (
        CancelledError,
        ConnectError,
        ConnectingCancelledError,
        RequestTransmissionFailed,
        ResponseFailed,
        TimeoutError,
    ) as problem:
        if late:
            raise Unreachable(FAILED, f"{url} did not answer within {patience:.0f} s") from None
        if unwanted or isinstance(problem, CancelledError):
            raise CancelledError from None
        raise Unreachable(FAILED, f"{url} cannot be asked: {_failure_reason(problem, url)}") from None
    finally:
        if limit is not None and limit.active():
            limit.cancel()


async def answered(
    reactor: Any,
    foreman: ForemanClient,
    question: Callable[[ForemanClient], Coroutine[Any, Any, T]],
    patience: float | None = REQUEST_TIMEOUT,
) -> T:
    """What ``question`` finds out of ``foreman``, within ``patience`` seconds (None: as long as it likes).

    :raises Unanswered: with a sentence, when it cannot be asked; and whatever ``question`` raises.
    """
    return await run_request(foreman.url, question(foreman), reactor, patience)


def make_agent(reactor: Any) -> IAgent:
    """The way to a foreman."""
    connecting: IAgent = Agent(reactor, connectTimeout=REQUEST_TIMEOUT)
    return connecting


def run_client(
    command: str,
    url: str,
    question: Callable[[ForemanClient], Coroutine[Any, Any, T]],
    patience: float | None = REQUEST_TIMEOUT,
    interrupted: Callable[[], str] = str,
) -> T:
    """Run the reactor until ``question`` is answered by the foreman at ``url``; its token is in the environment.

    Where it is not, the reason is told and the process ends with its status; with 128 and its number where a signal ended
    it.

    :param command: whose name stands in front of the reason; :param interrupted: what to say after ctrl-C, if anything.
    """
    url = normalize_url(url)
    token = token_from_environment(os.environ)

    async def ask(reactor: Any) -> T:
        asking: Deferred[T] = Deferred.fromCoroutine(
            answered(reactor, ForemanClient(url, make_agent(reactor), token, reactor), question, patience)
        )
        stopped: list[bool] = []

        def stopping() -> None:
            stopped.append(True)
            asking.cancel()

        trigger = reactor.addSystemEventTrigger("before", "shutdown", stopping)
        try:
            return await asking
        except RequestFailed as problem:
            echo_stderr(f"foreman {command}: {problem}")
            raise SystemExit(problem.status) from None
        except CancelledError:
            if not stopped:
                raise
            if sentence := interrupted():
                if sys.stderr.isatty():
                    click.echo(err=True)  # behind the ^C that it shows
                echo_stderr(f"foreman {command}: {sentence}")
            raise SystemExit(signal_status(reactor)) from None
        finally:
            if not stopped:
                reactor.removeSystemEventTrigger(trigger)

    return run_with_reactor(ask)


def _failure_reason(problem: BaseException, url: str) -> str:
    causes = getattr(problem, "reasons", None) or [Failure(problem)]
    cause: BaseException = causes[0].value
    if is_tls(cause):
        return f"TLS failed: {tls_problem(cause)}"
    if isinstance(cause, ConnectionDone) and url.startswith("http://"):
        return "it closed the connection without an answer; if it wants TLS, its address begins with https://"
    return str(causes[0].getErrorMessage()) or type(cause).__name__
