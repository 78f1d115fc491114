"""Keeps the store small: forgets what ended long ago, and gives the room back to the disk."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman.job import State
from foreman.store.store import Store
from foreman.store.trouble import StoreUnavailable

#: How often it is looked whether something is old enough, in seconds.
EVERY = 60.0
#: Between two batches, so that others get to write, in seconds.
BREATH = 0.05


@define(eq=False)
class Housekeeping:
    """Goes through the store now and then.

    :ivar keep: how long jobs are kept after they have ended so, in seconds; states that are not there are kept for good.
    """

    _clock: IReactorTime
    _store: Store
    _keep: Mapping[State, float]
    _loop: LoopingCall = field(init=False)
    _round: Deferred[None] | None = field(default=None, init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
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

    def _go_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._clean())
        self._round.addErrback(self._failed)
        return self._round

    async def _clean(self) -> None:
        forgotten = 0
        for state, seconds in self._keep.items():
            before = self._store.now() - round(seconds * 1000)
            while count := await self._store.prune(state, before):
                forgotten += count
                await deferLater(self._clock, BREATH)
        while await self._store.shrink():
            await deferLater(self._clock, BREATH)
        if forgotten:
            self._log.info("{count} jobs that ended long ago are forgotten", count=forgotten)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError, StoreUnavailable):  # the store has said so itself
            self._log.failure("keeping the store small failed", failure)
