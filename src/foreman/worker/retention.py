"""Keeps the store small: forgets what ended long ago, and gives the room back to the disk."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman.jobs.job import State
from foreman.store.errors import StoreUnavailable
from foreman.store.job_store import JobStore

#: How often it is looked whether something is old enough, in seconds.
EVERY = 60.0
#: Between two batches, so that others get to write, in seconds.
BREATH = 0.05
#: For how long the wall clock must have gone evenly before anything is forgotten by it, in seconds.
CALM = 3600.0
#: By how much it may differ from the monotonic clock from one look to the next, in seconds; more is a step.
STEP = 10.0
#: How often the time is written down, and how long foreman may have been away for the calm before to count, in seconds.
NOTE_EVERY, AWAY = 600.0, 900.0

#: For how long the copy is kept that was made before the schema was changed, in seconds: it holds prompts and answers.
COPIES_KEPT = 7 * 86_400.0


@define(eq=False)
class ClockWatch:
    """Looks whether the wall clock goes evenly: what ended long ago by a clock that was set may have ended just now.

    A machine that slept looks the same, since the monotonic clock does not count sleep. How long the wall clock has gone
    evenly is written down with the time, so that a restart neither hides a step nor begins the wait anew.
    """

    _clock: IReactorTime
    _store: JobStore
    _offset: float | None = field(default=None, init=False)
    _calm_since: float = field(default=0.0, init=False)
    _noted_at: float = field(default=float("-inf"), init=False)
    _log = Logger()

    async def calm(self) -> float:
        """For how long the wall clock has gone evenly, in seconds of running; ask at intervals.

        :raises StoreUnavailable:
        """
        wall, now = self._store.now() / 1000, self._clock.seconds()
        offset = wall - now
        if self._offset is None:
            self._calm_since = now - await self._calm_before(wall)
        elif abs(offset - self._offset) > STEP:
            self._calm_since, self._noted_at = now, float("-inf")
            self._log.warn(
                "the wall clock was set by {step} s, or the machine slept: no job is forgotten by it for the next "
                "{calm:g} minutes; foreman jobs prune does so at once",
                step=round(offset - self._offset),
                calm=CALM / 60,
            )
        self._offset = offset
        calm = now - self._calm_since
        if now - self._noted_at >= NOTE_EVERY:
            await self._store.save_clock(round(wall * 1000), round(calm))
            self._noted_at = now
        return calm

    async def note(self) -> None:
        """Write down the time, and how long the wall clock has gone evenly until the last look; for the end.

        :raises StoreUnavailable:
        """
        wall, now = self._store.now() / 1000, self._clock.seconds()
        if self._offset is not None and abs(wall - now - self._offset) <= STEP:
            await self._store.save_clock(round(wall * 1000), round(now - self._calm_since))

    async def _calm_before(self, wall: float) -> float:
        """How long it had gone evenly when foreman stopped, if it has not been away for longer than AWAY."""
        noted = await self._store.load_clock()
        if noted is None:
            return 0.0
        away = wall - noted[0] / 1000
        return float(noted[1]) if -STEP <= away <= AWAY else 0.0


@define(eq=False)
class Retention:
    """Goes through the store now and then.

    :ivar keep: how long jobs are kept after they have ended so, in seconds; states that are not there are kept for good;
    :ivar patience: for how long the wall clock must have gone evenly before, in seconds, or for as long as jobs are kept.
    """

    _clock: IReactorTime
    _store: JobStore
    _keep: Mapping[State, float]
    _patience: float = CALM
    _watch: ClockWatch = field(init=False)
    _loop: LoopingCall = field(init=False)
    _round: Deferred[None] | None = field(default=None, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._watch = ClockWatch(self._clock, self._store)
        self._loop = LoopingCall(self._go_round)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Go round now, and from now on at intervals."""
        self._loop.start(EVERY)

    async def stop(self) -> None:
        """Go round no more; a round under way is broken off between two batches."""
        if self._loop.running:
            self._loop.stop()
        if self._round is not None:
            self._round.cancel()
            await self._round
        with suppress(StoreUnavailable):  # the next start waits again, then
            await self._watch.note()

    def _go_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._clean())
        self._round.addErrback(self._failed)
        return self._round

    async def _clean(self) -> None:
        forgotten = 0
        calm, now = await self._watch.calm(), self._store.now()
        if calm >= self._patience:
            await self._drop_copies(now - round(COPIES_KEPT * 1000))
        for state, seconds in self._keep.items():
            if calm < min(seconds, self._patience):
                continue
            before = now - round(seconds * 1000)
            while count := await self._store.prune(state, before):
                forgotten += count
                await deferLater(self._clock, BREATH)
        await self._store.purge_deleted()  # on a full disk this makes the room that the next needs
        try:
            while await self._store.reclaim_space():
                await deferLater(self._clock, BREATH)
        except StoreUnavailable:  # the disk is full, and the log may have what is left of a change that did not fit
            await self._store.purge_deleted()
            raise
        await self._store.purge_deleted()
        if forgotten:
            self._log.info("{count} jobs that ended long ago are forgotten", count=forgotten)

    async def _drop_copies(self, before: int) -> None:
        try:
            for path in await self._store.delete_upgrade_copies(before):
                self._log.info("{path}, the jobs as an older foreman left them, is deleted", path=path)
        except OSError as problem:  # whatever else there is to do is done
            self._log.warn("an old copy of the jobs cannot be deleted: {problem}", problem=problem)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError, StoreUnavailable):  # the store has said so itself
            self._log.failure("keeping the store small failed", failure)
