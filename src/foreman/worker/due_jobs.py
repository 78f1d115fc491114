"""Queues scheduled jobs when they are due, and discards jobs whose deadline has passed."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from foreman.jobs.retry_policy import MAX_RETRY_DELAY
from foreman.store.errors import StoreUnavailable
from foreman.store.job_store import JobStore

#: The longest time between two sweeps, in seconds: the wall clock, by which jobs are due, may be set at any time.
MAX_WAIT = 30.0
#: By how much the wall clock may fall behind the monotonic clock before it counts as set back, in seconds.
SET_BACK = 60.0


@define(eq=False)
class DueJobs:
    """Sweeps the store when the next job is due or expires, and at least every ``MAX_WAIT`` seconds."""

    _clock: IReactorTime
    _store: JobStore
    _timer: IDelayedCall | None = field(default=None, init=False)
    _sweeping: Deferred[None] | None = field(default=None, init=False)
    _wall_offset: float = field(default=0.0, init=False)
    _swept_at: float = field(default=0.0, init=False)
    _stopped: bool = field(default=False, init=False)
    _again: bool = field(default=False, init=False)
    _log = Logger()

    def start(self) -> None:
        """Sweep now, and from now on when there is something to do."""
        self._wall_offset, self._swept_at = self._current_offset(), self._clock.seconds()
        self._store.notifications.on_due = self._due
        self.sweep()

    def sweep(self) -> None:
        """Queue what is due, and discard what has expired."""
        if self._stopped:
            return
        if self._sweeping is not None:
            self._again = True
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sweeping = Deferred.fromCoroutine(self._sweep())
        self._sweeping.addErrback(lambda failure: self._log.failure("queueing the jobs that are due failed", failure))
        self._sweeping.addBoth(self._sweep_ended)

    async def stop(self) -> None:
        """Sweep no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sweeping is not None:
            await self._sweeping

    async def _sweep(self) -> None:
        wait = MAX_WAIT
        try:
            await self._check_wall_clock()
            moment = await self._store.sweep()
            self._swept_at = self._clock.seconds()
            if moment is not None:
                wait = min(max(0.0, (moment - self._store.now()) / 1000), MAX_WAIT)
        except StoreUnavailable:
            pass  # the store logs that itself
        finally:
            if not self._stopped:
                self._timer = self._clock.callLater(wait, self._wake)

    async def _check_wall_clock(self) -> None:
        offset = self._current_offset()
        back = (self._wall_offset - offset) / 1000
        if back > SET_BACK:
            # Retries that were due after the last sweep are now at least this far in the future.
            since = self._clock.seconds() - self._swept_at
            await self._store.cap_retry_delays(min(MAX_RETRY_DELAY, max(0.0, back - since - 1.0)))
        self._wall_offset = offset

    def _due(self, moment: int) -> None:
        """A job was stored that is due, or expires, at ``moment``, in milliseconds since the epoch."""
        if self._timer is None:
            self._again = True  # the sweep that is under way may have missed it
            return
        wait = max(0.0, (moment - self._store.now()) / 1000)
        if self._clock.seconds() + wait < self._timer.getTime():
            self._timer.reset(wait)

    def _wake(self) -> None:
        self._timer = None
        self.sweep()

    def _sweep_ended(self, _: object) -> None:
        self._sweeping = None
        if self._again:
            self._again = False
            self.sweep()

    def _current_offset(self) -> float:
        """How far the wall clock is ahead of the monotonic clock, in milliseconds."""
        return self._store.now() - self._clock.seconds() * 1000
