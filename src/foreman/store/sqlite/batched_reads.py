"""Batches reads of single ids: those that arrive while a read runs share the next one, as writes share a commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")

#: How many requests share one read, so that the first of them need not wait for long.
MAX_BATCH = 256


@define(eq=False)
class BatchedReads(Generic[T]):
    """While a read runs, new requests wait for the next one, which begins after all of them have arrived.

    :ivar read: given ids, returns the value of each, in the same order.
    """

    _read: Callable[[Sequence[str]], Deferred[list[T]]]
    _waiting: list[tuple[str, Deferred[T]]] = field(factory=list, init=False)
    _is_reading: bool = field(default=False, init=False)

    def get(self, id_: str) -> Deferred[T]:
        """The value of ``id_``, read now or soon. Cancelling it does not cancel the read, which others share."""
        request: Deferred[T] = Deferred(lambda _: None)
        self._waiting.append((id_, request))
        if not self._is_reading:
            self._begin()
        return request

    def _begin(self) -> None:
        waiting = [(id_, request) for id_, request in self._waiting if not request.called]  # without the cancelled
        batch, self._waiting = waiting[:MAX_BATCH], waiting[MAX_BATCH:]
        if not batch:
            return
        self._is_reading = True
        ids = list(dict.fromkeys(id_ for id_, _ in batch))
        self._read(ids).addBoth(self._answer, ids, batch)

    def _answer(
        self,
        result: list[T] | Failure,
        ids: Sequence[str],
        batch: Sequence[tuple[str, Deferred[T]]],
    ) -> None:
        self._is_reading = False
        if self._waiting:  # first of all, so that a request made by a callback below comes after these
            self._begin()
        values = {} if isinstance(result, Failure) else dict(zip(ids, result, strict=True))
        for id_, request in batch:
            if request.called:  # it was cancelled
                continue
            if isinstance(result, Failure):
                request.errback(result)
            else:
                request.callback(values[id_])
