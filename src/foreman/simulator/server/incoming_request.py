"""A request while it is being received."""

from __future__ import annotations

from attrs import Factory, define

from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.interfaces import BodyReceiver


@define(eq=False)
class IncomingRequest:
    """A request that is being received, or that waits for the one before it on the same connection.

    :ivar length: of its body in bytes; negative if it is chunked.
    :ivar receiver: gets the body, if anything needs it; :ivar discarded: bytes of the body that nothing needed.
    :ivar buffered: what arrived of the body before the request was started.
    """

    exchange: Exchange
    length: int
    expect: str
    receiver: BodyReceiver | None = None
    discarded: int = 0
    buffered: list[bytes] = Factory(list)
    started: bool = False
    complete: bool = False

    def head_of_body(self) -> bytes:
        """A request head after which a fresh parser reads the same body."""
        framing = b"Transfer-Encoding: chunked" if self.length < 0 else b"Content-Length: %d" % self.length
        return b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing
