"""The simulator's own routes, for those who cannot reach into its process.

``POST /simulator/misbehave`` with what ``misbehave.parse`` understands lets something go wrong with what is asked next;
``DELETE`` forgets what has not happened yet, ``GET`` shows it. ``POST /simulator/crash`` kills the loaded models.
``GET /simulator`` tells what runs.
"""

from __future__ import annotations

from attrs import asdict

from foreman.simulator.exchange import Exchange
from foreman.simulator.golang import encode
from foreman.simulator.misbehave import parse
from foreman.simulator.refusals import Refused
from foreman.simulator.shapes import JSON
from foreman.simulator.world import World


async def state(world: World, exchange: Exchange) -> None:
    """``GET /simulator``."""
    exchange.respond(200, JSON, encode(world.report()))


async def planned(world: World, exchange: Exchange) -> None:
    """``GET /simulator/misbehave``."""
    exchange.respond(200, JSON, encode({"planned": [asdict(plan) for plan in world.plans]}))


async def plan(world: World, exchange: Exchange) -> None:
    """``POST /simulator/misbehave``."""
    try:
        world.plans += parse(exchange.body.decode("utf-8", "replace"))
    except ValueError as error:
        raise Refused(400, str(error)) from None
    await planned(world, exchange)


async def forget(world: World, exchange: Exchange) -> None:
    """``DELETE /simulator/misbehave``."""
    world.plans.clear()
    await planned(world, exchange)


async def crash(world: World, exchange: Exchange) -> None:
    """``POST /simulator/crash``."""
    world.scheduler.crash()
    await state(world, exchange)
