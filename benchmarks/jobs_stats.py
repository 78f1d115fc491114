"""Percentiles, and the latency of a reactor."""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Samples = dict[str, float]
#: The interval at which the latency of the reactor is measured, in seconds.
TICK = 0.005


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of all do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * share) - 1)]


def spread(name: str, seconds: Sequence[float]) -> Samples:
    """The median and the 99th percentile, in milliseconds."""
    return {f"{name} p50": 1000 * percentile(seconds, 0.5), f"{name} p99": 1000 * percentile(seconds, 0.99)}


def stalls(name: str, late: Sequence[float]) -> Samples:
    """The latency of the reactor, in milliseconds."""
    return {**spread(name, late), f"{name} max": 1000 * max(late)}


class Ticker:
    """Measures how late a timer of the reactor is, every few milliseconds."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._late: list[float] = []
        self._due = 0.0

    def start(self) -> None:
        """Start the timer."""
        self._due = time.monotonic() + TICK
        self._reactor.callLater(TICK, self._tick)

    def _tick(self) -> None:
        self._late.append(max(0.0, time.monotonic() - self._due))
        self.start()

    def take(self) -> list[float]:
        """The latencies since the last call, in seconds."""
        late, self._late = self._late, []
        return late
