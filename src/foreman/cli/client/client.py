"""The HTTP client of a running foreman, which turns every failure into a sentence for a person."""

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
#: The largest response that is read, in bytes: larger than any list of foreman; artifacts have a limit of their own.
MAX_RESPONSE = 64_000_000


@frozen
class Response:
    """A complete response of foreman."""

    status: int
    headers: Headers
    content: bytes

    @property
    def body(self) -> Any:
        """The content as JSON; None if it is not JSON."""
        try:
            return lenient_json.read(self.content)
        except (ValueError, RecursionError):
            return None

    def header(self, name: str) -> str:
        """The value of one header; empty if it is missing."""
        return (self.headers.getRawHeaders(name) or [""])[-1]


@frozen
class ForemanClient:
    """A client of the foreman at one URL.

    :ivar url: without a slash at the end; :ivar token: sent with each request, None for no token; :ivar clock: measures the
        time limits; without a clock there are none.
    """

    url: str
    _agent: IAgent
    token: str | None = None
    clock: Any = None

    async def health(self) -> Mapping[str, Any]:
        """The state of foreman, from ``/healthz``.

        :raises RequestFailed: if the token is rejected, or the server is not foreman.
        """
        status, body = await self.request_json("GET", "/healthz")
        if not isinstance(body, dict) or "degraded" not in body:
            raise RequestFailed(
                NOT_FOREMAN, f"the server at {self.url} is not foreman (/healthz: {status}); is it Ollama?"
            )
        return body

    async def queue(self) -> Mapping[str, Any]:
        """The running and the queued requests, from ``/queue``.

        :raises RequestFailed: if the token is rejected, or there is no queue in the response.
        """
        status, body = await self.request_json("GET", "/queue")
        if not isinstance(body, dict) or not {"running", "waiting"} <= body.keys():
            raise RequestFailed(
                NOT_FOREMAN, f"{self.url} did not return its queue (/queue: {status}{error_detail(body)})"
            )
        return body

    async def request_json(self, method: str, path: str, time_limit: float = REQUEST_TIMEOUT) -> tuple[int, Any]:
        """Send a request; return the status and the JSON of the response, None for a body that is not JSON.

        :raises RequestFailed: if the token is rejected, or the request fails.
        """
        answer = await self.fetch(method, path, time_limit=time_limit)
        return answer.status, answer.body

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        time_limit: float = REQUEST_TIMEOUT,
        limit: int | None = None,
    ) -> Response:
        """Send a request; return the complete response, within ``time_limit`` seconds.

        :raises RequestFailed: if the token is rejected, the request fails, or the response has more than ``limit`` bytes.
        """

        async def sending() -> Response:
            return await self._read(await self._send(method, path, body, headers or {}), limit or MAX_RESPONSE)

        return await run_request(self.url, sending(), self.clock, time_limit)

    async def stream_lines(
        self, path: str, receive: Callable[[Line], None], *, accept: str, silence: float
    ) -> Response | None:
        """Pass each line of a response to ``receive`` as it arrives; return None at its end, or for a 204.

        A response with any other status is returned instead.

        :param silence: after so many seconds without a byte the connection counts as lost.
        :raises Unreachable: if the connection is lost.
        """

        async def sending() -> Response | None:
            response = await self._send("GET", path, None, {"Accept": accept})
            if response.code not in {200, 204}:
                return await self._read(response, MAX_RESPONSE)
            await read_lines(response, receive, self.clock, silence)
            return None

        return await run_request(self.url, sending(), self.clock, None)

    async def _send(self, method: str, path: str, body: bytes | None, more: Mapping[str, str]) -> Any:
        headers = Headers({"Accept": ["application/json"]})
        if body is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
        for name, value in more.items():
            headers.setRawHeaders(name, [value])
        if self.token:
            headers.addRawHeader("Authorization", f"Bearer {self.token}")
        producer = None if body is None else FileBodyProducer(io.BytesIO(body))
        return await self._agent.request(method.encode(), (self.url + path).encode(), headers, producer)

    async def _read(self, response: Any, limit: int) -> Response:
        answer = Response(response.code, response.headers, await read_body(response, limit))
        if answer.status in {401, 403}:
            hint = "is FOREMAN_TOKEN correct?" if self.token else "set FOREMAN_TOKEN to a token of this foreman"
            reason = f"{answer.status}{error_detail(answer.body)}"
            raise RequestFailed(NOT_ALLOWED, f"{self.url} rejected the request ({reason}); {hint}")
        return answer


