"""Many who ask at once share one look into the database, as many who write share one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")

#: How many share a look at the most, so that the first need not wait for long.
MOST = 256


@define(eq=False)
class BatchedReads(Generic[T]):
    """While a look is under way, whoever comes waits for the next, which begins after all that it is for have asked.

    :ivar look: what there is of so many ids, in their order.
    """

    _look: Callable[[Sequence[str]], Deferred[list[T]]]
    _waiting: list[tuple[str, Deferred[T]]] = field(factory=list, init=False)
    _is_looking: bool = field(default=False, init=False)

    def get(self, id_: str) -> Deferred[T]:
        """What there is of ``id_`` now or a little later. Cancelling it leaves the look to the others."""
        found: Deferred[T] = Deferred(lambda _: None)
        self._waiting.append((id_, found))
        if not self._is_looking:
            self._begin()
        return found

    def _begin(self) -> None:
        waiting = [one for one in self._waiting if not one[1].called]  # the others have left
        wanted, self._waiting = waiting[:MOST], waiting[MOST:]
        if not wanted:
            return
        self._is_looking = True
        ids = list(dict.fromkeys(id_ for id_, _ in wanted))
        self._look(ids).addBoth(self._tell, ids, wanted)

    def _tell(
        self,
        outcome: list[T] | Failure,
        ids: Sequence[str],
        wanted: Sequence[tuple[str, Deferred[T]]],
    ) -> None:
        self._is_looking = False
        if self._waiting:  # before anybody is told: who asks on hearing it comes after them
            self._begin()
        jobs = {} if isinstance(outcome, Failure) else dict(zip(ids, outcome, strict=True))
        for id_, found in wanted:
            if found.called:  # whoever asked has left
                continue
            if isinstance(outcome, Failure):
                found.errback(outcome)
            else:
                found.callback(jobs[id_])
