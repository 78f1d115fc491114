"""A set that says when nobody is left in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

Member = TypeVar("Member")


@define(eq=False)
class TrackedSet(Generic[Member]):
    """Who is there now, in the order of arrival."""

    _members: dict[Member, None] = field(factory=dict, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def add(self, member: Member) -> None:
        """Come in."""
        self._members[member] = None

    def discard(self, member: Member) -> None:
        """Leave; whoever waits for the last one is told."""
        self._members.pop(member, None)
        if not self._members:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                if not one.called:  # an earlier one, on hearing it, may have made this one give up
                    one.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when nobody is there, at once if that is so already."""
        empty: Deferred[None] = Deferred(self._forget)
        if self._members:
            self._waiting.append(empty)
        else:
            empty.callback(None)
        return empty

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting = [one for one in self._waiting if one is not waiting]