async def run_request(url: str, sending: Coroutine[Any, Any, T], clock: Any, time_limit: float | None) -> T:
    """Run ``sending``, a request to ``url``; return its result.

    :param time_limit: in seconds of ``clock``; None for no limit.
    :raises Unreachable: with a sentence, if there is no answer; and whatever ``sending`` raises.
    """
    working: Deferred[T] = Deferred.fromCoroutine(sending)
    timed_out: list[bool] = []
    cancelled: list[bool] = []

    def time_out() -> None:
        timed_out.append(True)
        working.cancel()

    def cancel(_: object) -> None:
        cancelled.append(True)
        working.cancel()

    # A cancelled request may end like one whose connection was lost; these flags keep the cause.
    answer: Deferred[T] = Deferred(cancel)
    working.chainDeferred(answer)
    limit = None if clock is None or time_limit is None else clock.callLater(time_limit, time_out)
    try:
        return await answer
    except ConnectionRefusedError:
        raise Unreachable(
            FAILED, f"nothing listens at {url}; start foreman with foreman serve, or give its address with --url"
        ) from None
    except DNSLookupError:
        raise Unreachable(FAILED, f"the host name in {url} cannot be resolved") from None
    except ResponseTooLarge as problem:
        raise RequestFailed(
            FAILED, f"the response of {url} is larger than {problem.limit // 10**6} MB; is it foreman?"
        ) from None
    except (
        CancelledError,
        ConnectError,
        ConnectingCancelledError,
        RequestTransmissionFailed,
        ResponseFailed,
        TimeoutError,
    ) as problem:
        if timed_out:
            raise Unreachable(FAILED, f"{url} did not answer within {time_limit:.0f} s") from None
        if cancelled or isinstance(problem, CancelledError):
            raise CancelledError from None
        raise Unreachable(FAILED, f"the request to {url} failed: {_failure_reason(problem, url)}") from None
    finally:
        if limit is not None and limit.active():
            limit.cancel()


def make_agent(reactor: Any) -> IAgent:
    """The HTTP agent for requests to foreman."""
    agent: IAgent = Agent(reactor, connectTimeout=REQUEST_TIMEOUT)
    return agent


def run_client(
    command: str,
    url: str,
    request: Callable[[ForemanClient], Coroutine[Any, Any, T]],
    time_limit: float | None = REQUEST_TIMEOUT,
    interrupted: Callable[[], str] = str,
) -> T:
    """Run the reactor until ``request`` has its result from the foreman at ``url``; the token comes from the environment.

    If it fails, print the reason and exit with its status; after a signal, exit with 128 plus the signal's number.

    :param command: the name that is printed before the reason; :param interrupted: the message after ctrl-C, if any.
    """
    url = normalize_url(url)
    token = token_from_environment(os.environ)

    async def run(reactor: Any) -> T:
        sending: Deferred[T] = Deferred.fromCoroutine(
            run_request(url, request(ForemanClient(url, make_agent(reactor), token, reactor)), reactor, time_limit)
        )
        stopped: list[bool] = []

        def stop() -> None:
            stopped.append(True)
            sending.cancel()

        trigger = reactor.addSystemEventTrigger("before", "shutdown", stop)
        try:
            return await sending
        except RequestFailed as problem:
            echo_stderr(f"foreman {command}: {problem}")
            raise SystemExit(problem.exit_status) from None
        except CancelledError:
            if not stopped:
                raise
            if sentence := interrupted():
                if sys.stderr.isatty():
                    click.echo(err=True)  # after the ^C that the terminal shows
                echo_stderr(f"foreman {command}: {sentence}")
            raise SystemExit(signal_status(reactor)) from None
        finally:
            if not stopped:
                reactor.removeSystemEventTrigger(trigger)

    return run_with_reactor(run)


def _failure_reason(problem: BaseException, url: str) -> str:
    causes = getattr(problem, "reasons", None) or [Failure(problem)]
    cause: BaseException = causes[0].value
    if is_tls(cause):
        return f"TLS failed: {tls_problem(cause)}"
    if isinstance(cause, ConnectionDone) and url.startswith("http://"):
        return "it closed the connection without an answer; if it requires TLS, use an https:// address"
    return str(causes[0].getErrorMessage()) or type(cause).__name__
