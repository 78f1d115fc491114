"""The relay of one answer from the target to its reader.

The target is read at full speed into a bounded buffer, so that a slow reader does not keep the turn. Each piece is passed
on as it arrived, with one write for each NDJSON line. There are limits on silence (the target sends nothing) and on stalls
(the reader takes nothing), but none on the duration of an answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol as Face
from typing import cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from zope.interface import implementer

from foreman import errors
from foreman.protocol.answer_end import AnswerEnd
from foreman.protocol.framing import Framer
from foreman.proxy.access_record import Outcome, outcome_of
from foreman.target.connection import TargetResponse
from foreman.util.byte_budget import ByteBudget
from foreman.util.clock import Monotonic
from foreman.util.deadline import Deadline

#: An unstreamed answer of at most so many bytes is kept until its end, to check whether it is a complete JSON value.
MAX_KEPT = 1024 * 1024


class Reader(Face):
    """Where an answer goes: to an HTTP client, or to an attempt of a job."""

    def write(self, piece: bytes) -> None:
        """Take the next piece; this may pause the relay before it returns."""

    def finish(self) -> None:
        """The answer is complete, and all of it was written."""

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer cannot be finished, which its reader must be able to see.

        :param between_pieces: no piece was written in part.
        """

    def set_producer(self, producer: IPushProducer | None) -> None:
        """From now on pause and resume ``producer``; None: no producer."""


@frozen
class Limits:
    """Limits of a relay: ``buffer`` in bytes, ``silence`` of the target and ``stall`` of the reader in seconds."""

    buffer: int
    silence: float
    stall: float


@define(eq=False)
class LastPieces:
    """The part of an answer that is kept to check, at its end, whether and how it ended.

    :ivar max_pieces: how many of the last pieces of a stream are kept; 0: all of an unstreamed answer, while it is small.
    :ivar too_large: the answer, or the last line of a stream, was too large to keep.
    """

    max_pieces: int
    too_large: bool = False
    _pieces: deque[bytes] = field(init=False)
    _bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self._pieces = deque(maxlen=self.max_pieces or None)

    def add(self, piece: bytes) -> None:
        """The next piece of the answer."""
        if self.max_pieces:
            self.too_large = False
            if not (piece.isspace() or (piece[:1] == b":" and b"\ndata" not in piece)):
                self._pieces.append(piece)  # blank lines and comments may follow the end marker
        elif not self.too_large:
            self._pieces.append(piece)
            self._bytes += len(piece)
            if self._bytes > MAX_KEPT:
                self.too_large = True
                self._pieces.clear()

    def joined(self) -> bytes:
        """The kept pieces in one."""
        return b"".join(self._pieces)


