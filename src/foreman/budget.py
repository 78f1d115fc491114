"""A number of bytes that many share."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Budget:
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
