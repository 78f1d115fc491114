"""One request and its response, with the headers and framing of Go's server (contract 1.3 and 1.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Literal, Protocol

from attrs import Factory, define
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

Headers = list[tuple[str, str]]
Framing = Literal["length", "chunked", "close", "none"]

_BUFFER_SIZE = 2048


class Producer(Protocol):
    """Produces a streamed response, and can be paused while the client reads slowly."""

    def pause(self) -> None:
        """Produce nothing for now."""

    def resume(self) -> None:
        """Produce again."""


class ResponseWriter(Protocol):
    """Sends the bytes of one response."""

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Send the status line and the headers, which are in their final order."""

    def chunk(self, data: bytes) -> None:
        """Send a part of the body, as one chunk if the framing is chunked."""

    def end(self) -> None:
        """End the body; the connection goes on or is closed."""


def reason(status: int) -> str:
    """The reason phrase that Go has for a status."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "Request Entity Too Large"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"


@implementer(IPushProducer)
@define(eq=False, slots=False)
class Exchange:
    """A request and its response.

    :ivar target: path and query as they were sent; :ivar path: the decoded path, by which the route is chosen.
    :ivar keep_alive: whether the connection stays open after the response.
    :ivar extra_headers: headers that every response to this request gets, such as those of CORS.
    :ivar extra_on_error: headers that the route had set before it failed.
    :ivar on_disconnect: called when the client disconnects before the response is complete.
    :ivar on_half_close: called when the client closes its side, but may still read.
    :ivar on_finish: called with the status when the response is complete.
    :ivar producer: produces the response while it is streamed; :ivar stalled: a fault keeps it from ever completing.
    """

    method: str
    target: str
    version: str
    headers: Headers
    keep_alive: bool
    date: Callable[[], str]
    writer: ResponseWriter
    path: str = ""
    query: str = ""
    body: bytes = b""
    extra_headers: Headers = Factory(list)
    extra_on_error: Headers = Factory(list)
    started: bool = False
    ended: bool = False
    on_disconnect: Callable[[], None] | None = None
    on_half_close: Callable[[], None] | None = None
    on_finish: Callable[[int], None] | None = None
    producer: Producer | None = None
    status: int = 0
    content_type: str = ""
    stalled: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), None)

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Send a whole response. Like Go: with a length if it fits the buffer, else chunked."""
        if status == HTTPStatus.NO_CONTENT or (self.method == "HEAD" and (len(body) > _BUFFER_SIZE or not headers)):
            self._head(status, headers, "none")
        elif len(body) > _BUFFER_SIZE:
            self._head(status, headers, self._streamed())
        else:
            self._head(status, headers, "length", len(body))
        if body and self.method != "HEAD":
            self.writer.chunk(body)
        self.finish()

    def start(self, status: int, headers: Headers) -> None:
        """Begin a streamed response."""
        self._head(status, headers, self._streamed())

    def write(self, data: bytes) -> None:
        """Send one line, event or other piece of a streamed response."""
        self.writer.chunk(data)

    def finish(self) -> None:
        """The response is complete."""
        if not self.ended:
            self.ended = True
            self.writer.end()

    def _streamed(self) -> Framing:
        if self.version == "HTTP/1.1":
            return "chunked"
        self.keep_alive = False
        return "close"

    def _head(self, status: int, headers: Sequence[tuple[str, str]], framing: Framing, length: int = 0) -> None:
        self.started, self.status, self.content_type = True, status, dict(headers).get("Content-Type", "")
        names = {name for name, _ in headers}
        own = [header for header in headers if self.keep_alive or header != ("Connection", "keep-alive")]
        final = sorted(
            [*own, *self.extra_headers], key=lambda header: header[0]
        )  # sorting is stable: Vary keeps its order
        final.append(("Date", self.date()))
        if framing == "length" and "Content-Length" not in names:
            final.append(("Content-Length", str(length)))
        if not self.keep_alive and self.version == "HTTP/1.1" and ("Connection", "close") not in headers:
            final.append(("Connection", "close"))
        elif self.keep_alive and self.version == "HTTP/1.0":
            final.append(("Connection", "keep-alive"))
        if framing == "chunked":
            final.append(("Transfer-Encoding", "chunked"))
        self.writer.head(status, final, framing)

    def stall(self) -> None:
        """Send nothing more; the producer stays paused and keeps the model."""
        self.stalled = True
        self.pauseProducing()

    def pauseProducing(self) -> None:
        """The client reads slowly."""
        if self.producer is not None:
            self.producer.pause()

    def resumeProducing(self) -> None:
        """The client reads again."""
        if self.producer is not None and not self.stalled:
            self.producer.resume()

    def stopProducing(self) -> None:
        """The client has disconnected, which ``connectionLost`` handles."""
