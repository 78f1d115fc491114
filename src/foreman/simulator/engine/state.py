"""The state that all handlers of a simulator share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

from attrs import Factory, define
from twisted.internet.interfaces import IReactorTime

from foreman.simulator.engine.faults import Fault
from foreman.simulator.engine.models import Inventory
from foreman.simulator.engine.scheduler import Scheduler
from foreman.simulator.engine.settings import Settings

_SMALL = "abcdefghijklmnopqrstuvwxyz0123456789"
_HEX = "0123456789abcdef"


@define(eq=False)
class SimulatorState:
    """The state of one simulator.

    :ivar clock_offset: the time of day, in seconds since the epoch, at which ``clock`` was 0.
    :ivar report: returns the state that ``GET /simulator`` shows; :ivar faults: those that are still to happen, in order.
    :ivar running: how many inferences run now; :ivar max_running: the largest number that ran at the same time.
    :ivar blobs: the uploads, by digest.
    """

    clock: IReactorTime
    settings: Settings
    clock_offset: float
    random: Random
    inventory: Inventory
    scheduler: Scheduler
    report: Callable[[], Any]
    faults: list[Fault] = Factory(list)
    running: int = 0
    max_running: int = 0
    blobs: dict[str, Any] = Factory(dict)
    _second: int = -1
    _prefix: str = ""
    _date: str = ""

    def now(self) -> float:
        """The time of day, in seconds since the epoch."""
        return self.clock_offset + self.clock.seconds()

    def _format_second(self, second: int) -> None:
        self._second = second
        moment = datetime.fromtimestamp(second, UTC)
        self._prefix = f"{moment:%Y-%m-%dT%H:%M:%S}"
        self._date = f"{moment:%a, %d %b %Y %H:%M:%S} GMT"

    def timestamp(self) -> str:
        """The time of day as Go writes it: UTC, up to nanoseconds, without trailing zeros."""
        now = self.clock_offset + self.clock.seconds()
        second = int(now)
        if second != self._second:
            self._format_second(second)
        fraction = f"{now - second:.9f}"[1:].rstrip("0")
        return f"{self._prefix}{fraction}Z" if len(fraction) > 1 else f"{self._prefix}Z"

    def date(self) -> str:
        """The value of the ``Date`` header."""
        second = int(self.now())
        if second != self._second:
            self._format_second(second)
        return self._date

    def random_number(self, below: int) -> int:
        """A random number for an id."""
        return self.random.randrange(below)

    def call_id(self) -> str:
        """A random id for a tool call."""
        return "call_" + "".join(self.random.choices(_SMALL, k=8))

    def hex_id(self, prefix: str) -> str:
        """A random id as in the Anthropic API."""
        return prefix + "".join(self.random.choices(_HEX, k=24))

    def inference_started(self) -> None:
        """Count an inference as running."""
        self.running += 1
        self.max_running = max(self.max_running, self.running)

    def inference_ended(self) -> None:
        """Count an inference as ended."""
        self.running -= 1
