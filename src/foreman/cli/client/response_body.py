"""Read the body of a response, whole or line by line, and give up one that is too large or stops arriving."""

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

#: A line without its newline.
Line: TypeAlias = bytes


async def read_lines(response: Any, receive: Callable[[Line], None], clock: Any, silence: float) -> None:
    """Pass each line of the body of ``response`` to ``receive``.

    :param silence: after so many seconds of ``clock`` without a byte the connection counts as lost.
    :raises ResponseFailed: if the connection is lost; and whatever ``receive`` raises.
    """
    reader = _LineReader(receive, clock, silence)
    response.deliverBody(reader)
    await reader.done


class ResponseTooLarge(Exception):
    """A response has more than ``limit`` bytes.

    :ivar limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


async def read_body(response: Any, limit: int) -> bytes:
    """The whole body of ``response``.

    :raises ResponseTooLarge: as soon as it has more than ``limit`` bytes.
    :raises ResponseFailed: if the connection is lost.
    """
    reader = _BodyCollector(limit)
    response.deliverBody(reader)
    return await reader.done


class _BodyCollector(Protocol):
    """Collects one body.

    :ivar done: fires with the body; cancelling it closes the connection.
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
            self.done.errback(ResponseTooLarge(self._limit))
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


class _LineReader(Protocol):
    """Splits one body into lines.

    :ivar done: fires when the body has ended; cancelling it closes the connection.
    """

    def __init__(self, receive: Callable[[Line], None], clock: Any, silence: float) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._close())
        self._receive = receive
        self._framer = LineFramer()
        self._silence = silence
        self._limit = clock.callLater(silence, self._silence_expired)

    def dataReceived(self, data: bytes) -> None:
        self._limit.reset(self._silence)
        self._deliver(self._framer.feed(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # A body without a length ends with its connection, so nobody can say whether it is complete: callers check.
        whole = reason.check(ResponseDone, PotentialDataLoss) is not None
        if whole:
            self._deliver([self._framer.rest()])
        self._finish(None if whole else reason)

    def _deliver(self, pieces: list[bytes]) -> None:
        for piece in filter(None, pieces):
            if self.done.called:
                return
            try:
                self._receive(piece.removesuffix(b"\n").removesuffix(b"\r"))
            except BaseException:  # noqa: BLE001 - it is raised where ``done`` is awaited
                self._finish(Failure())
                self._close()

    def _silence_expired(self) -> None:
        self._finish(Failure(ResponseFailed([Failure(ConnectionLost(f"silent for {self._silence:.0f} s"))])))
        self._close()

    def _close(self) -> None:
        if self._limit.active():
            self._limit.cancel()
        if self.transport is not None:
            self.transport.loseConnection()

    def _finish(self, reason: Failure | None) -> None:
        if self._limit.active():
            self._limit.cancel()
        if not self.done.called:
            self.done.callback(None) if reason is None else self.done.errback(reason)
