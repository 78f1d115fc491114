"""Let requests through to the target one at a time, in a good order."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from foreman import errors
from foreman.scheduling.policy import Ticket, next_up
from foreman.util import clock
from foreman.util.byte_budget import is_fair
from foreman.util.clock import Monotonic


@define(eq=False)
class Turn:
    """The right to run one inference at the target, until it is released.

    :ivar ticket: whose turn it is; :ivar began_at: when it was granted;
    :ivar answering: the target has begun to answer; :ivar ended_at: when it was released;
    :ivar kept: its asker has left, but the model that it loads is wanted; :ivar cold: its model was not loaded when it
        began.
    """

    ticket: Ticket
    began_at: Monotonic
    _gate: Gate
    answering: bool = False
    ended_at: Monotonic | None = None
    kept: bool = False
    cold: bool = False

    def release(self) -> None:
        """Pass the turn on; a second call does nothing."""
        if self.ended_at is None:
            self.ended_at = self._gate.now()
            self._gate._pass_on(self)  # noqa: SLF001 - the two are one thing


@define(eq=False)
class Gate:
    """Turns at the target, and the room where their takers wait.

    The lock says how many may run; the room, not the lock's own queue, says who is next, so that leaving it costs
    nothing. A turn is always handed over in a fresh reactor turn: a DeferredLock runs the next holder inside
    ``release`` and overflows the stack at about 110 quick holders (Twisted #9304).

    :ivar turns: how many may run at once; :ivar max_queue: how many may wait;
    :ivar held: who waits for something else before it enters, in order; they count among those that wait here.
    """

    _clock: IReactorTime
    turns: int
    max_queue: int
    held: dict[Ticket, None] = field(factory=dict, init=False)
    _lock: DeferredLock | DeferredSemaphore = field(init=False)
    _room: dict[Ticket, Deferred[Turn]] = field(factory=dict, init=False)
    _jobs: dict[Ticket, Deferred[Turn]] = field(factory=dict, init=False)
    _since_job: int = field(default=0, init=False)
    _running: dict[Turn, None] = field(factory=dict, init=False)
    _handing_over: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._lock = DeferredLock() if self.turns == 1 else DeferredSemaphore(self.turns)

    @property
    def has_free_turn(self) -> bool:
        """Whether one more may run now."""
        return len(self._running) < self.turns

    @property
    def waiting(self) -> list[Ticket]:
        """The people who wait, in the order of arrival; behind them those who are held before they enter."""
        return [*self._room, *self.held]

    @property
    def waiting_jobs(self) -> list[Ticket]:
        """The jobs that wait; those behind them are still in the store."""
        return list(self._jobs)

    @property
    def running(self) -> list[Turn]:
        """Who has a turn, oldest first."""
        return list(self._running)

    def enter(self, ticket: Ticket) -> Deferred[Turn]:
        """Wait for a turn. Cancelling leaves the room at once. Who was held before has a place already.

        :raises errors.QueueFull: as the Deferred's failure, when nobody may wait any more, or the caller has its share of the
            places (``budget.is_fair``); jobs are not counted.
        :raises errors.Draining: likewise, once the gate is closed.
        """
        turn: Deferred[Turn] = Deferred(lambda _: self._leave(ticket))
        had_place = self.held.pop(ticket, self) is None
        if self._closed:
            turn.errback(errors.Draining("foreman is stopping; try again soon"))
        elif not (ticket.is_job or had_place or self.has_free_turn or self.has_place_for(ticket.caller)):
            turn.errback(errors.QueueFull("server busy, please try again.  maximum pending requests exceeded"))
        else:
            (self._jobs if ticket.is_job else self._room)[ticket] = turn
            if not self._handing_over:
                self._hand_over()
        return turn

    def has_place_for(self, caller: str) -> bool:
        """Whether one more request of ``caller`` may wait."""
        waiting = len(self._room) + len(self.held)
        free = self.max_queue - waiting
        if is_fair(waiting, free, self.max_queue):  # whoever they are
            return True
        return is_fair(sum(ticket.caller == caller for ticket in self.waiting), free, self.max_queue)

    def now(self) -> Monotonic:
        """The time of the gate's clock."""
        return clock.now(self._clock)

    def close(self) -> None:
        """Take nobody more, and send away who waits; running turns go on."""
        self._closed = True
        room, self._room, self._jobs = self._room | self._jobs, {}, {}
        for turn in room.values():
            if not turn.called:  # an earlier one, on hearing it, may have made this one leave
                turn.errback(errors.Draining("foreman is stopping; try again soon"))

    def _leave(self, ticket: Ticket) -> None:
        self._room.pop(ticket, None)
        self._jobs.pop(ticket, None)

    def _pass_on(self, turn: Turn) -> None:
        del self._running[turn]
        self._lock.release()
        if (self._room or self._jobs) and not self._handing_over:
            self._handing_over = True
            self._clock.callLater(0, self._hand_over)

    def _hand_over(self) -> None:
        self._handing_over = False
        while (self._room or self._jobs) and self.has_free_turn and not self._handing_over:
            now = self.now()
            ticket = next_up(self._room, self._jobs, now, self._since_job)
            self._since_job = 0 if ticket.is_job else self._since_job + 1
            entered = (self._jobs if ticket.is_job else self._room).pop(ticket)
            turn = Turn(ticket, now, self)
            self._running[turn] = None
            self._lock.acquire()  # free, since fewer run than may
            entered.callback(turn)
