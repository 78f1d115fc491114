"""Sends a large answer of foreman's own in pieces, so that a client that does not read it keeps one piece in memory, not all."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from foreman import errors
from foreman.util.deadline import Deadline

#: How much is written to the connection at once, and how much unsent data pauses the producer, in bytes.
PIECE_SIZE = 16 * 1024


class Response(Protocol):
    """What is needed of the request that is answered."""

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Pause and resume ``producer`` as the client reads; None: no producer any more."""

    def write(self, data: bytes) -> None:
        """Send a part of the body."""

    def body_sent(self) -> None:
        """Everything has been written."""

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer cannot be finished."""


@implementer(IPushProducer)
@define(eq=False)
class ResponseProducer:
    """Sends ``body``, which many answers may share, and ends the answer.

    :ivar stall_timeout: how long the client may read nothing, in seconds.
    """

    _request: Response
    _body: bytes
    _stall: Deadline
    _stall_timeout: float
    _position: int = field(default=0, init=False)
    _is_paused: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin; the head of the answer is written."""
        self._request.set_producer(self)
        self._send()

    def pauseProducing(self) -> None:
        """Too much is unsent."""
        self._is_paused = True
        if not self._is_over:
            self._stall.set(self._stall_timeout, self._stalled)

    def resumeProducing(self) -> None:
        """Everything was sent."""
        self._is_paused = False
        self._stall.clear()
        self._send()

    def stopProducing(self) -> None:
        """The client is gone."""
        self._is_over = True
        self._stall.clear()

    def _send(self) -> None:
        while not (self._is_paused or self._is_over):
            if self._position >= len(self._body):
                self._end()
                self._request.body_sent()
                return
            piece = self._body[self._position : self._position + PIECE_SIZE]
            self._position += PIECE_SIZE
            self._request.write(piece)

    def _stalled(self) -> None:
        self._end()
        text = f"the reader took nothing for {self._stall_timeout:g} s"
        self._request.break_off(errors.ReaderStalled(text), between_pieces=False)

    def _end(self) -> None:
        self._is_over = True
        self._stall.clear()
        self._request.set_producer(None)
