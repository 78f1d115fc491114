"""How many requests that take no turn may be at the target at once, in all and for each caller."""

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

#: Requests that move a model, which takes minutes to hours.
_TRANSFERS = ("/api/pull", "/api/push", "/api/create")
_BLOBS = "/api/blobs/"


@define(eq=False)
class Permit:
    """A place at the target, until it is released."""

    caller: str
    _passage: ConcurrencyLimit
    _released: bool = field(default=False, init=False)

    def release(self) -> None:
        """Give the place back; a second call does nothing."""
        if not self._released:
            self._released = True
            self._passage._leave(self.caller)  # noqa: SLF001 - the two are one thing


@define(eq=False)
class ConcurrencyLimit:
    """Lets requests through to the target, up to a number.

    :ivar places: how many may be there at once; :ivar share: how many of one caller; :ivar room: how many may wait, and of
        one caller half as many; :ivar patience: for how long one waits at most, in seconds.
    """

    _clock: IReactorTime
    places: int
    share: int
    room: int
    patience: float
    _inside: Counter[str] = field(factory=Counter, init=False)
    _waiting: dict[Deferred[Permit], tuple[str, Deadline]] = field(factory=dict, init=False)
    _waiting_of: Counter[str] = field(factory=Counter, init=False)
    _calls: IDelayedCall | None = field(default=None, init=False)

    @property
    def inside(self) -> int:
        """How many are at the target now."""
        return self._inside.total()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self, caller: str) -> Deferred[Permit]:
        """Wait for a place. Cancelling ends the waiting.

        :raises errors.QueueFull: as the Deferred's failure, when too many wait, or when it has waited for too long.
        """
        entered: Deferred[Permit] = Deferred(self._forget)
        if self._has_place(caller) and self._calls is None:
            entered.callback(self._take(caller))
        elif len(self._waiting) >= self.room or self._waiting_of[caller] >= max(1, self.room // 2):
            entered.errback(_crowded())
        else:
            limit = Deadline(self._clock)
            limit.set(self.patience, partial(self._give_up, entered))
            self._waiting[entered] = (caller, limit)
            self._waiting_of[caller] += 1
        return entered

    def position_of(self, entered: Deferred[Permit]) -> QueuePosition:
        """Where the one stands to whom ``enter`` gave ``entered``; nobody can say how long it will wait."""
        if entered not in self._waiting:
            return QueuePosition(0, None)
        return QueuePosition(1 + list(self._waiting).index(entered), None)

    def _has_place(self, caller: str) -> bool:
        return self.inside < self.places and self._inside[caller] < self.share

    def _take(self, caller: str) -> Permit:
        self._inside[caller] += 1
        return Permit(caller, self)

    def _leave(self, caller: str) -> None:
        _count_down(self._inside, caller)
        if self._waiting and self._calls is None:
            # In a fresh turn of the reactor: a chain of quick ones would overflow the stack.
            self._calls = self._clock.callLater(0, self._call)

    def _call(self) -> None:
        self._calls = None
        for entered, (caller, _) in list(self._waiting.items()):
            if self.inside >= self.places:
                break
            if entered in self._waiting and self._inside[caller] < self.share:
                self._forget(entered)
                entered.callback(self._take(caller))

    def _forget(self, entered: Deferred[Permit]) -> None:
        caller, limit = self._waiting.pop(entered)
        _count_down(self._waiting_of, caller)
        limit.clear()

    def _give_up(self, entered: Deferred[Permit]) -> None:
        self._forget(entered)
        entered.errback(_crowded())


def _count_down(counter: Counter[str], caller: str) -> None:
    counter[caller] -= 1
    if not counter[caller]:
        del counter[caller]


def _crowded() -> errors.QueueFull:
    return errors.QueueFull("too many requests are at the target already; try again soon")


@define(eq=False)
class ConcurrencyLimits:
    """The passages of all requests that take no turn. What is long has one of its own, so that what is quick passes it.

    :ivar quick: lists, details of models, and whatever is not known; :ivar transfers: models on their way to and from the
        target; :ivar cloud: answers of models elsewhere.
    """

    _clock: IReactorTime
    quick: ConcurrencyLimit = field(init=False)
    transfers: ConcurrencyLimit = field(init=False)
    cloud: ConcurrencyLimit = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.quick = ConcurrencyLimit(self._clock, places=64, share=32, room=512, patience=30.0)
        self.transfers = ConcurrencyLimit(self._clock, places=32, share=16, room=128, patience=600.0)
        self.cloud = ConcurrencyLimit(self._clock, places=64, share=32, room=512, patience=600.0)

    def of(self, target_request: TargetRequest) -> ConcurrencyLimit:
        """The one of a request that takes no turn."""
        path, asked = target_request.route.path, target_request.asked
        if path in _TRANSFERS or (path.startswith(_BLOBS) and target_request.method == b"POST"):
            return self.transfers
        if (
            target_request.route.lane is Lane.GATE
            and asked is not None
            and asked.model
            and asked.intent is not Intent.UNLOAD
        ):
            return self.cloud
        return self.quick
