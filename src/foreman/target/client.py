"""The HTTP client of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import msgspec
from attrs import define, field
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer

from foreman import errors
from foreman.config.target_address import TargetAddress
from foreman.protocol.error_text import error_text
from foreman.protocol.framing import LineFramer
from foreman.protocol.headers import RawHeaders, to_target
from foreman.target.agent import OneShotAgent, head_bytes
from foreman.target.connection import TargetResponse

#: Longest body of an answer to foreman's own requests, in bytes; a list of 10,000 models has 7 MB.
MAX_COLLECTED = 8 * 1024 * 1024
#: How much of the body of an error is read, in bytes, and how much of it is quoted, in characters.
MAX_ERROR_BODY, MAX_ERROR_TEXT = 64 * 1024, 500


class _PlaceholderURL(EncodedURL):
    """An URL for treq, which requires one: what is sent is in the ``OneShotAgent``.

    treq converts its URL to a URI and to text for each request, which takes as long as all its other work; here both are
    constant.
    """

    def to_uri(self) -> EncodedURL:
        """The same URL, which is a URI already."""
        return self

    def to_text(self, with_password: bool = False) -> str:
        """A constant."""
        return "http://target/"


_PLACEHOLDER_URL = _PlaceholderURL.from_text("http://target/")


class _NoCookies(IndexableCookieJar):
    """A cookie jar that stays empty: the target's cookies are for the client, not for foreman."""

    def add_cookie_header(self, request: Any) -> None:
        """Add nothing."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep nothing."""


_NO_COOKIES = _NoCookies()


