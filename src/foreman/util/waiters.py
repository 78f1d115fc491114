"""The Deferreds that wait for one event, fired together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

Value = TypeVar("Value")


@define(eq=False)
class Waiters(Generic[Value]):
    """The Deferreds that fire at the next event, in the order in which they were made.

    A cancelled Deferred is removed at once, so that abandoned ones do not accumulate. A Deferred that
    is made while others fire waits for the event after this one.

    :ivar on_empty: called when the last of them was cancelled, not when they fire.
    """

    _on_empty: Callable[[], object] | None = None
    _waiting: dict[Deferred[Value], None] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[Value]:
        """A Deferred that fires with the value of the next event; cancelling it removes it."""
        waiter: Deferred[Value] = Deferred(self._remove)
        self._waiting[waiter] = None
        return waiter

    def fire(self, value: Value) -> None:
        """The event has happened: each of them fires with ``value``."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.called:  # the callback of an earlier one may have cancelled it
                waiter.callback(value)

    def _remove(self, waiter: Deferred[Value]) -> None:
        was_waiting = self._waiting.pop(waiter, self) is None  # not so while they fire
        if was_waiting and not self._waiting and self._on_empty is not None:
            self._on_empty()


@contextmanager
def cancelling(waiter: Deferred[Value]) -> Iterator[Deferred[Value]]:
    """Cancel ``waiter`` at the end of the block, unless it has fired; its failure is dropped."""
    try:
        yield waiter
    finally:
        waiter.addErrback(lambda _: None)
        waiter.cancel()
