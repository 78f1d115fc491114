"""Limits that callers share: a budget of bytes, and how much of anything one caller may have."""

from __future__ import annotations

from attrs import define

#: A caller may hold up to this many times as much as is still free.
SHARE = 7
#: One part of this many is kept for callers who hold nothing yet.
RESERVE = 16


def is_fair(held: int, free: int, total: int = 0) -> bool:
    """Whether a caller who holds ``held`` units of a shared resource may take one more.

    One caller alone gets seven eighths. The last sixteenth goes to callers who hold nothing yet, one unit each, so that a
    few greedy ones cannot shut the others out. Of seven units or less, one caller may have all.

    :param free: how many units are left; :param total: how many there are in all.
    """
    return free > 0 if held == 0 else held < SHARE * free and free > total // RESERVE


@define(eq=False)
class ByteBudget:
    """How many bytes all holders together may have; ``limit`` in bytes."""

    limit: int
    used: int = 0

    def take(self, count: int) -> bool:
        """Count ``count`` bytes as used; False when that exceeds the limit. They are counted either way: give them back."""
        self.used += count
        return self.used <= self.limit

    def give(self, count: int) -> None:
        """Give ``count`` bytes back."""
        self.used -= count
