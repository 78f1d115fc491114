"""What all parts of a simulator share: time, chance, models, and who is at work."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

from attrs import Factory, define
from twisted.internet.interfaces import IReactorTime

from foreman.simulator.engine.faults import Misbehaviour
from foreman.simulator.engine.models import Inventory
from foreman.simulator.engine.scheduler import Scheduler
from foreman.simulator.engine.settings import Settings

_SMALL = "abcdefghijklmnopqrstuvwxyz0123456789"
_HEX = "0123456789abcdef"


@define(eq=False)
class SimulatorState:
    """One server's state.

    :ivar zero: what the time of day was, in seconds since the epoch, when ``clock`` stood at 0.
    :ivar report: tells what runs, for the simulator's own routes; :ivar plans: what is to go wrong.
    :ivar running: how many answers are being said now; :ivar most: how many there were at once at most.
    :ivar blobs: what is remembered of uploads, by digest.
    """

    clock: IReactorTime
    settings: Settings
    zero: float
    random: Random
    inventory: Inventory
    scheduler: Scheduler
    report: Callable[[], Any]
    plans: list[Misbehaviour] = Factory(list)
    running: int = 0
    most: int = 0
    blobs: dict[str, Any] = Factory(dict)
    _second: int = -1
    _prefix: str = ""
    _date: str = ""

    def now(self) -> float:
        """The time of day, in seconds since the epoch."""
        return self.zero + self.clock.seconds()

    def _turn(self, second: int) -> None:
        self._second = second
        moment = datetime.fromtimestamp(second, UTC)
        self._prefix = f"{moment:%Y-%m-%dT%H:%M:%S}"
        self._date = f"{moment:%a, %d %b %Y %H:%M:%S} GMT"

    def stamp(self) -> str:
        """The time of day as Go writes it: UTC, up to nanoseconds, zeros at the end dropped."""
        now = self.zero + self.clock.seconds()
        second = int(now)
        if second != self._second:
            self._turn(second)
        fraction = f"{now - second:.9f}"[1:].rstrip("0")
        return f"{self._prefix}{fraction}Z" if len(fraction) > 1 else f"{self._prefix}Z"

    def date(self) -> str:
        """The time for the ``Date`` header."""
        second = int(self.now())
        if second != self._second:
            self._turn(second)
        return self._date

    def number(self, below: int) -> int:
        """A number for an id."""
        return self.random.randrange(below)

    def call_id(self) -> str:
        """An id for the use of a tool."""
        return "call_" + "".join(self.random.choices(_SMALL, k=8))

    def hex_id(self, prefix: str) -> str:
        """An id as the Anthropic routes have them."""
        return prefix + "".join(self.random.choices(_HEX, k=24))

    def began(self) -> None:
        """An answer is being said."""
        self.running += 1
        self.most = max(self.most, self.running)

    def ended(self) -> None:
        """It is no longer."""
        self.running -= 1
