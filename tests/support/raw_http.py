"""Raw HTTP for tests: bytes out, bytes in, and the framing of the response."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

reactor: Any = installed_reactor


@define
class Response:
    """One response as it came over the wire.

    :ivar framing: ``chunked``, ``content-length``, ``close``, ``none`` or ``closed-without-response``;
    :ivar torn: the connection ended inside the body.
    """

    status: int = 0
    version: str = ""
    headers: list[tuple[str, str]] = field(factory=list)
    chunks: list[bytes] = field(factory=list)
    body: bytes = b""
    framing: str = "closed-without-response"
    torn: bool = False
    interim: list[int] = field(factory=list)

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class RawClient(Protocol):
    """A connection on which a test sends and receives bytes.

    :ivar done: fires when the response is complete or the connection lost; :ivar gone: fires when it is lost.
    """

    def __init__(self, method: str = "GET") -> None:
        self.method = method
        self.received = b""
        self.lost = False
        self.done: Deferred[Response] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        response = parse(self.received, self.method, closed=False)
        if response is not None and not self.done.called:
            self.done.callback(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        if not self.done.called:
            self.done.callback(parse(self.received, self.method, closed=True) or Response())
        self.gone.callback(None)

    def send(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def leave(self) -> None:
        """Reset the connection."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


async def connect(port: int, method: str = "GET") -> RawClient:
    """A connection to a loopback port."""
    client = RawClient(method)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
    return client


async def ask(port: int, request: bytes, method: str = "GET", patience: float = 5.0) -> Response:
    """Send ``request`` on a connection of its own, and wait for the whole response."""
    client = await connect(port, method)
    client.send(request)
    client.done.addTimeout(patience, reactor)
    response = await client.done
    if not client.lost:
        client.leave()
        await client.gone
    return response


def request(
    method: str, path: str, body: bytes = b"", headers: list[tuple[str, str]] | None = None, *, host: str = "127.0.0.1"
) -> bytes:
    """The bytes of a plain request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers or []]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def parse(data: bytes, method: str, *, closed: bool) -> Response | None:
    """Parse a response; None until it is complete. ``closed``: nothing more will come."""
    response = Response()
    while True:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            return Response(interim=response.interim) if closed else None
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ", 2)[:2]
        if int(status) >= 200:
            break
        response.interim.append(int(status))
        data = rest
    response.version, response.status = version, int(status)
    response.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    length = response.header("Content-Length")
    if method == "HEAD" or response.status in (204, 304):
        response.framing = "none"
    elif (response.header("Transfer-Encoding") or "") == "chunked":
        response.framing = "chunked"
        ended = _chunks(rest, response.chunks)
        response.body = b"".join(response.chunks)
        if not ended and not closed:
            return None
        response.torn = not ended
    elif length is not None:
        response.framing = "content-length"
        response.body = rest[: int(length)]
        if len(rest) < int(length) and not closed:
            return None
        response.torn = len(rest) < int(length)
    else:
        response.framing = "close"
        response.body = rest
        if not closed:
            return None
    return response


def _chunks(data: bytes, chunks: list[bytes]) -> bool:
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return False
        size = int(data[position:end], 16)
        if size == 0:
            return data[end : end + 4] == b"\r\n\r\n"
        if len(data) < end + 2 + size + 2:
            return False
        chunks.append(data[end + 2 : end + 2 + size])
        position = end + 2 + size + 2
