"""What happens to jobs by the clock: what is due is queued, and what has expired is discarded."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from foreman.jobs.retry_policy import MAX_RETRY_DELAY
from foreman.store.errors import StoreUnavailable
from foreman.store.job_store import JobStore

#: How often it is looked at least, in seconds: the wall clock, by which jobs are due, may have been set.
AT_LEAST = 30.0
#: How far the wall clock may go back against the other before it counts as set back, in seconds.
SET_BACK = 60.0


@define(eq=False)
class DueJobs:
    """Wakes for the next job that is due or expires, and now and then in any case."""

    _clock: IReactorTime
    _store: JobStore
    _timer: IDelayedCall | None = field(default=None, init=False)
    _sweeping: Deferred[None] | None = field(default=None, init=False)
    _offset: float = field(default=0.0, init=False)
    _looked_at: float = field(default=0.0, init=False)
    _stopped: bool = field(default=False, init=False)
    _again: bool = field(default=False, init=False)
    _log = Logger()

    def start(self) -> None:
        """Look now, and from now on when there is something to do."""
        self._offset, self._looked_at = self._wall_against_clock(), self._clock.seconds()
        self._store.notifications.on_due = self._due
        self.look()

    def look(self) -> None:
        """See what is due."""
        if self._stopped:
            return
        if self._sweeping is not None:
            self._again = True
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sweeping = Deferred.fromCoroutine(self._sweep())
        self._sweeping.addErrback(lambda failure: self._log.failure("looking for what is due failed", failure))
        self._sweeping.addBoth(self._swept)

    async def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sweeping is not None:
            await self._sweeping

    async def _sweep(self) -> None:
        wait = AT_LEAST
        try:
            await self._mind_the_clock()
            moment = await self._store.sweep()
            self._looked_at = self._clock.seconds()
            if moment is not None:
                wait = min(max(0.0, (moment - self._store.now()) / 1000), AT_LEAST)
        except StoreUnavailable:
            pass  # the store has said so
        finally:
            if not self._stopped:
                self._timer = self._clock.callLater(wait, self._wake)

    async def _mind_the_clock(self) -> None:
        offset = self._wall_against_clock()
        back = (self._offset - offset) / 1000
        if back > SET_BACK:
            # What was to be tried again after the last look is now at least so far away.
            since = self._clock.seconds() - self._looked_at
            await self._store.cap_retry_delays(min(MAX_RETRY_DELAY, max(0.0, back - since - 1.0)))
        self._offset = offset

    def _due(self, moment: int) -> None:
        """A job was written that is due, or expires, at ``moment``."""
        if self._timer is None:
            self._again = True  # the look that is under way may not have seen it
            return
        wait = max(0.0, (moment - self._store.now()) / 1000)
        if self._clock.seconds() + wait < self._timer.getTime():
            self._timer.reset(wait)

    def _wake(self) -> None:
        self._timer = None
        self.look()

    def _swept(self, _: object) -> None:
        self._sweeping = None
        if self._again:
            self._again = False
            self.look()

    def _wall_against_clock(self) -> float:
        """How far the wall clock is ahead of the clock that is never set, in milliseconds."""
        return self._store.now() - self._clock.seconds() * 1000
