"""Queues reads of the database: how many run and wait at once, whose is next, and how long one may take.

foreman's own reads go first. Those of callers are taken from one caller after the other, so that one caller's many reads
do not delay another's, and one reader is always left to foreman. A read that was cancelled is not run, or is interrupted.
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

from foreman.store.errors import StoreUnavailable, TooManyReads

T = TypeVar("T")

#: How many reads run at once; how many of them for callers, and for one caller.
READERS, MAX_FOR_CALLERS, MAX_FOR_ONE_CALLER = 3, 2, 1
#: How many reads of callers may wait, and how many of one caller; others are refused. Patient reads do not count.
MAX_WAITING, MAX_WAITING_OF_ONE = 256, 32
#: A read that has waited longer than this is refused when its turn comes, in seconds.
MAX_WAIT = 10.0
#: How long one read may take, in seconds: a reader keeps the write-ahead log from being reset.
MAX_DURATION = 5.0
#: After how many instructions of its virtual machine SQLite checks the time.
_PROGRESS_STEPS = 20_000


@define(eq=False)
class Read:
    """One read that waits or runs.

    :ivar caller: for whom, None for foreman itself; :ivar patient: it is never refused, since something else limits how
        many of these there are; :ivar queued_at: seconds of the clock; :ivar is_cancelled: its result is no longer needed.
    """

    function: Callable[..., Any]
    arguments: Sequence[Any]
    caller: str | None
    patient: bool
    queued_at: float
    done: Deferred[Any]
    is_cancelled: bool = False


@define(eq=False)
class ReadQueue:
    """Runs reads in the readers' threads.

    :ivar pool: with at least READERS connections.
    """

    _pool: ConnectionPool
    _clock: IReactorTime
    _own: deque[Read] = field(factory=deque, init=False)
    #: By caller, in the order of their turns.
    _waiting: dict[str, deque[Read]] = field(factory=dict, init=False)
    #: How many of these are not patient, by caller: only they count towards the limits.
    _impatient: Counter[str] = field(factory=Counter, init=False)
    _running: list[Read] = field(factory=list, init=False)
    _refusal: StoreUnavailable | None = field(default=None, init=False)

    def read(
        self,
        function: Callable[..., T],
        arguments: Sequence[Any],
        caller: str | None = None,
        *,
        patient: bool = False,
    ) -> Deferred[T]:
        """Call ``function`` with a cursor and ``arguments`` in one snapshot of the database; the parameters as of ``Read``.

        Cancelling the Deferred removes the read from the queue, or interrupts it.

        :raises TooManyReads: as the Deferred's failure, when the read is refused.
        """
        done: Deferred[T] = Deferred(lambda _: self._cancel(read))
        read = Read(function, arguments, caller, patient, self._clock.seconds(), done)
        if self._refusal is not None:
            done.errback(self._refusal)
        elif caller is None:
            self._own.append(read)
            self._start_waiting()
        elif not patient and self._is_full_for(caller):
            done.errback(TooManyReads())
        else:
            self._waiting.setdefault(caller, deque()).append(read)
            self._count(read, 1)
            self._start_waiting()
        return done

    def close(self, refusal: StoreUnavailable) -> None:
        """Refuse with ``refusal`` all reads that wait and all that come."""
        self._refusal = refusal
        waiting = [*self._own, *(read for reads in self._waiting.values() for read in reads)]
        self._own.clear()
        self._waiting.clear()
        self._impatient.clear()
        for read in waiting:
            if not read.done.called:  # a callback of an earlier one may have cancelled it
                read.done.errback(refusal)

    def _is_full_for(self, caller: str) -> bool:
        return self._impatient[caller] >= MAX_WAITING_OF_ONE or self._impatient.total() >= MAX_WAITING

    def _count(self, read: Read, change: int) -> None:
        """``read`` has begun to wait (1), or waits no more (-1)."""
        if read.caller is not None and not read.patient:
            self._impatient[read.caller] += change
            if not self._impatient[read.caller]:
                del self._impatient[read.caller]

    def _cancel(self, read: Read) -> None:
        read.is_cancelled = True
        if read in self._running:
            return  # its thread checks ``is_cancelled``
        reads = self._own if read.caller is None else self._waiting.get(read.caller)
        if reads is not None and read in reads:
            reads.remove(read)
            self._count(read, -1)
            if read.caller is not None and not reads:
                del self._waiting[read.caller]

    def _start_waiting(self) -> None:
        while len(self._running) < READERS and (read := self._take()) is not None:
            if not read.patient and read.caller is not None and self._clock.seconds() - read.queued_at > MAX_WAIT:
                read.done.errback(TooManyReads())
                continue
            self._running.append(read)
            ended: Deferred[Any] = self._pool.runWithConnection(_run, read, self._clock, MAX_DURATION)
            ended.addBoth(self._ended, read)

    def _take(self) -> Read | None:
        """Remove the next read from the queue; None where none may run now."""
        if self._own:
            return self._own.popleft()
        running = [read.caller for read in self._running if read.caller is not None]
        if len(running) >= MAX_FOR_CALLERS:
            return None
        caller = next((name for name in self._waiting if running.count(name) < MAX_FOR_ONE_CALLER), None)
        if caller is None:
            return None
        reads = self._waiting.pop(caller)
        read = reads.popleft()
        self._count(read, -1)
        if reads:
            self._waiting[caller] = reads  # behind all others
        return read

    def _ended(self, result: Any, read: Read) -> None:
        self._running.remove(read)
        self._start_waiting()
        if read.done.called:  # it was cancelled
            return
        if isinstance(result, Failure):
            read.done.errback(result)
        else:
            read.done.callback(result)


# in a thread of the database


def _run(connection: Any, read: Read, clock: IReactorTime, max_duration: float) -> Any:
    """Run one read in one snapshot; it is interrupted when it takes too long or is cancelled."""
    limit = clock.seconds() + max_duration
    connection.set_progress_handler(lambda: read.is_cancelled or clock.seconds() > limit, _PROGRESS_STEPS)
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    try:
        return read.function(cursor, *read.arguments)
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            cursor.execute("COMMIT")
