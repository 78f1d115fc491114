"""Sends responses with an injected fault (``engine.faults``)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from attrs import define, field

from foreman.simulator.engine.faults import Fault
from foreman.simulator.engine.go_json import encode
from foreman.simulator.server.content_types import JSON
from foreman.simulator.server.exchange import Exchange, Framing, Headers, reason
from foreman.simulator.server.interfaces import ClientConnection
from foreman.simulator.server.response_writer import HttpResponseWriter

_FLUSH = 0.02
_NOT_HTTP = b"\x16\x03\x01\x00\xa5 this is not HTTP\r\n\r\n"
_EARLY_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"
_HEADER_LINE = b"X-More: " + b"a" * 56 + b"\r\n"
_END_MARKERS = (b'"done":true', b"event: response.completed", b"event: message_stop")
_DONE = b"data: [DONE]\n\n"
_AT_A_POSITION = frozenset({"reset", "close", "stall", "cut-framing", "garbage", "error-line"})


@define(eq=False)
class FaultyWriter(HttpResponseWriter):
    """Sends a response until the position of its fault is reached.

    :ivar triggered: the fault has happened, and nothing more is sent.
    """

    fault: Fault = field(kw_only=True)
    triggered: bool = False
    _sent: int = 0
    _lines: int = 0

    def send(self, data: bytes) -> None:
        """Send bytes, up to the position of the fault."""
        if self.triggered:
            return
        at = self.fault.at_byte
        if at is not None and self._sent <= at <= self._sent + len(data) and self.has_position:
            super().send(data[: at - self._sent])
            self._sent = at
            self.trigger()
            return
        self._sent += len(data)
        super().send(data)

    @property
    def has_position(self) -> bool:
        """Whether the fault happens at a position in the response."""
        return self.fault.what in _AT_A_POSITION

    def chunk(self, data: bytes) -> None:
        """Send a part of the body, or trigger the fault."""
        if self.triggered:
            return
        if self.has_position and self.fault.at_byte is None:
            if self.framing == "length":
                super().chunk(data[: len(data) // 2])
                self.trigger()
                return
            if self._lines >= (1 if self.fault.at_line is None else self.fault.at_line):
                self.trigger()
                return
        self._lines += 1
        super().chunk(data)

    def end(self) -> None:
        """Trigger the fault now at the latest, unless its position is a byte that was never reached."""
        if self.has_position and self.fault.at_byte is None and not self.triggered:
            self.trigger()
        if self.framing == "chunked":
            self.send(b"0\r\n\r\n")
        if not self.triggered:
            self.connection.response_finished(self.exchange)

    def trigger(self) -> None:
        """Let the fault happen."""
        self.triggered = True
        transport = self.connection.transport
        if self.fault.what == "reset":
            self.connection.call_later(_FLUSH, self.connection.abort)  # once what was written has been sent
        elif self.fault.what == "stall":
            self.exchange.stall()
        elif self.fault.what == "error-line":
            self._error()
        else:
            if self.fault.what == "garbage":
                transport.write(self.fault.text.encode() or _NOT_HTTP)
            elif self.fault.what == "cut-framing" and self.framing == "chunked":
                transport.write(b"zz\r\nthis is no chunk\r\n")
            transport.loseConnection()

    def _error(self) -> None:
        """Send an error instead of the rest, and end the framing properly."""
        value = encode({"error": self.fault.text or "something broke in the middle"})
        kind = self.exchange.content_type
        self.triggered = False
        HttpResponseWriter.chunk(self, b"data: " + value + b"\n\n" if kind == "text/event-stream" else value + b"\n")
        HttpResponseWriter.end(self)
        self.triggered = True


@define(eq=False)
class _MissingEndWriter(FaultyWriter):
    """Ends the framing properly, but leaves out the end marker of the stream."""

    def chunk(self, data: bytes) -> None:
        """Send everything but the end marker, or nothing from the position on."""
        if self.fault.at_line is not None and self._lines >= self.fault.at_line:
            return
        if self.framing == "length":
            data = data.replace(b'"done":true', b'"done":null')
        elif data.endswith(_DONE):
            data = data[: -len(_DONE)]
        elif any(mark in data for mark in _END_MARKERS):
            return
        super().chunk(data)


@define(eq=False)
class _LongLineWriter(FaultyWriter):
    """Inserts one very long line."""

    def chunk(self, data: bytes) -> None:
        """Send a line, and at the position the long one first."""
        if self._lines == (1 if self.fault.at_line is None else self.fault.at_line):
            size = self.fault.size or 9_000_000
            start = b'data: {"padding":"' if self.exchange.content_type == "text/event-stream" else b'{"padding":"'
            super().chunk(
                start + b"a" * (size - len(start) - 3) + b'"}\n' + (b"\n" if start.startswith(b"data") else b"")
            )
        super().chunk(data)


@define(eq=False)
class _WrongHeadWriter(FaultyWriter):
    """Sends a wrong status, wrong framing or unrequested gzip."""

    _compressor: Any = None

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Send the wrong head."""
        what = self.fault.what
        if what == "bad-status":
            HttpResponseWriter.head(self, 99 if self.fault.status is None else self.fault.status, headers, framing)
            return
        headers = [
            header for header in headers if header[0] not in {"Content-Length", "Transfer-Encoding", "Connection"}
        ]
        version = "HTTP/1.1"
        if what == "gzip-unasked":
            self._compressor = zlib.compressobj(wbits=31)
            headers += [("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked")]
            framing = "chunked"
        else:
            self.exchange.keep_alive = False
            framing = "close"
            if what == "two-lengths":
                headers += [("Content-Length", "10"), ("Content-Length", "20")]
            else:
                version = "HTTP/1.0"
            headers.append(("Connection", "close"))
        self.framing = framing
        self.connection.response_streaming(self.exchange)
        self.send(self.rendered(f"{version} {status} {reason(status)}", headers))

    def chunk(self, data: bytes) -> None:
        """Send a part of the body, compressed or truncated."""
        if self._compressor is not None:
            data = self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        at = self.fault.at_line
        if self.fault.what == "close-delimited" and at is not None and self._lines >= at and not self.triggered:
            self.triggered = True
            self.connection.transport.loseConnection()
            return
        super().chunk(data)

    @property
    def has_position(self) -> bool:
        """A close-delimited response may be truncated at a byte."""
        return self.fault.what == "close-delimited" and self.fault.at_byte is not None

    def end(self) -> None:
        """End the body."""
        if self.triggered:
            return
        if self._compressor is not None:
            HttpResponseWriter.chunk(self, self._compressor.flush())
        HttpResponseWriter.end(self)


