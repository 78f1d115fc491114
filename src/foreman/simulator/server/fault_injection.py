"""Sends an answer as it should not be."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from attrs import define, field

from foreman.simulator.engine.faults import Misbehaviour
from foreman.simulator.engine.go_json import encode
from foreman.simulator.server.error_shapes import JSON
from foreman.simulator.server.exchange import Exchange, Framing, Headers, reason
from foreman.simulator.server.plain_wire import Line, PlainWire

_FLUSH = 0.02
_NOT_HTTP = b"\x16\x03\x01\x00\xa5 this is not HTTP\r\n\r\n"
_HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"
_HEADER_LINE = b"X-More: " + b"a" * 56 + b"\r\n"
_ENDS = (b'"done":true', b"event: response.completed", b"event: message_stop")
_DONE = b"data: [DONE]\n\n"
_BREAKS = frozenset({"reset", "close", "stall", "cut-framing", "garbage", "error-line"})


@define(eq=False)
class SpoiledWire(PlainWire):
    """An answer to which something happens at its place.

    :ivar struck: it has happened, and nothing more is sent.
    """

    plan: Misbehaviour = field(kw_only=True)
    struck: bool = False
    _sent: int = 0
    _lines: int = 0

    def send(self, data: bytes) -> None:
        """Bytes for the socket, up to the place."""
        if self.struck:
            return
        at = self.plan.at_byte
        if at is not None and self._sent <= at <= self._sent + len(data) and self.placed:
            super().send(data[: at - self._sent])
            self._sent = at
            self.strike()
            return
        self._sent += len(data)
        super().send(data)

    @property
    def placed(self) -> bool:
        """Whether it happens at a place in the bytes."""
        return self.plan.what in _BREAKS

    def piece(self, data: bytes) -> None:
        """A part of the body, unless its place has come."""
        if self.struck:
            return
        if self.placed and self.plan.at_byte is None:
            if self.framing == "length":
                super().piece(data[: len(data) // 2])
                self.strike()
                return
            if self._lines >= (1 if self.plan.at_line is None else self.plan.at_line):
                self.strike()
                return
        self._lines += 1
        super().piece(data)

    def end(self) -> None:
        """It happens now at the latest, unless its place is a byte that never came."""
        if self.placed and self.plan.at_byte is None and not self.struck:
            self.strike()
        if self.framing == "chunked":
            self.send(b"0\r\n\r\n")
        if not self.struck:
            self.connection.answered(self.exchange)

    def strike(self) -> None:
        """Let it happen."""
        self.struck = True
        transport = self.connection.transport
        if self.plan.what == "reset":
            self.connection.later(_FLUSH, self.connection.cut)  # when what was written has left
        elif self.plan.what == "stall":
            self.exchange.stall()
        elif self.plan.what == "error-line":
            self._error()
        else:
            if self.plan.what == "garbage":
                transport.write(self.plan.text.encode() or _NOT_HTTP)
            elif self.plan.what == "cut-framing" and self.framing == "chunked":
                transport.write(b"zz\r\nthis is no chunk\r\n")
            transport.loseConnection()

    def _error(self) -> None:
        """An error instead of the rest, the framing whole."""
        value = encode({"error": self.plan.text or "something broke in the middle"})
        kind = self.exchange.content_type
        self.struck = False
        PlainWire.piece(self, b"data: " + value + b"\n\n" if kind == "text/event-stream" else value + b"\n")
        PlainWire.end(self)
        self.struck = True


@define(eq=False)
class _NoEnd(SpoiledWire):
    """Ends properly, but without saying that it is the end."""

    def piece(self, data: bytes) -> None:
        """Everything but the end marker, or what comes before its place."""
        if self.plan.at_line is not None and self._lines >= self.plan.at_line:
            return
        if self.framing == "length":
            data = data.replace(b'"done":true', b'"done":null')
        elif data.endswith(_DONE):
            data = data[: -len(_DONE)]
        elif any(mark in data for mark in _ENDS):
            return
        super().piece(data)


@define(eq=False)
class _LongLine(SpoiledWire):
    """One line is longer than anybody expects."""

    def piece(self, data: bytes) -> None:
        """A line, and the long one after it."""
        if self._lines == (1 if self.plan.at_line is None else self.plan.at_line):
            size = self.plan.size or 9_000_000
            start = b'data: {"padding":"' if self.exchange.content_type == "text/event-stream" else b'{"padding":"'
            super().piece(
                start + b"a" * (size - len(start) - 3) + b'"}\n' + (b"\n" if start.startswith(b"data") else b"")
            )
        super().piece(data)


@define(eq=False)
class _OtherHead(SpoiledWire):
    """Head and framing are not what they should be."""

    _squeeze: Any = None

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Another head."""
        what = self.plan.what
        if what == "bad-status":
            PlainWire.head(self, 99 if self.plan.status is None else self.plan.status, headers, framing)
            return
        headers = [
            header for header in headers if header[0] not in {"Content-Length", "Transfer-Encoding", "Connection"}
        ]
        version = "HTTP/1.1"
        if what == "gzip-unasked":
            self._squeeze = zlib.compressobj(wbits=31)
            headers += [("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked")]
            framing = "chunked"
        else:
            self.exchange.keep = False
            framing = "close"
            if what == "two-lengths":
                headers += [("Content-Length", "10"), ("Content-Length", "20")]
            else:
                version = "HTTP/1.0"
            headers.append(("Connection", "close"))
        self.framing = framing
        self.connection.streaming(self.exchange)
        self.send(self.rendered(f"{version} {status} {reason(status)}", headers))

    def piece(self, data: bytes) -> None:
        """The body, squeezed or cut."""
        if self._squeeze is not None:
            data = self._squeeze.compress(data) + self._squeeze.flush(zlib.Z_SYNC_FLUSH)
        at = self.plan.at_line
        if self.plan.what == "close-delimited" and at is not None and self._lines >= at and not self.struck:
            self.struck = True
            self.connection.transport.loseConnection()
            return
        super().piece(data)

    @property
    def placed(self) -> bool:
        """An answer without framing may be cut at a byte."""
        return self.plan.what == "close-delimited" and self.plan.at_byte is not None

    def end(self) -> None:
        """What ends it."""
        if self.struck:
            return
        if self._squeeze is not None:
            PlainWire.piece(self, self._squeeze.flush())
        PlainWire.end(self)


