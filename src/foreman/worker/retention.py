"""Retention: deletes jobs that ended long ago, and returns their space to the disk."""

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

#: How often jobs that are old enough are deleted, in seconds.
EVERY = 60.0
#: The pause between two batches, so that others can write, in seconds.
BATCH_PAUSE = 0.05
#: For how long the wall clock must have run steadily before jobs are deleted by it, in seconds.
STEADY = 3600.0
#: A larger change against the monotonic clock between two rounds counts as a step, in seconds.
STEP = 10.0
#: How often the time is stored, and how long foreman may have been stopped so that the steady time before still counts;
#: seconds.
STORE_TIME_EVERY, MAX_AWAY = 600.0, 900.0

#: How long the copy of the store is kept that was made before a change of the schema, in seconds: it has prompts and answers.
COPIES_KEPT = 7 * 86_400.0


@define(eq=False)
class ClockWatch:
    """Measures for how long the wall clock has run steadily: after it was set, a job that ended just now may seem old.

    A sleep of the machine looks the same, since the monotonic clock does not count it. The steady time is stored together
    with the time of day, so that a restart neither hides a step nor begins the measurement again.
    """

    _clock: IReactorTime
    _store: JobStore
    _offset: float | None = field(default=None, init=False)
    _steady_since: float = field(default=0.0, init=False)
    _stored_at: float = field(default=float("-inf"), init=False)
    _log = Logger()

    async def steady(self) -> float:
        """For how long the wall clock has run steadily, in seconds while foreman ran; to be called at intervals.

        :raises StoreUnavailable:
        """
        wall, now = self._store.now() / 1000, self._clock.seconds()
        offset = wall - now
        if self._offset is None:
            self._steady_since = now - await self._steady_before(wall)
        elif abs(offset - self._offset) > STEP:
            self._steady_since, self._stored_at = now, float("-inf")
            self._log.warn(
                "the wall clock was set by {step} s, or the machine slept: no old job is deleted for the next "
                "{steady:g} minutes; foreman jobs prune deletes them at once",
                step=round(offset - self._offset),
                steady=STEADY / 60,
            )
        self._offset = offset
        steady = now - self._steady_since
        if now - self._stored_at >= STORE_TIME_EVERY:
            await self._store.save_clock(round(wall * 1000), round(steady))
            self._stored_at = now
        return steady

    async def note(self) -> None:
        """Store the time, and for how long the wall clock had run steadily at the last round; for the stop of foreman.

        :raises StoreUnavailable:
        """
        wall, now = self._store.now() / 1000, self._clock.seconds()
        if self._offset is not None and abs(wall - now - self._offset) <= STEP:
            await self._store.save_clock(round(wall * 1000), round(now - self._steady_since))

    async def _steady_before(self, wall: float) -> float:
        """For how long it had run steadily when foreman stopped; 0 where that is longer ago than ``MAX_AWAY``."""
        noted = await self._store.load_clock()
        if noted is None:
            return 0.0
        away = wall - noted[0] / 1000
        return float(noted[1]) if -STEP <= away <= MAX_AWAY else 0.0


@define(eq=False)
class Retention:
    """Deletes old jobs at intervals.

    :ivar keep: how long jobs are kept after they have ended, in seconds, by their state; without an entry for good;
    :ivar min_steady: for how long the wall clock must have run steadily before, in seconds, or for as long as jobs are kept.
    """

    _clock: IReactorTime
    _store: JobStore
    _keep: Mapping[State, float]
    _min_steady: float = STEADY
    _clock_watch: ClockWatch = field(init=False)
    _loop: LoopingCall = field(init=False)
    _round: Deferred[None] | None = field(default=None, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._clock_watch = ClockWatch(self._clock, self._store)
        self._loop = LoopingCall(self._begin_round)
        self._loop.clock = self._clock

    def start(self) -> None:
        """Begin a round now, and from now on every ``EVERY`` seconds."""
        self._loop.start(EVERY)

    async def stop(self) -> None:
        """Begin no more rounds; one that is under way ends after its batch."""
        if self._loop.running:
            self._loop.stop()
        if self._round is not None:
            self._round.cancel()
            await self._round
        with suppress(StoreUnavailable):  # then the next start measures from the beginning
            await self._clock_watch.note()

    def _begin_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._run_round())
        self._round.addErrback(self._failed)
        return self._round

    async def _run_round(self) -> None:
        deleted = 0
        steady, now = await self._clock_watch.steady(), self._store.now()
        if steady >= self._min_steady:
            await self._drop_copies(now - round(COPIES_KEPT * 1000))
        for state, seconds in self._keep.items():
            if steady < min(seconds, self._min_steady):
                continue
            before = now - round(seconds * 1000)
            while count := await self._store.prune(state, before):
                deleted += count
                await deferLater(self._clock, BATCH_PAUSE)
        await self._store.purge_deleted()  # on a full disk this frees the space that the next step needs
        try:
            while await self._store.reclaim_space():
                await deferLater(self._clock, BATCH_PAUSE)
        except StoreUnavailable:  # the disk is full, and the log may contain part of a change that did not fit
            await self._store.purge_deleted()
            raise
        await self._store.purge_deleted()
        if deleted:
            self._log.info("{count} jobs that ended long ago are deleted", count=deleted)

    async def _drop_copies(self, before: int) -> None:
        try:
            for path in await self._store.delete_upgrade_copies(before):
                self._log.info("{path}, the copy of the jobs from an older foreman, is deleted", path=path)
        except OSError as problem:  # the rest of the round is not affected
            self._log.warn("an old copy of the jobs cannot be deleted: {problem}", problem=problem)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError, StoreUnavailable):  # the store logs that itself
            self._log.failure("deleting old jobs failed", failure)
