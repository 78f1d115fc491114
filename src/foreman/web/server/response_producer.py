"""A whole answer of foreman's own on its way to its reader: one who does not read it holds a piece of it, not all."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from foreman import errors
from foreman.util.deadline import Deadline

#: How much is handed to the connection at once, and how much that it has not sent yet pauses it, in bytes.
PIECE = 16 * 1024


class Response(Protocol):
    """What is needed of the request that is answered."""

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Tell ``producer`` when the client's connection is full; None: nobody any more."""

    def write(self, data: bytes) -> None:
        """Send a part of the body."""

    def sent(self) -> None:
        """Everything has been written."""

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer cannot be finished."""


@implementer(IPushProducer)
@define(eq=False)
class ResponseProducer:
    """Sends ``body``, which many readers may share, and ends the answer.

    :ivar patience: how long the reader may take nothing, in seconds.
    """

    _request: Response
    _body: bytes
    _stall: Deadline
    _patience: float
    _at: int = field(default=0, init=False)
    _paused: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin, behind the head of the answer."""
        self._request.set_producer(self)
        self._send()

    def pauseProducing(self) -> None:
        """The connection is full."""
        self._paused = True
        if not self._over:
            self._stall.set(self._patience, self._stalled)

    def resumeProducing(self) -> None:
        """The connection is empty."""
        self._paused = False
        self._stall.clear()
        self._send()

    def stopProducing(self) -> None:
        """The reader is gone."""
        self._over = True
        self._stall.clear()

    def _send(self) -> None:
        while not (self._paused or self._over):
            if self._at >= len(self._body):
                self._end()
                self._request.sent()
                return
            piece = self._body[self._at : self._at + PIECE]
            self._at += PIECE
            self._request.write(piece)

    def _stalled(self) -> None:
        self._end()
        text = f"the reader took nothing for {self._patience:g} s"
        self._request.break_off(errors.ReaderStalled(text), between_pieces=False)

    def _end(self) -> None:
        self._over = True
        self._stall.clear()
        self._request.set_producer(None)
