"""Closing a connection whose last answer was written before its request had arrived completely."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime, ISSLTransport, ITCPTransport

from foreman.util.deadline import Deadline

#: How long nothing may arrive before the connection is closed, and how long it lingers at most, in seconds (nginx: 5 and 30).
MAX_SILENCE = 2.0
MAX_DURATION = 30.0
#: How much is read and dropped, in bytes. Some clients (httpx on asyncio) read an answer only once they have sent everything.
MAX_BYTES = 64 * 1024 * 1024


@define(eq=False)
class Linger:
    """Reads and drops what a client still sends, so that it gets to read the answer.

    Closing at once would reset the connection, because bytes arrive that are not read, and after a reset a client may lose an
    answer that it has not read yet (RFC 9112 section 9.6).

    :ivar deadline: of the connection, which has it call ``end`` after ``MAX_SILENCE``.
    """

    _clock: IReactorTime
    _transport: Any
    _deadline: Deadline
    _until: float = field(init=False)
    _dropped: int = field(default=0, init=False)
    _is_over: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._until = self._clock.seconds() + MAX_DURATION
        self._transport.unregisterProducer()
        # Half of a TLS connection cannot be closed; there the answer is only flushed.
        if ITCPTransport.providedBy(self._transport) and not ISSLTransport.providedBy(self._transport):
            self._transport.loseWriteConnection()
        else:
            self._transport.loseConnection()

    def drop(self, data: bytes) -> None:
        """The client has sent more."""
        if self._is_over:
            return
        now = self._clock.seconds()
        self._dropped += len(data)
        if self._dropped > MAX_BYTES:
            self._transport.pauseProducing()
            self._deadline.set(max(0.0, self._until - now), self.end)
        else:
            # So that it ends at ``_until`` at the latest.
            self._deadline.started_at = min(now, self._until - MAX_SILENCE)

    def end(self) -> None:
        """Close: nothing has arrived for too long, or the whole time is over."""
        self._is_over = True
        # A client that has not read its answer by now is not expected to read it at all.
        self._deadline.set(MAX_SILENCE, self._transport.abortConnection)
        self._transport.loseConnection()
