"""A load that goes on although its asker has left, because the next in line wants the same model.

Ollama kills a load whose asker leaves (contract 0.7), and the next one would begin it anew.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from foreman.scheduling.gate import Turn
from foreman.scheduling.queue_status import QueueStatus
from foreman.target.connection import TargetResponse
from foreman.target.inventory import Inventory

#: How often it is looked whether the model is there, in seconds.
LOOK = 1.0


@define(eq=False)
class ColdLoad:
    """One request that waits for the head of its answer, perhaps through a load.

    :ivar heard: the head. Cancelling it closes the connection, unless the load is wanted: then the turn is kept for
        nobody until the model is listed as running, the first byte is there, or nobody wants it any more.
    :ivar kept: told when the load goes on for others; :ivar over: told when that has ended; :ivar hopeless: whether the asker
        was taken away since it has taken too long.
    """

    _clock: IReactorTime
    _inventory: Inventory
    _queue_status: QueueStatus
    _turn: Turn
    _asking: Deferred[TargetResponse]
    _kept: Callable[[], None]
    _over: Callable[[], None]
    _hopeless: Callable[[], bool] = lambda: False
    heard: Deferred[TargetResponse] = field(init=False)
    _look: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.heard = Deferred(lambda _: self._leave())
        self._asking.addCallbacks(self._answered, self._failed)

    def _leave(self) -> None:
        if not self._hopeless() and self._queue_status.is_load_wanted(self._turn):
            self._turn.kept = True
            self._kept()
            self._look = self._clock.callLater(LOOK, self._ask_again)
        else:
            self._asking.cancel()

    def _answered(self, answer: TargetResponse) -> None:
        if self._turn.kept:
            answer.abort()
            self._inventory.target_changed()
            self._end()
        else:
            self.heard.callback(answer)

    def _failed(self, reason: Failure) -> None:
        if self._turn.kept:
            self._end()
        else:
            self.heard.errback(reason)

    def _ask_again(self) -> None:
        self._look = None
        self._inventory.refresh().addCallback(self._looked)

    def _looked(self, _: object) -> None:
        if self._turn.ended_at is not None:
            return
        if self._queue_status.is_load_wanted(self._turn):
            self._look = self._clock.callLater(LOOK, self._ask_again)
        else:
            self._asking.cancel()

    def _end(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._turn.release()
        self._over()
