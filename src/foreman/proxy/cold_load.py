"""A cold load that goes on although its client has left, because another request waits for the same model.

Ollama cancels a load whose client disconnects (contract 0.7), and the next request would begin it again.
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

#: How often it is checked whether the model is loaded, in seconds.
RECHECK = 1.0


@define(eq=False)
class ColdLoad:
    """A request that waits for the head of its answer, while its model may have to be loaded.

    :ivar head: fires with the head. Cancelling it closes the connection, unless other requests wait for the model: then
        the turn is kept until the model is listed as running, the answer begins, or no request waits for it any more.
    :ivar on_kept: called when the turn is kept; :ivar on_over: called when it no longer is; :ivar is_hopeless: whether the
        request was stopped because the target took too long, so that others need not wait for the same load.
    """

    _clock: IReactorTime
    _inventory: Inventory
    _queue_status: QueueStatus
    _turn: Turn
    _sending: Deferred[TargetResponse]
    _on_kept: Callable[[], None]
    _on_over: Callable[[], None]
    _is_hopeless: Callable[[], bool] = lambda: False
    head: Deferred[TargetResponse] = field(init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.head = Deferred(lambda _: self._cancelled())
        self._sending.addCallbacks(self._answered, self._failed)

    def _cancelled(self) -> None:
        if not self._is_hopeless() and self._queue_status.is_load_wanted(self._turn):
            self._turn.kept = True
            self._on_kept()
            self._timer = self._clock.callLater(RECHECK, self._recheck)
        else:
            self._sending.cancel()

    def _answered(self, answer: TargetResponse) -> None:
        if self._turn.kept:
            answer.abort()
            self._inventory.target_changed()
            self._end()
        else:
            self.head.callback(answer)

    def _failed(self, reason: Failure) -> None:
        if self._turn.kept:
            self._end()
        else:
            self.head.errback(reason)

    def _recheck(self) -> None:
        self._timer = None
        self._inventory.refresh().addCallback(self._rechecked)

    def _rechecked(self, _: object) -> None:
        if self._turn.ended_at is not None:
            return
        if self._queue_status.is_load_wanted(self._turn):
            self._timer = self._clock.callLater(RECHECK, self._recheck)
        else:
            self._sending.cancel()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._turn.release()
        self._on_over()
