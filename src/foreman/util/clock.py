"""Types for points in time, so that mypy distinguishes numbers that count from different beginnings."""

from __future__ import annotations

from typing import NewType

from twisted.internet.interfaces import IReactorTime

#: Seconds of the reactor's clock (``IReactorTime.seconds()``): only differences mean something; never shown or stored.
Monotonic = NewType("Monotonic", float)
#: Seconds since 1970-01-01T00:00:00Z, as ``time.time()`` has them.
EpochSeconds = NewType("EpochSeconds", float)
#: Milliseconds since 1970-01-01T00:00:00Z, as the store and the API of jobs have them.
EpochMs = NewType("EpochMs", int)

#: Earlier than every moment: stands for something that has not happened yet.
NEVER = Monotonic(float("-inf"))


def now(clock: IReactorTime) -> Monotonic:
    """The time of the reactor's clock."""
    return Monotonic(clock.seconds())
