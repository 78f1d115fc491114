"""The gate: grants turns at the target, one at a time by default, in the order of the policy."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from foreman import errors
from foreman.scheduling.policy import Ticket, next_ticket
from foreman.util import clock
from foreman.util.byte_budget import is_fair
from foreman.util.clock import Monotonic


@define(eq=False)
class Turn:
    """The right to run one inference at the target, until it is released.

    :ivar ticket: whose turn it is; :ivar began_at: when it was granted;
    :ivar answering: the target has begun to answer; :ivar ended_at: when it was released;
    :ivar kept: its client has left, but other requests wait for the model that it loads; :ivar cold: its model was not
        loaded when it began.
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
            self._gate._pass_on(self)  # noqa: SLF001 - the two belong together


@define(eq=False)
class Gate:
    """Grants turns at the target, and keeps the queue of the tickets that wait for one.

    The lock limits how many turns there are at once; which ticket is next is decided here and not by the lock's own queue,
    so that leaving the queue is cheap. The next turn is always granted in a later turn of the reactor: a DeferredLock runs its next
    holder inside ``release``, and overflows the stack at about 110 quick holders (Twisted #9304).

    :ivar turns: how many there may be at once; :ivar max_queue: how many requests may wait;
    :ivar held: requests that are held back before they enter, in order; they count as waiting.
    """

    _clock: IReactorTime
    turns: int
    max_queue: int
    held: dict[Ticket, None] = field(factory=dict, init=False)
    _lock: DeferredLock | DeferredSemaphore = field(init=False)
    _requests: dict[Ticket, Deferred[Turn]] = field(factory=dict, init=False)
    _jobs: dict[Ticket, Deferred[Turn]] = field(factory=dict, init=False)
    _requests_since_job: int = field(default=0, init=False)
    _running: dict[Turn, None] = field(factory=dict, init=False)
    _grant_scheduled: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._lock = DeferredLock() if self.turns == 1 else DeferredSemaphore(self.turns)

    @property
    def has_free_turn(self) -> bool:
        """Whether one more turn could be granted now."""
        return len(self._running) < self.turns

    @property
    def waiting(self) -> list[Ticket]:
        """The requests that wait, in the order of arrival; after them those that are held back before they enter."""
        return [*self._requests, *self.held]

    @property
    def waiting_jobs(self) -> list[Ticket]:
        """The jobs that wait here; all others are still in the store."""
        return list(self._jobs)

    @property
    def running(self) -> list[Turn]:
        """The turns that were granted and not released, oldest first."""
        return list(self._running)

    def enter(self, ticket: Ticket) -> Deferred[Turn]:
        """Wait for a turn; cancelling leaves the queue at once. A ticket that was held back has its place already.

        :raises errors.QueueFull: as the Deferred's failure, when the queue is full, or the caller has its share of it
            (``byte_budget.is_fair``); jobs are not counted.
        :raises errors.Draining: likewise, once the gate is closed.
        """
        turn: Deferred[Turn] = Deferred(lambda _: self._leave(ticket))
        had_place = self.held.pop(ticket, self) is None
        if self._closed:
            turn.errback(errors.Draining("foreman is stopping; try again soon"))
        elif not (ticket.is_job or had_place or self.has_free_turn or self.has_place_for(ticket.caller)):
            turn.errback(errors.QueueFull("server busy, please try again.  maximum pending requests exceeded"))
        else:
            (self._jobs if ticket.is_job else self._requests)[ticket] = turn
            if not self._grant_scheduled:
                self._grant()
        return turn

    def has_place_for(self, caller: str) -> bool:
        """Whether the queue has a place for one more request of ``caller``."""
        waiting = len(self._requests) + len(self.held)
        free = self.max_queue - waiting
        if is_fair(waiting, free, self.max_queue):  # for every caller
            return True
        return is_fair(sum(ticket.caller == caller for ticket in self.waiting), free, self.max_queue)

    def now(self) -> Monotonic:
        """The time of the gate's clock."""
        return clock.now(self._clock)

    def close(self) -> None:
        """Refuse new tickets, and those that wait; granted turns go on."""
        self._closed = True
        waiting, self._requests, self._jobs = self._requests | self._jobs, {}, {}
        for turn in waiting.values():
            if not turn.called:  # the errback of an earlier one may have cancelled it
                turn.errback(errors.Draining("foreman is stopping; try again soon"))

    def _leave(self, ticket: Ticket) -> None:
        self._requests.pop(ticket, None)
        self._jobs.pop(ticket, None)

    def _pass_on(self, turn: Turn) -> None:
        del self._running[turn]
        self._lock.release()
        if (self._requests or self._jobs) and not self._grant_scheduled:
            self._grant_scheduled = True
            self._clock.callLater(0, self._grant)

    def _grant(self) -> None:
        self._grant_scheduled = False
        while (self._requests or self._jobs) and self.has_free_turn and not self._grant_scheduled:
            now = self.now()
            ticket = next_ticket(self._requests, self._jobs, now, self._requests_since_job)
            self._requests_since_job = 0 if ticket.is_job else self._requests_since_job + 1
            granted = (self._jobs if ticket.is_job else self._requests).pop(ticket)
            turn = Turn(ticket, now, self)
            self._running[turn] = None
            self._lock.acquire()  # it is free, since fewer turns are granted than may be
            granted.callback(turn)