@implementer(IPushProducer)
@define(eq=False)
class Relay(Protocol):
    """The protocol that receives the body of one answer.

    :ivar answered: fires when the target has finished, well or badly, and the turn can be released;
    :ivar sent: fires with the Outcome when everything was written to the reader. Cancelling either of them cancels the
        relay. :ivar end: what the answer's end reports; :ivar problem: why it was broken off;
    :ivar needs_end_marker: the answer is a stream that is complete only with its end marker.
    """

    _clock: IReactorTime
    _answer: TargetResponse
    _reader: Reader
    _framer: Framer
    _read_end: Callable[[bytes], AnswerEnd]
    _limits: Limits
    _shared: ByteBudget
    _last: LastPieces
    _needs_end_marker: bool = False
    answered: Deferred[None] = field(init=False)
    sent: Deferred[Outcome] = field(init=False)
    first_byte_at: Monotonic | None = field(default=None, init=False)
    end: AnswerEnd | None = field(default=None, init=False)
    problem: errors.ForemanError | None = field(default=None, init=False)
    _buffer: deque[bytes] = field(factory=deque, init=False)
    _buffered_bytes: int = field(default=0, init=False)
    _reader_paused: bool = field(default=False, init=False)
    _target_paused: bool = field(default=False, init=False)
    _has_partial_pieces: bool = field(default=False, init=False)
    _is_over: bool = field(default=False, init=False)
    _target_ended: Failure | None = field(default=None, init=False)
    _silence: Deadline = field(init=False)
    _stall: Deadline = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.answered = Deferred(lambda _: self.cancel())
        self.sent = Deferred(lambda _: self.cancel())
        self._silence, self._stall = Deadline(self._clock), Deadline(self._clock)

    def connectionMade(self) -> None:
        self._silence.set(self._limits.silence, self._silent)
        self._reader.set_producer(self)

    def dataReceived(self, data: bytes) -> None:
        if self._is_over:
            return
        self._silence.started_at = now = self._clock.seconds()
        if self.first_byte_at is None:
            self.first_byte_at = Monotonic(now)
        framer = self._framer
        was_whole = framer.whole
        for piece in framer.feed(data):
            self._pass_on(piece)
        if not was_whole:  # the first piece is the rest of a longer line
            self._has_partial_pieces = True
            self._last.too_large |= self._needs_end_marker

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._is_over:
            return
        self._target_ended = reason
        self._silence.clear()
        if not reason.check(ResponseDone, PotentialDataLoss):
            self.problem = errors.ConnectionError("reset", "the target broke off in the middle of its answer")
        else:
            self._pass_on_rest(reason)
        if not self.answered.called:
            self.answered.callback(None)
        self._settle()

    def pauseProducing(self) -> None:
        self._reader_paused = True

    def resumeProducing(self) -> None:
        self._reader_paused = False
        self._stall.clear()
        buffer = self._buffer
        while buffer and not self._reader_paused:
            piece = buffer.popleft()
            self._buffered_bytes -= len(piece)
            self._shared.give(len(piece))
            self._reader.write(piece)
        if self._target_paused and self._buffered_bytes <= self._limits.buffer // 2:
            self._target_paused = False
            self._silence.set(self._limits.silence, self._silent)
            self._target().resumeProducing()
        self._settle()

    def stopProducing(self) -> None:
        self.cancel()

    def cancel(self) -> None:
        """The reader is gone: close the connection to the target, and drop the buffer."""
        if not self._is_over:
            self._finish()
            self._answer.abort()

    def fail(self, problem: errors.ForemanError) -> None:
        """Break off the answer because of ``problem``, so that its reader sees it."""
        if not self._is_over:
            self.problem = problem
            self._break_off(problem)

    def _pass_on(self, piece: bytes) -> None:
        self._last.add(piece)
        if self._reader_paused or self._buffer:
            self._keep(piece)
        else:
            self._reader.write(piece)

    def _pass_on_rest(self, reason: Failure) -> None:
        """Pass on what follows the last line end, unless it may be part of a piece."""
        kept = bool(reason.check(ResponseDone)) and not (self._needs_end_marker and self._framer.whole)
        rest = self._framer.rest()
        if rest and (kept or self._read_end(rest).done or self._read_end(self._last.joined()).done):
            self._pass_on(rest)

    def _keep(self, piece: bytes) -> None:
        self._buffer.append(piece)
        self._buffered_bytes += len(piece)
        fits = self._shared.take(len(piece))
        if (
            (self._buffered_bytes > self._limits.buffer or not fits)
            and not self._target_paused
            and self._target_ended is None
        ):
            self._target_paused = True
            self._silence.clear()
            self._target().pauseProducing()
        if self._target_paused:
            self._watch_reader()

    def _settle(self) -> None:
        """Do what follows when the target has ended, or when the reader has taken pieces."""
        if self._is_over:
            return
        if self._buffer:
            if self._target_paused or self._target_ended is not None:
                self._watch_reader()
        elif self._target_ended is not None:
            self._conclude(self._target_ended)

    def _conclude(self, reason: Failure) -> None:
        self.end = answer_end = self._read_end(self._last.joined())
        if self.problem is None and reason.check(PotentialDataLoss) and not answer_end.done:
            self.problem = errors.ConnectionError("reset", "the target broke off before the end of its answer")
        elif self.problem is None and self._needs_end_marker and not (answer_end.done or self._last.too_large):
            self.problem = errors.ConnectionError("reset", "the target's answer ended without its end marker")
        if self.problem is not None:
            self._break_off(self.problem)
            return
        self._finish()
        self._reader.finish()
        if answer_end.error:
            self.sent.callback("target failed")
        else:
            self.sent.callback("complete" if answer_end.done or self._last.too_large else "incomplete")

    def _break_off(self, problem: errors.ForemanError) -> None:
        between_pieces = self._framer.whole and not (self._buffer and self._has_partial_pieces)
        self._finish()
        self._answer.abort()
        self._reader.break_off(problem, between_pieces=between_pieces)
        if not self.answered.called:
            self.answered.callback(None)
        self.sent.callback(outcome_of(problem))

    def _target(self) -> IPushProducer:
        return cast("IPushProducer", self.transport)

    def _finish(self) -> None:
        self._is_over = True
        self._silence.clear()
        self._stall.clear()
        self._reader.set_producer(None)
        self._shared.give(self._buffered_bytes)
        self._buffer.clear()
        self._buffered_bytes = 0

    # limits

    def _silent(self) -> None:
        self.fail(errors.ConnectionError("silence", f"the target sent nothing for {self._limits.silence:g} s"))

    def _watch_reader(self) -> None:
        if not self._stall.is_set:
            self._stall.set(self._limits.stall, self._stalled)

    def _stalled(self) -> None:
        self.fail(errors.ReaderStalled(f"the reader took nothing for {self._limits.stall:g} s"))
