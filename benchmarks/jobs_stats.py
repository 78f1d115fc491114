"""From what was measured to figures: percentiles, and how late a reactor is."""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples = dict[str, float]
#: Seconds between two looks whether the reactor is late.
TICK = 0.005


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of all do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * share) - 1)]


def spread(name: str, seconds: Sequence[float]) -> Samples:
    """The median and the 99th percentile, in milliseconds."""
    return {f"{name} p50": 1000 * percentile(seconds, 0.5), f"{name} p99": 1000 * percentile(seconds, 0.99)}


def stalls(name: str, late: Sequence[float]) -> Samples:
    """How late the reactor was, in milliseconds."""
    return {**spread(name, late), f"{name} max": 1000 * max(late)}


class Ticker:
    """How late the reactor is, looked at every few milliseconds."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._late: list[float] = []
        self._due = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._due = time.monotonic() + TICK
        self._reactor.callLater(TICK, self._tick)

    def _tick(self) -> None:
        self._late.append(max(0.0, time.monotonic() - self._due))
        self.start()

    def take(self) -> list[float]:
        """What has been seen since the last time."""
        late, self._late = self._late, []
        return late
