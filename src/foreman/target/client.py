"""Ask the target, and say plainly when it cannot answer."""

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

#: What foreman itself asks for is small, in bytes; a list of 10,000 models is 7 MB.
MAX_COLLECTED = 8 * 1024 * 1024
#: So much of the body of a refusal is read, in bytes, and so much of it is told, in characters.
MAX_OF_ERROR, LONGEST_ERROR = 64 * 1024, 500


class _AnyURL(EncodedURL):
    """The URL that treq wants: it goes nowhere, since the bytes that go out are in the Exchange.

    treq turns its URL into a URI and text for each request, which costs as much as all of its other work.
    """

    def to_uri(self) -> EncodedURL:
        """Itself: it is one."""
        return self

    def to_text(self, with_password: bool = False) -> str:
        """Always the same."""
        return "http://target/"


_ANY_URL = _AnyURL.from_text("http://target/")


class _NoCookies(IndexableCookieJar):
    """Keeps nothing and adds nothing: what the target sets is between it and the client."""

    def add_cookie_header(self, request: Any) -> None:
        """Nothing to add."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Nothing to keep."""


_NO_COOKIES = _NoCookies()


@define(eq=False)
class TargetClient:
    """The one way to the target.

    :ivar clock: the reactor's clock; :ivar endpoint: where the target listens; :ivar address: its name in requests;
    :ivar token: a bearer token for the target, or None; :ivar mark: foreman's pseudonym in ``Via``, by which it knows a
        request that has come back to it.
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
        """The head of one request to be passed on; nothing in ``target`` (raw path and query) is rewritten.

        Headers that must not cross are dropped, the target's own name and token are put in (``headers.to_target``).

        :param length: of the body in bytes; None sends no Content-Length.
        :param chunked: the body goes in chunks, which only a model file may (contract 0.2).
        :param version: of HTTP, in which the client asked.
        """
        # What answers TRACE repeats what it got (RFC 9110 section 9.3.8), and the token is none of the client's business.
        token = None if method == b"TRACE" else self._token
        via = version + b" " + self._mark
        crossing = to_target(headers, host=self.address.authority, token=token, length=length, via=via)
        if chunked:
            crossing.append((b"Transfer-Encoding", b"chunked"))
        return head_bytes(method, self._base + target, crossing)

    async def send(self, method: bytes, head: bytes, body: bytes | IBodyProducer = b"") -> TargetResponse:
        """Send a prepared head and its body, as they are, on a connection of their own.

        :return: the head of the answer, whatever its status.
        :raises errors.ConnectionError: when there is no answer.
        """
        client = HTTPClient(OneShotAgent(self._endpoint, head, body), _NO_COOKIES)
        response = await client.request(
            method.decode("latin-1"), _ANY_URL, unbuffered=True, allow_redirects=False, reactor=cast("Any", self._clock)
        )
        return cast("TargetResponse", response.original)

    async def fetch(
        self, method: bytes, path: str, payload: Mapping[str, Any] | None = None
    ) -> tuple[TargetResponse, bytes]:
        """Ask a question of foreman's own and wait for the whole body.

        :return: the head, and the body.
        :raises errors.HTTPError: when the status is not 2xx.
        :raises errors.ConnectionError: when there is no answer, or a broken one.
        """
        answer = await self._ask(method, path, payload)
        if not 200 <= answer.code < 300:
            raise await _refusal(answer)
        return answer, await _collect(answer)

    async def stream(self, path: str, payload: Mapping[str, Any], on_line: Callable[[dict[str, Any]], None]) -> None:
        """Ask for a streamed answer and hand each of its NDJSON lines, decoded, to ``on_line``.

        :raises errors.HTTPError: when the status is not 2xx, or with status 200 when a line says ``error``.
        :raises errors.ConnectionError: when there is no answer, when it breaks off, or ends without saying that it does.
        """
        answer = await self._ask(b"POST", path, payload)
        if not 200 <= answer.code < 300:
            raise await _refusal(answer)
        cutter, ended = LineFramer(), False

        def on_data(data: bytes) -> None:
            for line in cutter.feed(data):
                hand_on(line)

        def hand_on(line: bytes) -> None:
            nonlocal ended
            value = _object(line, path)
            if "error" in value:
                raise errors.HTTPError(answer.code, str(value["error"])[:LONGEST_ERROR])
            ended = value.get("done") is True or value.get("status") == "success"
            on_line(value)

        await _read(answer, on_data)
        if rest := cutter.rest():
            hand_on(rest)
        if not ended:
            raise errors.ConnectionError("reset", f"the target's answer to {path} ended before its end")

    # the questions of Ollama's API

    async def version(self) -> str:
        """The target's version (contract 1.2)."""
        return str((await self._json(b"GET", "/api/version"))["version"])[:LONGEST_ERROR]

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

    async def _ask(self, method: bytes, path: str, payload: Mapping[str, Any] | None) -> TargetResponse:
        target = path.encode("ascii")
        if payload is None:
            return await self.send(method, self.head(method, target, [], None))
        body = msgspec.json.encode(payload)
        json_type = [(b"Content-Type", b"application/json")]
        return await self.send(method, self.head(method, target, json_type, len(body)), body)


class _Collector(Protocol):
    """Hand a body on until it has ended; ``done`` fires then, or fails with errors.ConnectionError."""

    def __init__(self, answer: TargetResponse, on_data: Callable[[bytes], None]) -> None:
        self.done: Deferred[None] = Deferred(lambda _: answer.abort())
        self._answer = answer
        self._on_data = on_data

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            self._on_data(data)
        except Exception:  # noqa: BLE001 - whatever the reader of the body cannot stand ends the reading
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
    gathered = bytearray()

    def on_data(data: bytes) -> None:
        if len(gathered) + len(data) > MAX_COLLECTED:
            raise errors.ConnectionError("garbage", f"the target's answer exceeds {MAX_COLLECTED} bytes")
        gathered.extend(data)

    await _read(answer, on_data)
    return bytes(gathered)


class _Enough(Exception):
    """No more of the body is needed."""


async def _refusal(answer: TargetResponse) -> errors.HTTPError:
    """What an answer says whose status is no success."""
    if 300 <= answer.code < 400:
        answer.abort()
        location = (answer.header(b"location") or b"").decode("latin-1")[:LONGEST_ERROR]
        return errors.HTTPError(
            answer.code, f"a redirect to {location or 'nowhere'}; Ollama gives none, and none is followed"
        )
    gathered = bytearray()

    def on_data(data: bytes) -> None:
        gathered.extend(data)
        if len(gathered) > MAX_OF_ERROR:
            raise _Enough

    with suppress(_Enough):
        await _read(answer, on_data)
    return errors.HTTPError(answer.code, error_text(bytes(gathered), LONGEST_ERROR))


def _object(text: bytes, path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise errors.ConnectionError("garbage", f"the target's answer to {path} is not a JSON object") from exc
