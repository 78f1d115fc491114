"""One request and its answer, written the way Go's server writes them (contract 1.3 and 1.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Literal, Protocol

from attrs import Factory, define
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

Headers = list[tuple[str, str]]
Framing = Literal["length", "chunked", "close", "none"]

_SMALL = 2048


class Pace(Protocol):
    """Whoever makes an answer bit by bit, and can wait for a slow reader."""

    def pause(self) -> None:
        """Make nothing more for now."""

    def resume(self) -> None:
        """Go on."""


class Wire(Protocol):
    """Where the bytes of one answer go."""

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Send status and headers, in their final order."""

    def piece(self, data: bytes) -> None:
        """Send a part of the body, as one chunk where it is chunked."""

    def end(self) -> None:
        """Send what ends the body; the connection goes on or closes."""


def reason(status: int) -> str:
    """What Go calls a status."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "Request Entity Too Large"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status code {status}"


@implementer(IPushProducer)
@define(eq=False, slots=False)
class Exchange:
    """A request, and how it is answered.

    :ivar target: path and query as they were sent; :ivar path: the path, decoded, which a route is chosen by.
    :ivar keep: the connection goes on after the answer.
    :ivar extra: headers that stand in every answer to this request, such as those of CORS.
    :ivar extra_on_error: headers that the route had set before it failed.
    :ivar on_gone: called when the reader has left before the end of the answer.
    :ivar on_half_gone: called when the reader will send nothing more, but may still read.
    :ivar on_end: called with the status when the answer is whole; :ivar pace: who makes it, while it is made.
    :ivar stalled: it will never be whole, by order.
    """

    method: str
    target: str
    version: str
    headers: Headers
    keep: bool
    date: Callable[[], str]
    wire: Wire
    path: str = ""
    query: str = ""
    body: bytes = b""
    extra: Headers = Factory(list)
    extra_on_error: Headers = Factory(list)
    begun: bool = False
    ended: bool = False
    on_gone: Callable[[], None] | None = None
    on_half_gone: Callable[[], None] | None = None
    on_end: Callable[[int], None] | None = None
    pace: Pace | None = None
    status: int = 0
    content_type: str = ""
    stalled: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), None)

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Answer all at once. Go tells the length of what fits its buffer, and sends the rest in chunks."""
        if status == HTTPStatus.NO_CONTENT or (self.method == "HEAD" and (len(body) > _SMALL or not headers)):
            self._head(status, headers, "none")
        elif len(body) > _SMALL:
            self._head(status, headers, self._streamed())
        else:
            self._head(status, headers, "length", len(body))
        if body and self.method != "HEAD":
            self.wire.piece(body)
        self.finish()

    def start(self, status: int, headers: Headers) -> None:
        """Begin an answer that comes bit by bit."""
        self._head(status, headers, self._streamed())

    def write(self, data: bytes) -> None:
        """One line, event or other piece of a begun answer."""
        self.wire.piece(data)

    def finish(self) -> None:
        """The answer is whole."""
        if not self.ended:
            self.ended = True
            self.wire.end()

    def _streamed(self) -> Framing:
        if self.version == "HTTP/1.1":
            return "chunked"
        self.keep = False
        return "close"

    def _head(self, status: int, headers: Sequence[tuple[str, str]], framing: Framing, length: int = 0) -> None:
        self.begun, self.status, self.content_type = True, status, dict(headers).get("Content-Type", "")
        names = {name for name, _ in headers}
        own = [header for header in headers if self.keep or header != ("Connection", "keep-alive")]
        final = sorted([*own, *self.extra], key=lambda header: header[0])  # sorting is stable: Vary keeps its order
        final.append(("Date", self.date()))
        if framing == "length" and "Content-Length" not in names:
            final.append(("Content-Length", str(length)))
        if not self.keep and self.version == "HTTP/1.1" and ("Connection", "close") not in headers:
            final.append(("Connection", "close"))
        elif self.keep and self.version == "HTTP/1.0":
            final.append(("Connection", "keep-alive"))
        if framing == "chunked":
            final.append(("Transfer-Encoding", "chunked"))
        self.wire.head(status, final, framing)

    def stall(self) -> None:
        """Never say anything more; who makes the answer keeps what it holds."""
        self.stalled = True
        self.pauseProducing()

    def pauseProducing(self) -> None:
        """The reader is slow."""
        if self.pace is not None:
            self.pace.pause()

    def resumeProducing(self) -> None:
        """The reader goes on."""
        if self.pace is not None and not self.stalled:
            self.pace.resume()

    def stopProducing(self) -> None:
        """The reader has left, which the connection says too."""
