"""A set whose users can wait until it is empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

Member = TypeVar("Member")


@define(eq=False)
class TrackedSet(Generic[Member]):
    """The current members, in the order in which they were added."""

    _members: dict[Member, None] = field(factory=dict, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def add(self, member: Member) -> None:
        """Add ``member``."""
        self._members[member] = None

    def discard(self, member: Member) -> None:
        """Remove ``member``, and fire the Deferreds of ``when_empty`` if it was the last one."""
        self._members.pop(member, None)
        if not self._members:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                if not deferred.called:  # a callback of an earlier one may have cancelled this one
                    deferred.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when the set is empty; at once if it is empty already."""
        empty: Deferred[None] = Deferred(self._forget)
        if self._members:
            self._waiting.append(empty)
        else:
            empty.callback(None)
        return empty

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting = [deferred for deferred in self._waiting if deferred is not waiting]