@define(eq=False)
class _BadlyPaced(SpoiledWire):
    """The head comes byte by byte, or never ends, or a thousand others come before it."""

    _later: list[bytes] = field(factory=list)
    _slow: bool = False
    _done: bool = False

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Begin the head."""
        what = self.plan.what
        if what == "early-hints":
            for _ in range(self.plan.size or 1_000):
                self.connection.transport.write(_HINT)
        else:
            self._slow = True
        super().head(status, headers, framing)
        if what == "slow-headers":
            head, self._later[0] = self._later[0], b""
            self._drip(head, 0)
        elif what == "endless-headers":
            self.connection.transport.write(self._later[0].partition(b"\r\n")[0] + b"\r\n")
            self._flood()

    def send(self, data: bytes) -> None:
        """Bytes for the socket, when the head has passed."""
        if self._slow:
            self._later.append(data)
        else:
            super().send(data)

    def end(self) -> None:
        """The end comes after the head too."""
        if self._slow:
            self._done = True
            if self.framing == "chunked":
                self._later.append(b"0\r\n\r\n")
        else:
            super().end()

    def _drip(self, head: bytes, at: int) -> None:
        if at < len(head):
            self.connection.transport.write(head[at : at + 1])
            self.connection.later(self.plan.pace, self._drip, head, at + 1)
            return
        self._slow = False
        self.connection.transport.write(b"".join(self._later))
        if self._done:
            self.connection.answered(self.exchange)

    def _flood(self) -> None:
        self.connection.transport.write(_HEADER_LINE * 256)
        self.connection.later(self.plan.pace, self._flood)


_WIRES: dict[str, type[SpoiledWire]] = {
    "no-done": _NoEnd,
    "long-line": _LongLine,
    "close-delimited": _OtherHead,
    "two-lengths": _OtherHead,
    "gzip-unasked": _OtherHead,
    "bad-status": _OtherHead,
    "slow-headers": _BadlyPaced,
    "endless-headers": _BadlyPaced,
    "early-hints": _BadlyPaced,
}


def spoil(connection: Line, exchange: Exchange, plan: Misbehaviour) -> Callable[[], None] | None:
    """Let ``plan`` happen to the answer of ``exchange``.

    :returns: what is to be done instead of answering, or ``None``.
    """
    if plan.what == "no-headers":
        return lambda: None
    if plan.what == "5xx":
        body = plan.text.encode() if plan.text[:1] in {"<", "{"} else encode({"error": plan.text or "something broke"})
        kind = [("Content-Type", "text/html")] if body.startswith(b"<") else JSON
        return lambda: exchange.respond(plan.status or 500, kind, body)
    if plan.what == "redirect":
        return lambda: exchange.respond(plan.status or 307, [("Location", plan.text or "/api/elsewhere")])
    wire = _WIRES.get(plan.what, SpoiledWire)(connection, plan=plan)
    wire.exchange, exchange.wire = exchange, wire
    if plan.what == "garbage" and plan.at_byte is None and plan.at_line is None:
        return wire.strike
    return None
