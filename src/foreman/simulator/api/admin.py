"""The simulator's own routes, which control it from another process.

``POST /simulator/misbehave`` injects faults into the next responses; its body is what ``faults.parse`` reads. ``DELETE``
drops the faults that have not happened yet, ``GET`` lists them. ``POST /simulator/crash`` kills the loaded models.
``GET /simulator`` shows the state, ``GET /simulator/bytes/N`` sends N bytes as fast as they are read.
"""

from __future__ import annotations

from attrs import asdict, define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.faults import parse
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.content_types import JSON
from foreman.simulator.server.exchange import Exchange

_BLOCK = 1 << 16


async def show_state(state: SimulatorState, exchange: Exchange) -> None:
    """``GET /simulator``."""
    exchange.respond(200, JSON, encode(state.report()))


async def show_faults(state: SimulatorState, exchange: Exchange) -> None:
    """``GET /simulator/misbehave``."""
    exchange.respond(200, JSON, encode({"planned": [asdict(fault) for fault in state.faults]}))


async def add_fault(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /simulator/misbehave``."""
    try:
        state.faults += parse(exchange.body.decode("utf-8", "replace"))
    except ValueError as error:
        raise Refused(400, str(error)) from None
    await show_faults(state, exchange)


async def clear_faults(state: SimulatorState, exchange: Exchange) -> None:
    """``DELETE /simulator/misbehave``."""
    state.faults.clear()
    await show_faults(state, exchange)


async def crash(state: SimulatorState, exchange: Exchange) -> None:
    """``POST /simulator/crash``."""
    state.scheduler.crash()
    await show_state(state, exchange)


@define(eq=False)
class _ByteStream:
    """Sends blocks as fast as the client reads them."""

    _clock: IReactorTime
    _exchange: Exchange
    _remaining: int
    done: Deferred[None] = field(factory=Deferred)
    _paused: bool = False

    def send_next(self) -> None:
        """Send the next block, unless paused or done."""
        if self._paused or self.done.called:
            return
        size = min(self._remaining, _BLOCK)
        if size == 0:
            self.done.callback(None)
            return
        self._remaining -= size
        self._exchange.write(b"x" * size)
        self._clock.callLater(0, self.send_next)

    def pause(self) -> None:
        """The client reads slowly."""
        self._paused = True

    def resume(self) -> None:
        """The client reads again."""
        if self._paused:
            self._paused = False
            self._clock.callLater(0, self.send_next)


async def send_bytes(state: SimulatorState, exchange: Exchange) -> None:
    """``GET /simulator/bytes/:size``."""
    size = exchange.path.rpartition("/")[2]
    if not size.isdecimal():
        raise Refused(400, f"{size!r} is not a number of bytes")
    stream = _ByteStream(state.clock, exchange, int(size))
    exchange.producer = stream
    exchange.start(200, [("Content-Type", "application/octet-stream")])
    stream.send_next()
    await stream.done
    exchange.finish()
