"""Sends an answer as it should be: head, pieces and end in the framing of HTTP/1.1."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from foreman.simulator.server.exchange import Exchange, Framing, Headers, reason


class Line(Protocol):
    """The connection that an answer goes over."""

    transport: Any
    clock: IReactorTime

    def streaming(self, exchange: Exchange) -> None:
        """An answer of unknown length begins."""

    def answered(self, exchange: Exchange) -> None:
        """An answer is whole."""

    def later(self, delay: float, do: Any, *args: object) -> None:
        """Do something after a while, unless the client is gone by then."""

    def cut(self) -> None:
        """Send RST."""


@define(eq=False)
class PlainWire:
    """Sends an answer as it should be."""

    connection: Line
    exchange: Exchange = field(init=False)
    framing: Framing = "length"

    def send(self, data: bytes) -> None:
        """Bytes for the socket."""
        self.connection.transport.write(data)

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Status and headers, in their final order."""
        self.framing = framing
        if framing in {"chunked", "close"}:
            self.connection.streaming(self.exchange)
        self.send(self.rendered(f"{self.exchange.version} {status:03d} {reason(status)}", headers))

    @staticmethod
    def rendered(line: str, headers: Headers) -> bytes:
        """A status line and headers as bytes."""
        return "".join((line, "\r\n", *(f"{name}: {value}\r\n" for name, value in headers), "\r\n")).encode("latin-1")

    def piece(self, data: bytes) -> None:
        """A part of the body."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data)

    def end(self) -> None:
        """What ends the body."""
        if self.framing == "chunked":
            self.send(b"0\r\n\r\n")
        self.connection.answered(self.exchange)