@define(eq=False)
class TargetClient:
    """Sends requests to the target; nothing else does.

    ``head`` and ``send`` relay requests of clients. The methods below "Ollama's API" are a small client of Ollama,
    for programs that embed foreman, which itself uses only ``version`` and ``embed``.

    :ivar clock: the reactor's clock; :ivar endpoint: where the target listens; :ivar address: its name in requests;
    :ivar token: a bearer token for the target, or None; :ivar mark: foreman's pseudonym in ``Via``, by which it
        recognises its own requests when they are routed back to it.
    """

    _clock: IReactorTime
    _endpoint: IStreamClientEndpoint
    address: TargetAddress
    _token: str | None = None
    _mark: bytes = b"foreman"
    _base: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._base = self.address.path.encode("ascii")

    def head(
        self,
        method: bytes,
        target: bytes,
        headers: RawHeaders,
        length: int | None,
        *,
        chunked: bool = False,
        version: bytes = b"1.1",
    ) -> bytes:
        """The head of a client's request for the target; nothing in ``target`` (raw path and query) is rewritten.

        Hop-by-hop headers and foreman's own are dropped, the target's name and token are set (``headers.to_target``).

        :param length: of the body in bytes; None sends no Content-Length.
        :param chunked: the body is sent in chunks, which is allowed for model files only (contract 0.2).
        :param version: of HTTP in the client's request.
        """
        # The answer to TRACE repeats the request (RFC 9110 section 9.3.8); the client must not learn the token.
        token = None if method == b"TRACE" else self._token
        via = version + b" " + self._mark
        crossing = to_target(headers, host=self.address.authority, token=token, length=length, via=via)
        if chunked:
            crossing.append((b"Transfer-Encoding", b"chunked"))
        return head_bytes(method, self._base + target, crossing)

    async def send(self, method: bytes, head: bytes, body: bytes | IBodyProducer = b"") -> TargetResponse:
        """Send a prepared head and its body unchanged on a new connection.

        :return: the head of the answer, whatever its status.
        :raises errors.ConnectionError: when there is no answer.
        """
        client = HTTPClient(OneShotAgent(self._endpoint, head, body), _NO_COOKIES)
        response = await client.request(
            method.decode("latin-1"),
            _PLACEHOLDER_URL,
            unbuffered=True,
            allow_redirects=False,
            reactor=cast("Any", self._clock),
        )
        return cast("TargetResponse", response.original)

    async def fetch(
        self, method: bytes, path: str, payload: Mapping[str, Any] | None = None
    ) -> tuple[TargetResponse, bytes]:
        """Send a request of foreman's own, and wait for the whole body of the answer.

        :return: the head, and the body.
        :raises errors.HTTPError: when the status is not 2xx.
        :raises errors.ConnectionError: when there is no answer, or a broken one.
        """
        answer = await self._request(method, path, payload)
        if not 200 <= answer.code < 300:
            raise await _http_error(answer)
        return answer, await _collect(answer)

    async def stream(self, path: str, payload: Mapping[str, Any], on_line: Callable[[dict[str, Any]], None]) -> None:
        """Request a streamed answer, and call ``on_line`` with each of its NDJSON lines, decoded.

        :raises errors.HTTPError: when the status is not 2xx, or with status 200 when a line has an ``error``.
        :raises errors.ConnectionError: when there is no answer, or it ends without its end marker.
        """
        answer = await self._request(b"POST", path, payload)
        if not 200 <= answer.code < 300:
            raise await _http_error(answer)
        framer, ended = LineFramer(), False

        def on_data(data: bytes) -> None:
            for line in framer.feed(data):
                take(line)

        def take(line: bytes) -> None:
            nonlocal ended
            value = _object(line, path)
            if "error" in value:
                raise errors.HTTPError(answer.code, str(value["error"])[:MAX_ERROR_TEXT])
            ended = value.get("done") is True or value.get("status") == "success"
            on_line(value)

        await _read(answer, on_data)
        if rest := framer.rest():
            take(rest)
        if not ended:
            raise errors.ConnectionError("reset", f"the target's answer to {path} ended without its end marker")

    # Ollama's API

    async def version(self) -> str:
        """The target's version (contract 1.2)."""
        return str((await self._json(b"GET", "/api/version"))["version"])[:MAX_ERROR_TEXT]

    async def show(self, model: str) -> dict[str, Any]:
        """Details of one model (contract 2.5)."""
        return await self._json(b"POST", "/api/show", {"model": model})

    async def chat(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """One whole chat answer (contract 2.3)."""
        return await self._json(b"POST", "/api/chat", {**payload, "stream": False})

    async def generate(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """One whole completion (contract 2.3)."""
        return await self._json(b"POST", "/api/generate", {**payload, "stream": False})

    async def embed(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Embeddings of one or many inputs (contract 2.4); without ``input`` it only loads the model."""
        return await self._json(b"POST", "/api/embed", payload)

    async def embeddings(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The embedding of one prompt by the older route (contract 2.4)."""
        return await self._json(b"POST", "/api/embeddings", payload)

    async def _json(self, method: bytes, path: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
        _, body = await self.fetch(method, path, payload)
        return _object(body, path)

    async def _request(self, method: bytes, path: str, payload: Mapping[str, Any] | None) -> TargetResponse:
        target = path.encode("ascii")
        if payload is None:
            return await self.send(method, self.head(method, target, [], None))
        body = msgspec.json.encode(payload)
        json_type = [(b"Content-Type", b"application/json")]
        return await self.send(method, self.head(method, target, json_type, len(body)), body)


class _Collector(Protocol):
    """Calls ``on_data`` with each piece of a body; ``done`` fires at its end, or fails with errors.ConnectionError."""

    def __init__(self, answer: TargetResponse, on_data: Callable[[bytes], None]) -> None:
        self.done: Deferred[None] = Deferred(lambda _: answer.abort())
        self._answer = answer
        self._on_data = on_data

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            self._on_data(data)
        except Exception:  # noqa: BLE001 - whatever ``on_data`` raises is the result
            failure = Failure()
            self._answer.abort()
            self.done.errback(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self.done.errback(errors.ConnectionError("reset", "the target's answer broke off"))


async def _read(answer: TargetResponse, on_data: Callable[[bytes], None]) -> None:
    collector = _Collector(answer, on_data)
    answer.deliverBody(collector)
    await collector.done


async def _collect(answer: TargetResponse) -> bytes:
    collected = bytearray()

    def on_data(data: bytes) -> None:
        if len(collected) + len(data) > MAX_COLLECTED:
            raise errors.ConnectionError("garbage", f"the target's answer exceeds {MAX_COLLECTED} bytes")
        collected.extend(data)

    await _read(answer, on_data)
    return bytes(collected)


class _EnoughRead(Exception):
    """No more of the body is needed."""


async def _http_error(answer: TargetResponse) -> errors.HTTPError:
    """The error of an answer whose status is no success."""
    if 300 <= answer.code < 400:
        answer.abort()
        location = (answer.header(b"location") or b"").decode("latin-1")[:MAX_ERROR_TEXT]
        return errors.HTTPError(
            answer.code, f"a redirect to {location or 'nowhere'}; Ollama sends none, and foreman follows none"
        )
    collected = bytearray()

    def on_data(data: bytes) -> None:
        collected.extend(data)
        if len(collected) > MAX_ERROR_BODY:
            raise _EnoughRead

    with suppress(_EnoughRead):
        await _read(answer, on_data)
    return errors.HTTPError(answer.code, error_text(bytes(collected), MAX_ERROR_TEXT))


def _object(text: bytes, path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.ConnectionError("garbage", f"the target's answer to {path} is not a JSON object") from exc
