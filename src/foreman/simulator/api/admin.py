"""The simulator's own routes, for those who cannot reach into its process.

``POST /simulator/misbehave`` with what ``misbehave.parse`` understands lets something go wrong with what is asked next;
``DELETE`` forgets what has not happened yet, ``GET`` shows it. ``POST /simulator/crash`` kills the loaded models.
``GET /simulator`` tells what runs, ``GET /simulator/bytes/N`` answers with so many bytes, as fast as they are read.
"""

from __future__ import annotations

from attrs import asdict, define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.faults import parse
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.error_shapes import JSON
from foreman.simulator.server.exchange import Exchange

_BLOCK = 1 << 16


async def show_state(state: SimulatorState, exchange: Exchange) -> None:
    """``GET /simulator``."""
    exchange.respond(200, JSON, encode(state.report()))


async def planned(state: SimulatorState, exchange: Exchange) -> None:
    """``GET /simulator/misbehave``."""
    exchange.respond(200, JSON, encode({"planned": [asdict(plan) for plan in state.plans]}))


async def plan(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /simulator/misbehave``."""
    try:
        state.plans += parse(exchange.body.decode("utf-8", "replace"))
    except ValueError as error:
        raise Refused(400, str(error)) from None
    await planned(state, exchange)


async def forget(state: SimulatorState, exchange: Exchange) -> None:
    """``DELETE /simulator/misbehave``."""
    state.plans.clear()
    await planned(state, exchange)


async def crash(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /simulator/crash``."""
    state.scheduler.crash()
    await show_state(state, exchange)


@define(eq=False)
class _Pouring:
    """Writes blocks while they are taken."""

    _clock: IReactorTime
    _exchange: Exchange
    _left: int
    done: Deferred[None] = field(factory=Deferred)
    _paused: bool = False

    def on(self) -> None:
        """Write the next block, if there is one and it is wanted."""
        if self._paused or self.done.called:
            return
        size = min(self._left, _BLOCK)
        if size == 0:
            self.done.callback(None)
            return
        self._left -= size
        self._exchange.write(b"x" * size)
        self._clock.callLater(0, self.on)

    def pause(self) -> None:
        """The reader is slow."""
        self._paused = True

    def resume(self) -> None:
        """The reader goes on."""
        if self._paused:
            self._paused = False
            self._clock.callLater(0, self.on)


async def some_bytes(state: SimulatorState, exchange: Exchange) -> None:
    """``GET /simulator/bytes/:size``."""
    size = exchange.path.rpartition("/")[2]
    if not size.isdecimal():
        raise Refused(400, "that is no number of bytes")
    pouring = _Pouring(state.clock, exchange, int(size))
    exchange.pace = pouring
    exchange.start(200, [("Content-Type", "application/octet-stream")])
    pouring.on()
    await pouring.done
    exchange.finish()
