"""Limits on how many requests that take no turn may be at the target at once, in all and for each caller."""

from __future__ import annotations

from collections import Counter
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from foreman import errors
from foreman.protocol.endpoints import Lane
from foreman.protocol.request_body import Intent
from foreman.proxy.request import TargetRequest
from foreman.scheduling.queue_status import QueuePosition
from foreman.util.deadline import Deadline

#: Requests that transfer a model, which takes minutes to hours.
_TRANSFERS = ("/api/pull", "/api/push", "/api/create")
_BLOBS = "/api/blobs/"


@define(eq=False)
class Permit:
    """A place at the target, until it is released."""

    caller: str
    _limit: ConcurrencyLimit
    _released: bool = field(default=False, init=False)

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        if not self._released:
            self._released = True
            self._limit._leave(self.caller)  # noqa: SLF001 - the two belong together


@define(eq=False)
class ConcurrencyLimit:
    """Gives out permits, up to a number.

    :ivar permits: how many there are; :ivar per_caller: how many of them one caller may have; :ivar max_waiting: how many
        requests may wait, and half as many of one caller; :ivar max_wait: how long one waits at most, in seconds.
    """

    _clock: IReactorTime
    permits: int
    per_caller: int
    max_waiting: int
    max_wait: float
    _used_by: Counter[str] = field(factory=Counter, init=False)
    _waiting: dict[Deferred[Permit], tuple[str, Deadline]] = field(factory=dict, init=False)
    _waiting_of: Counter[str] = field(factory=Counter, init=False)
    _scheduled: IDelayedCall | None = field(default=None, init=False)

    @property
    def in_use(self) -> int:
        """How many permits are given out."""
        return self._used_by.total()

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return len(self._waiting)

    def enter(self, caller: str) -> Deferred[Permit]:
        """Wait for a permit; cancelling ends the wait.

        :raises errors.QueueFull: as the Deferred's failure, when too many wait, or when it has waited for too long.
        """
        entered: Deferred[Permit] = Deferred(self._remove)
        if self._has_permit(caller) and self._scheduled is None:
            entered.callback(self._take(caller))
        elif len(self._waiting) >= self.max_waiting or self._waiting_of[caller] >= max(1, self.max_waiting // 2):
            entered.errback(_too_many())
        else:
            limit = Deadline(self._clock)
            limit.set(self.max_wait, partial(self._give_up, entered))
            self._waiting[entered] = (caller, limit)
            self._waiting_of[caller] += 1
        return entered

    def position_of(self, entered: Deferred[Permit]) -> QueuePosition:
        """The place in the queue of the request to which ``enter`` returned ``entered``; its wait cannot be estimated."""
        if entered not in self._waiting:
            return QueuePosition(0, None)
        return QueuePosition(1 + list(self._waiting).index(entered), None)

    def _has_permit(self, caller: str) -> bool:
        return self.in_use < self.permits and self._used_by[caller] < self.per_caller

    def _take(self, caller: str) -> Permit:
        self._used_by[caller] += 1
        return Permit(caller, self)

    def _leave(self, caller: str) -> None:
        _count_down(self._used_by, caller)
        if self._waiting and self._scheduled is None:
            # In a later turn of the reactor: a chain of quick requests would overflow the stack.
            self._scheduled = self._clock.callLater(0, self._grant)

    def _grant(self) -> None:
        self._scheduled = None
        for entered, (caller, _) in list(self._waiting.items()):
            if self.in_use >= self.permits:
                break
            if entered in self._waiting and self._used_by[caller] < self.per_caller:
                self._remove(entered)
                entered.callback(self._take(caller))

    def _remove(self, entered: Deferred[Permit]) -> None:
        caller, limit = self._waiting.pop(entered)
        _count_down(self._waiting_of, caller)
        limit.clear()

    def _give_up(self, entered: Deferred[Permit]) -> None:
        self._remove(entered)
        entered.errback(_too_many())


def _count_down(counter: Counter[str], caller: str) -> None:
    counter[caller] -= 1
    if not counter[caller]:
        del counter[caller]


def _too_many() -> errors.QueueFull:
    return errors.QueueFull("too many requests are at the target already; try again soon")


@define(eq=False)
class ConcurrencyLimits:
    """The limits for all requests that take no turn. Long ones have limits of their own, so that they do not delay others.

    :ivar quick: lists, details of models, and unknown routes; :ivar transfers: transfers of models; :ivar cloud: inference
        by cloud models.
    """

    _clock: IReactorTime
    quick: ConcurrencyLimit = field(init=False)
    transfers: ConcurrencyLimit = field(init=False)
    cloud: ConcurrencyLimit = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.quick = ConcurrencyLimit(self._clock, permits=64, per_caller=32, max_waiting=512, max_wait=30.0)
        self.transfers = ConcurrencyLimit(self._clock, permits=32, per_caller=16, max_waiting=128, max_wait=600.0)
        self.cloud = ConcurrencyLimit(self._clock, permits=64, per_caller=32, max_waiting=512, max_wait=600.0)

    def of(self, target_request: TargetRequest) -> ConcurrencyLimit:
        """The limit for a request that takes no turn."""
        path, body = target_request.route.path, target_request.parsed_body
        if path in _TRANSFERS or (path.startswith(_BLOBS) and target_request.method == b"POST"):
            return self.transfers
        if (
            target_request.route.lane is Lane.GATE
            and body is not None
            and body.model
            and body.intent is not Intent.UNLOAD
        ):
            return self.cloud
        return self.quick
