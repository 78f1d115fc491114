"""A set whose users can wait until it is empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from foreman.util.waiters import Waiters

Member = TypeVar("Member")


@define(eq=False)
class TrackedSet(Generic[Member]):
    """The current members, in the order in which they were added."""

    _members: dict[Member, None] = field(factory=dict, init=False)
    _emptied: Waiters[None] = field(factory=Waiters, init=False)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def add(self, member: Member) -> None:
        """Add ``member``, unless it is there already."""
        self._members[member] = None

    def discard(self, member: Member) -> None:
        """Remove ``member``, if it is there; when none is left, the Deferreds of ``when_empty`` fire."""
        self._members.pop(member, None)
        if not self._members:
            self._emptied.fire(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when the set is empty, at once if it is already."""
        return self._emptied.wait() if self._members else succeed(None)
