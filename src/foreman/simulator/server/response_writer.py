"""Sends a response: head, body and end in the framing of HTTP/1.1."""

from __future__ import annotations

from attrs import define, field

from foreman.simulator.server.exchange import Exchange, Framing, Headers, reason
from foreman.simulator.server.interfaces import ClientConnection


@define(eq=False)
class HttpResponseWriter:
    """Sends a response without faults."""

    connection: ClientConnection
    exchange: Exchange = field(init=False)
    framing: Framing = "length"

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.connection.transport.write(data)

    def head(self, status: int, headers: Headers, framing: Framing) -> None:
        """Send the status line and the headers, which are in their final order."""
        self.framing = framing
        if framing in {"chunked", "close"}:
            self.connection.response_streaming(self.exchange)
        self.send(self.rendered(f"{self.exchange.version} {status:03d} {reason(status)}", headers))

    @staticmethod
    def rendered(line: str, headers: Headers) -> bytes:
        """The bytes of a status line and headers."""
        return "".join((line, "\r\n", *(f"{name}: {value}\r\n" for name, value in headers), "\r\n")).encode("latin-1")

    def chunk(self, data: bytes) -> None:
        """Send a part of the body."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data)

    def end(self) -> None:
        """End the body."""
        if self.framing == "chunked":
            self.send(b"0\r\n\r\n")
        self.connection.response_finished(self.exchange)
