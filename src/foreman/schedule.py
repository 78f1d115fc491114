"""Who is next through the gate: a pure function of who waits."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


@frozen(eq=False)
class Ticket:
    """One place in the waiting room.

    :ivar id: a ULID; :ivar caller: who asks; :ivar model: as typed, None when it could not be read;
    :ivar route: the path; :ivar since: seconds since the epoch.
    """

    id: str
    caller: str
    model: str | None
    route: str
    since: float


def next_up(waiting: Iterable[Ticket]) -> Ticket:
    """Whose turn it is: first in, first out. ``waiting`` is in the order of arrival and not empty."""
    return next(iter(waiting))
