"""Take an answer whole, or line by line as it comes, and give up one that is too large or has gone silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss

from foreman.protocol.framing import LineFramer

#: Without its newline.
Line: TypeAlias = bytes


async def take_lines(response: Any, take: Callable[[Line], None], clock: Any, silence: float) -> None:
    """Hand each line of the body of ``response`` to ``take``.

    :param silence: so many seconds of ``clock`` without a byte, and the connection counts as lost.
    :raises ResponseFailed: when it broke; and whatever ``take`` raises.
    """
    taking = _Taking(take, clock, silence)
    response.deliverBody(taking)
    await taking.done


class TooLarge(Exception):
    """An answer has more bytes than it may have.

    :ivar limit: how many it may have.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


async def take_whole(response: Any, limit: int) -> bytes:
    """The body of ``response``.

    :raises TooLarge: when it has more than ``limit`` bytes, which are not waited for.
    :raises ResponseFailed: when it broke.
    """
    taking = _Whole(limit)
    response.deliverBody(taking)
    return await taking.done


class _Whole(Protocol):
    """Collects one body.

    :ivar done: fires with it; cancelling it closes the connection.
    """

    def __init__(self, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._close())
        self._limit = limit
        self._pieces: list[bytes] = []
        self._bytes = 0

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._bytes += len(data)
        if self._bytes > self._limit and not self.done.called:
            self._pieces.clear()
            self.done.errback(TooLarge(self._limit))
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss) is not None:
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(reason)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class _Taking(Protocol):
    """Reads one body.

    :ivar done: fires when it has ended; cancelling it closes the connection.
    """

    def __init__(self, take: Callable[[Line], None], clock: Any, silence: float) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._close())
        self._take = take
        self._cutter = LineFramer()
        self._silence = silence
        self._limit = clock.callLater(silence, self._fell_silent)

    def dataReceived(self, data: bytes) -> None:
        self._limit.reset(self._silence)
        self._hand_over(self._cutter.feed(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # A body without a length ends with its connection, which may be whole or not: what follows finds that out.
        whole = reason.check(ResponseDone, PotentialDataLoss) is not None
        if whole:
            self._hand_over([self._cutter.rest()])
        self._end(None if whole else reason)

    def _hand_over(self, pieces: list[bytes]) -> None:
        for piece in filter(None, pieces):
            if self.done.called:
                return
            try:
                self._take(piece.removesuffix(b"\n").removesuffix(b"\r"))
            except BaseException:  # noqa: BLE001 - told to whoever waits
                self._end(Failure())
                self._close()

    def _fell_silent(self) -> None:
        self._end(Failure(ResponseFailed([Failure(ConnectionLost(f"silent for {self._silence:.0f} s"))])))
        self._close()

    def _close(self) -> None:
        if self._limit.active():
            self._limit.cancel()
        if self.transport is not None:
            self.transport.loseConnection()

    def _end(self, reason: Failure | None) -> None:
        if self._limit.active():
            self._limit.cancel()
        if not self.done.called:
            self.done.callback(None) if reason is None else self.done.errback(reason)
