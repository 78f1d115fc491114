"""Looks into the database: how many run and wait at once, whose is next, and how long one may take.

What foreman itself asks goes first. What callers ask is taken from one caller after the other, so that nobody's many looks
keep another's waiting, and one reader is always left to foreman. A look whose caller has left is not run, or is broken off.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from foreman.store.errors import StoreUnavailable, TooManyLooks

T = TypeVar("T")

#: How many looks run at once; how many of them those of callers, and those of one caller.
READERS, OF_CALLERS, OF_ONE_CALLER = 3, 2, 1
#: How many looks of callers may wait, and how many of one caller; beyond, who comes is sent away. Patient looks do not count.
MAX_WAITING, MAX_WAITING_OF_ONE = 256, 32
#: What has waited longer than this is sent away instead of run, in seconds.
LONGEST_WAIT = 10.0
#: How long one look may take, in seconds: a reader keeps the log of changes from beginning anew.
PATIENCE = 5.0
#: How often SQLite looks whether that time is over, in its own instructions.
_STEPS = 20_000


@define(eq=False)
class Read:
    """One look that waits or runs.

    :ivar caller: whose it is, None for foreman's own; :ivar patient: it is never sent away, since others bound how many
        of these there are; :ivar is_gone: nobody wants to know any more.
    """

    work: Callable[..., Any]
    arguments: Sequence[Any]
    caller: str | None
    patient: bool
    asked_at: float
    done: Deferred[Any]
    is_gone: bool = False


@define(eq=False)
class ReadQueue:
    """Runs looks in the readers' threads.

    :ivar pool: with at least READERS connections.
    """

    _pool: ConnectionPool
    _clock: IReactorTime
    _own: deque[Read] = field(factory=deque, init=False)
    #: By caller, in the order in which they have their turn.
    _waiting: dict[str, deque[Read]] = field(factory=dict, init=False)
    #: How many of these may be sent away, by caller: patient ones take no place from them.
    _impatient: Counter[str] = field(factory=Counter, init=False)
    _running: list[Read] = field(factory=list, init=False)
    _refusal: StoreUnavailable | None = field(default=None, init=False)

    def look(
        self,
        work: Callable[..., T],
        arguments: Sequence[Any],
        caller: str | None = None,
        *,
        patient: bool = False,
    ) -> Deferred[T]:
        """Run ``work`` with a cursor and ``arguments`` in one snapshot of the database; the parameters as of ``Read``.

        Cancelling the Deferred forgets the look, or breaks it off.

        :raises TooManyLooks: as the Deferred's failure.
        """
        done: Deferred[T] = Deferred(lambda _: self._leave(look))
        look = Read(work, arguments, caller, patient, self._clock.seconds(), done)
        if self._refusal is not None:
            done.errback(self._refusal)
        elif caller is None:
            self._own.append(look)
            self._next()
        elif not patient and self._is_full_for(caller):
            done.errback(TooManyLooks())
        else:
            self._waiting.setdefault(caller, deque()).append(look)
            self._count(look, 1)
            self._next()
        return done

    def close(self, refusal: StoreUnavailable) -> None:
        """Send away with ``refusal`` who waits and whoever comes."""
        self._refusal = refusal
        left = [*self._own, *(look for reads in self._waiting.values() for look in reads)]
        self._own.clear()
        self._waiting.clear()
        self._impatient.clear()
        for look in left:
            if not look.done.called:  # an earlier one, on hearing it, may have made this one leave
                look.done.errback(refusal)

    def _is_full_for(self, caller: str) -> bool:
        return self._impatient[caller] >= MAX_WAITING_OF_ONE or self._impatient.total() >= MAX_WAITING

    def _count(self, look: Read, change: int) -> None:
        """``look`` has begun to wait (1), or waits no more (-1)."""
        if look.caller is not None and not look.patient:
            self._impatient[look.caller] += change
            if not self._impatient[look.caller]:
                del self._impatient[look.caller]

    def _leave(self, look: Read) -> None:
        look.is_gone = True
        if look in self._running:
            return  # its thread sees it
        reads = self._own if look.caller is None else self._waiting.get(look.caller)
        if reads is not None and look in reads:
            reads.remove(look)
            self._count(look, -1)
            if look.caller is not None and not reads:
                del self._waiting[look.caller]

    def _next(self) -> None:
        while len(self._running) < READERS and (look := self._take()) is not None:
            if not look.patient and look.caller is not None and self._clock.seconds() - look.asked_at > LONGEST_WAIT:
                look.done.errback(TooManyLooks())
                continue
            self._running.append(look)
            ended: Deferred[Any] = self._pool.runWithConnection(_run, look, self._clock, PATIENCE)
            ended.addBoth(self._ended, look)

    def _take(self) -> Read | None:
        """The look that is next; None where none may run now."""
        if self._own:
            return self._own.popleft()
        of_callers = [look.caller for look in self._running if look.caller is not None]
        if len(of_callers) >= OF_CALLERS:
            return None
        caller = next((one for one in self._waiting if of_callers.count(one) < OF_ONE_CALLER), None)
        if caller is None:
            return None
        reads = self._waiting.pop(caller)
        look = reads.popleft()
        self._count(look, -1)
        if reads:
            self._waiting[caller] = reads  # behind all others
        return look

    def _ended(self, outcome: Any, look: Read) -> None:
        self._running.remove(look)
        self._next()
        if look.done.called:  # its caller has left
            return
        if isinstance(outcome, Failure):
            look.done.errback(outcome)
        else:
            look.done.callback(outcome)


# in a thread of the database


def _run(connection: Any, look: Read, clock: IReactorTime, patience: float) -> Any:
    """One look within one snapshot, given up when it takes too long or its caller has left."""
    over = clock.seconds() + patience
    connection.set_progress_handler(lambda: look.is_gone or clock.seconds() > over, _STEPS)
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    try:
        return look.work(cursor, *look.arguments)
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            cursor.execute("COMMIT")
