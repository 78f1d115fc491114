"""What many share: a number of bytes, and how much of anything one of them may have."""

from __future__ import annotations

from attrs import define

#: A caller may hold up to seven times as much as is still free.
SHARE = 7
#: The last of so many parts is for callers who have nothing yet.
LAST_PART = 16


def is_fair(held: int, free: int, whole: int = 0) -> bool:
    """Whether a caller who has ``held`` of what all share may take one more of it.

    One caller alone gets seven eighths. The last sixteenth goes to callers who have nothing yet, one each, so that a few
    greedy ones cannot shut the others out. Of seven or less one caller may have all.

    :param free: how much is left; :param whole: how much there is in all.
    """
    return free > 0 if held == 0 else held < SHARE * free and free > whole // LAST_PART


@define(eq=False)
class ByteBudget:
    """How many bytes all together may hold; ``limit`` in bytes."""

    limit: int
    used: int = 0

    def take(self, count: int) -> bool:
        """Count ``count`` bytes in; False when that exceeds the limit. They are counted either way: give them back."""
        self.used += count
        return self.used <= self.limit

    def give(self, count: int) -> None:
        """Give ``count`` bytes back."""
        self.used -= count
