"""One answer on its way from the target to its reader, at the pace of neither.

The target is read at full speed into a bounded buffer, so that a slow reader keeps no turn; pieces leave as they came,
one write for each NDJSON line. Limits are on silence (the target says nothing) and on stalling (the reader takes
nothing), never on the duration of an answer.
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
from foreman.protocol.framing import Framer
from foreman.protocol.usage import AnswerEnd
from foreman.proxy.access_record import Outcome, outcome_of
from foreman.target.connection import TargetResponse
from foreman.util.byte_budget import ByteBudget
from foreman.util.clock import Monotonic
from foreman.util.deadline import Deadline

#: An unstreamed answer up to this many bytes is kept until its end, to know whether it is one whole JSON value.
KEPT_WHOLE = 1024 * 1024


class Reader(Face):
    """Who an answer is for: an HTTP client, or the store."""

    def write(self, piece: bytes) -> None:
        """Take the next piece; the relay may be asked to pause meanwhile."""

    def finish(self) -> None:
        """The answer is whole and everything of it was written."""

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer cannot be finished; make that plain. ``between_pieces``: no piece is half written."""

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Tell ``producer`` when to pause and to resume; None: nobody any more."""


@frozen
class Limits:
    """What one relay may hold and how long it waits; bytes and seconds."""

    buffer: int
    silence: float
    stall: float


@define(eq=False)
class LastPieces:
    """What is kept of an answer to tell, at its end, whether and how it ended.

    :ivar most: of a stream, how many of the last pieces; 0: all of an unstreamed answer, while it is small.
    :ivar lost: the answer, or the last line of a stream, was too large to keep.
    """

    most: int
    lost: bool = False
    _pieces: deque[bytes] = field(init=False)
    _bytes: int = 0

    def __attrs_post_init__(self) -> None:
        self._pieces = deque(maxlen=self.most or None)

    def add(self, piece: bytes) -> None:
        """The next piece of the answer."""
        if self.most:
            self.lost = False
            if not (piece.isspace() or (piece[:1] == b":" and b"\ndata" not in piece)):
                self._pieces.append(piece)  # blank lines and comments may follow the end marker
        elif not self.lost:
            self._pieces.append(piece)
            self._bytes += len(piece)
            if self._bytes > KEPT_WHOLE:
                self.lost = True
                self._pieces.clear()

    def joined(self) -> bytes:
        """The kept pieces in one."""
        return b"".join(self._pieces)


@implementer(IPushProducer)
@define(eq=False)
class Relay(Protocol):
    """The protocol that takes the body of one answer.

    :ivar answered: fires when the target has finished, well or badly: the turn may pass on.
    :ivar sent: fires with the Outcome when the reader has been given everything. Cancelling either stops the target
        and forgets the reader.
    :ivar marked: the answer is a stream that is whole only with its end marker.
    """

    _clock: IReactorTime
    _answer: TargetResponse
    _reader: Reader
    _cutter: Framer
    _judge: Callable[[bytes], AnswerEnd]
    _limits: Limits
    _shared: ByteBudget
    _last: LastPieces
    _marked: bool = False
    answered: Deferred[None] = field(init=False)
    sent: Deferred[Outcome] = field(init=False)
    first_byte_at: Monotonic | None = field(default=None, init=False)
    tally: AnswerEnd | None = field(default=None, init=False)
    problem: errors.ForemanError | None = field(default=None, init=False)
    _held: deque[bytes] = field(factory=deque, init=False)
    _held_bytes: int = field(default=0, init=False)
    _reader_paused: bool = field(default=False, init=False)
    _target_paused: bool = field(default=False, init=False)
    _in_parts: bool = field(default=False, init=False)
    _over: bool = field(default=False, init=False)
    _end: Failure | None = field(default=None, init=False)
    _silence: Deadline = field(init=False)
    _stall: Deadline = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.answered = Deferred(lambda _: self.leave())
        self.sent = Deferred(lambda _: self.leave())
        self._silence, self._stall = Deadline(self._clock), Deadline(self._clock)

    def connectionMade(self) -> None:
        self._silence.set(self._limits.silence, self._silent)
        self._reader.set_producer(self)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._silence.started_at = now = self._clock.seconds()
        if self.first_byte_at is None:
            self.first_byte_at = Monotonic(now)
        cutter = self._cutter
        was_whole = cutter.whole
        for piece in cutter.feed(data):
            self._pass_on(piece)
        if not was_whole:  # what has come is the rest of a longer line
            self._in_parts = True
            self._last.lost |= self._marked

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._over:
            return
        self._end = reason
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
        held = self._held
        while held and not self._reader_paused:
            piece = held.popleft()
            self._held_bytes -= len(piece)
            self._shared.give(len(piece))
            self._reader.write(piece)
        if self._target_paused and self._held_bytes <= self._limits.buffer // 2:
            self._target_paused = False
            self._silence.set(self._limits.silence, self._silent)
            self._target().resumeProducing()
        self._settle()

    def stopProducing(self) -> None:
        self.leave()

    def leave(self) -> None:
        """The reader is gone: stop the target, forget what was kept."""
        if not self._over:
            self._end_here()
            self._answer.abort()

    def give_up(self, problem: errors.ForemanError) -> None:
        """End the answer visibly broken, because of ``problem``."""
        if not self._over:
            self.problem = problem
            self._break_off(problem)

    def _pass_on(self, piece: bytes) -> None:
        self._last.add(piece)
        if self._reader_paused or self._held:
            self._hold(piece)
        else:
            self._reader.write(piece)

    def _pass_on_rest(self, reason: Failure) -> None:
        """Pass on what stands behind the last line end, unless it may be half a piece."""
        kept = bool(reason.check(ResponseDone)) and not (self._marked and self._cutter.whole)
        rest = self._cutter.rest()
        if rest and (kept or self._judge(rest).done or self._judge(self._last.joined()).done):
            self._pass_on(rest)

    def _hold(self, piece: bytes) -> None:
        self._held.append(piece)
        self._held_bytes += len(piece)
        fits = self._shared.take(len(piece))
        if (self._held_bytes > self._limits.buffer or not fits) and not self._target_paused and self._end is None:
            self._target_paused = True
            self._silence.clear()
            self._target().pauseProducing()
        if self._target_paused:
            self._watch_reader()

    def _settle(self) -> None:
        """Do what the end of the target's answer, or the progress of the reader, has made possible."""
        if self._over:
            return
        if self._held:
            if self._target_paused or self._end is not None:
                self._watch_reader()
        elif self._end is not None:
            self._conclude(self._end)

    def _conclude(self, end: Failure) -> None:
        self.tally = tally = self._judge(self._last.joined())
        if self.problem is None and end.check(PotentialDataLoss) and not tally.done:
            self.problem = errors.ConnectionError("reset", "the target broke off before the end of its answer")
        elif self.problem is None and self._marked and not (tally.done or self._last.lost):
            self.problem = errors.ConnectionError("reset", "the target's answer ended without its end marker")
        if self.problem is not None:
            self._break_off(self.problem)
            return
        self._end_here()
        self._reader.finish()
        if tally.error:
            self.sent.callback("target failed")
        else:
            self.sent.callback("complete" if tally.done or self._last.lost else "incomplete")

    def _break_off(self, problem: errors.ForemanError) -> None:
        between = self._cutter.whole and not (self._held and self._in_parts)
        self._end_here()
        self._answer.abort()
        self._reader.break_off(problem, between_pieces=between)
        if not self.answered.called:
            self.answered.callback(None)
        self.sent.callback(outcome_of(problem))

    def _target(self) -> IPushProducer:
        return cast("IPushProducer", self.transport)

    def _end_here(self) -> None:
        self._over = True
        self._silence.clear()
        self._stall.clear()
        self._reader.set_producer(None)
        self._shared.give(self._held_bytes)
        self._held.clear()
        self._held_bytes = 0

    # time

    def _silent(self) -> None:
        self.give_up(errors.ConnectionError("silence", f"the target said nothing for {self._limits.silence:g} s"))

    def _watch_reader(self) -> None:
        if not self._stall.is_set:
            self._stall.set(self._limits.stall, self._stalled)

    def _stalled(self) -> None:
        self.give_up(errors.ReaderStalled(f"the reader took nothing for {self._limits.stall:g} s"))