@define(eq=False)
class _SlowHeadWriter(FaultyWriter):
    """Sends the head byte by byte, or without end, or after a thousand interim responses."""

    _delayed: list[bytes] = field(factory=list)
    _head_pending: bool = False
    _done: bool = False

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Begin to send the head."""
        what = self.fault.what
        if what == "early-hints":
            for _ in range(self.fault.size or 1_000):
                self.connection.transport.write(_EARLY_HINT)
        else:
            self._head_pending = True
        super().head(status, headers, framing)
        if what == "slow-headers":
            head, self._delayed[0] = self._delayed[0], b""
            self._drip(head, 0)
        elif what == "endless-headers":
            self.connection.transport.write(self._delayed[0].partition(b"\r\n")[0] + b"\r\n")
            self._flood()

    def send(self, data: bytes) -> None:
        """Send bytes, or hold them back until the head has been sent."""
        if self._head_pending:
            self._delayed.append(data)
        else:
            super().send(data)

    def end(self) -> None:
        """End the body, after the head has been sent."""
        if self._head_pending:
            self._done = True
            if self.framing == "chunked":
                self._delayed.append(b"0\r\n\r\n")
        else:
            super().end()

    def _drip(self, head: bytes, at: int) -> None:
        if at < len(head):
            self.connection.transport.write(head[at : at + 1])
            self.connection.call_later(self.fault.pace, self._drip, head, at + 1)
            return
        self._head_pending = False
        self.connection.transport.write(b"".join(self._delayed))
        if self._done:
            self.connection.response_finished(self.exchange)

    def _flood(self) -> None:
        self.connection.transport.write(_HEADER_LINE * 256)
        self.connection.call_later(self.fault.pace, self._flood)


_WRITERS: dict[str, type[FaultyWriter]] = {
    "no-done": _MissingEndWriter,
    "long-line": _LongLineWriter,
    "close-delimited": _WrongHeadWriter,
    "two-lengths": _WrongHeadWriter,
    "gzip-unasked": _WrongHeadWriter,
    "bad-status": _WrongHeadWriter,
    "slow-headers": _SlowHeadWriter,
    "endless-headers": _SlowHeadWriter,
    "early-hints": _SlowHeadWriter,
}


def inject(connection: ClientConnection, exchange: Exchange, fault: Fault) -> Callable[[], None] | None:
    """Prepare ``fault`` for the response of ``exchange``.

    :returns: what to do instead of running the handler, or ``None`` to run it.
    """
    if fault.what == "no-headers":
        return lambda: None
    if fault.what == "5xx":
        body = (
            fault.text.encode() if fault.text[:1] in {"<", "{"} else encode({"error": fault.text or "something broke"})
        )
        kind = [("Content-Type", "text/html")] if body.startswith(b"<") else JSON
        return lambda: exchange.respond(fault.status or 500, kind, body)
    if fault.what == "redirect":
        return lambda: exchange.respond(fault.status or 307, [("Location", fault.text or "/api/elsewhere")])
    writer = _WRITERS.get(fault.what, FaultyWriter)(connection, fault=fault)
    writer.exchange, exchange.writer = exchange, writer
    if fault.what == "garbage" and fault.at_byte is None and fault.at_line is None:
        return writer.trigger
    return None
