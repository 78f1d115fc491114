"""A request while it is read."""

from __future__ import annotations

from attrs import Factory, define

from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.interfaces import Taker


@define(eq=False)
class Arriving:
    """A request that is still being read, or waits for the one before it.

    :ivar length: of its body in bytes; negative where it comes in chunks.
    """

    exchange: Exchange
    length: int
    expect: str
    taker: Taker | None = None
    dropped: int = 0
    kept: list[bytes] = Factory(list)
    open: bool = False
    whole: bool = False

    def head_of_body(self) -> bytes:
        """A head behind which another parser reads the same body."""
        framing = b"Transfer-Encoding: chunked" if self.length < 0 else b"Content-Length: %d" % self.length
        return b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing
