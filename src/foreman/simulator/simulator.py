"""The simulator as a whole: what listens, what tests look at, and what they command."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman.simulator.api import blobs
from foreman.simulator.api.routes import ROUTES
from foreman.simulator.engine.catalogue import choose
from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.faults import HEADER, Misbehaviour, What, parse
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.models import Inventory, named
from foreman.simulator.engine.scheduler import Scheduler
from foreman.simulator.engine.settings import Settings
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.bodies import Whole, inflated
from foreman.simulator.server.connection import Connection
from foreman.simulator.server.error_shapes import JSON, refuse
from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.fault_injection import spoil
from foreman.simulator.server.interfaces import Client, Taker
from foreman.simulator.server.request_log import LostConnection, Outcome, RequestLog
from foreman.simulator.server.router import Plain, Route, find

#: 2026-01-01, the time of day of a simulator that is given none.
NEW_YEAR = 1_767_225_600.0


class Simulator(Factory):
    """A pretended Ollama. Listen with it, as with any factory.

    :ivar requests: what was asked, in order; :ivar lost_connections: the connections that have gone, in order.
    """

    noisy = False
    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: Settings | None = None, time_of_day: float = NEW_YEAR) -> None:
        """A simulator whose ``clock`` now shows ``time_of_day``, in seconds since the epoch."""
        self.clock = clock
        self.settings = settings = settings or Settings()
        inventory = Inventory()
        inventory.add(choose(settings.models))
        self.state = SimulatorState(
            clock,
            settings,
            time_of_day - clock.seconds(),
            Random(settings.seed),  # noqa: S311 - for ids
            inventory,
            Scheduler(clock, settings),
            self.report,
            list(settings.misbehave),
        )
        self.requests: deque[RequestLog] = deque(maxlen=settings.remember)
        self.lost_connections: deque[LostConnection] = deque(maxlen=settings.remember)
        self._connections: dict[int, Client] = {}
        self._count = 0
        self._down = False
        self._seen: dict[Exchange, RequestLog] = {}
        self._routes: dict[Exchange, Route | Plain] = {}
        self._known = tuple(route for route in ROUTES if settings.newer or not route.newer)
        self._instead: dict[Exchange, Callable[[], None]] = {}

    # What Twisted and the connections ask.

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        """A connection for somebody, or ``None`` while the server is down."""
        return None if self._down else Connection(self)

    def stopFactory(self) -> None:
        """Nobody listens with it any more: leave no timer behind."""
        self.state.scheduler.stop()

    def connected(self, connection: Client) -> None:
        """Somebody has connected."""
        self._count += 1
        connection.number = self._count
        self._connections[connection.number] = connection

    def lost(self, connection: Client, exchange: Exchange | None) -> None:
        """A connection is gone."""
        self._connections.pop(connection.number, None)
        seen = self._seen.get(exchange) if exchange is not None else None
        self.lost_connections.append(LostConnection(connection.number, self.clock.seconds(), seen))
        if exchange is not None:
            self._over(exchange, "left")

    def date(self) -> str:
        """The time for the ``Date`` header."""
        return self.state.date()

    def opened(self, connection: Client, exchange: Exchange) -> Taker | None:
        """A request's head has come: remember it, and find its route."""
        seen = RequestLog(
            exchange.method,
            exchange.target,
            exchange.version,
            exchange.headers,
            self.clock.seconds(),
            connection.number,
        )
        self.requests.append(seen)
        self._seen[exchange] = seen
        exchange.on_end = lambda status: self._over(exchange, "answered", status)
        route = find(self._known, exchange, check_hosts=self.settings.check_hosts)
        self._routes[exchange] = route
        try:
            seen.misbehaviour = plan = self._plan(exchange, route)
            instead = spoil(connection, exchange, plan) if plan is not None else None
        except ValueError as error:
            instead = partial(exchange.respond, 400, JSON, encode({"error": str(error)}))
        if instead is not None:
            self._instead[exchange] = instead
        if isinstance(route, Plain) or route.body == "none":
            return None
        if route.body == "stream":
            return blobs.receive(self.state, exchange)
        return Whole(exchange, partial(self.run, exchange, route))

    def _plan(self, exchange: Exchange, route: Route | Plain) -> Misbehaviour | None:
        """What is to go wrong with this request."""
        if (own := exchange.header(HEADER)) is not None:
            return next(iter(parse(own)), None)
        asks = isinstance(route, Route) and route.asks_a_model
        plan = next((plan for plan in self.state.plans if plan.concerns(exchange.path, asks_a_model=asks)), None)
        if plan is not None and plan.times:
            at = self.state.plans.index(plan)
            self.state.plans[at : at + 1] = [evolve(plan, times=plan.times - 1)] if plan.times > 1 else []
        return plan

    def answer(self, exchange: Exchange) -> None:
        """Answer a request whose body nobody wants."""
        route = self._routes[exchange]
        if exchange in self._instead:
            self._instead.pop(exchange)()
        elif isinstance(route, Plain):
            exchange.respond(route.status, route.headers, route.body)
        else:
            self.run(exchange, route)

    def _over(self, exchange: Exchange, outcome: Outcome, status: int = 0) -> None:
        self._routes.pop(exchange, None)
        self._instead.pop(exchange, None)
        seen = self._seen.pop(exchange, None)
        if seen is not None:
            seen.outcome, seen.over, seen.status = outcome, self.clock.seconds(), status or exchange.status

    def run(self, exchange: Exchange, route: Route) -> None:
        """Let a route answer, until it has or the reader leaves."""
        if (seen := self._seen.get(exchange)) is not None:
            seen.body = exchange.body
        if exchange in self._instead:
            self._instead.pop(exchange)()
            return
        answering = Deferred.fromCoroutine(self._run(exchange, route))
        exchange.on_gone = answering.cancel
        answering.addErrback(self._failed, exchange)

    async def _run(self, exchange: Exchange, route: Route) -> None:
        try:
            exchange.body = inflated(exchange, exchange.body)
            await route.handler(self.state, exchange)
        except Refused as refused:
            refuse(self.state, exchange, route.family, refused, exchange.extra_on_error)

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        """A handler that fails is like one of Go's that panics: 500 without a body."""
        if isinstance(failure.value, CancelledError):
            return
        self._log.failure("the simulator failed at {target}", failure, target=exchange.target)
        if not exchange.begun:
            exchange.respond(500)

    # What tests look at.

    @property
    def connections(self) -> list[Client]:
        """The open connections, the oldest first."""
        return list(self._connections.values())

    @property
    def running(self) -> int:
        """How many inferences run now."""
        return self.state.running

    @property
    def most_running(self) -> int:
        """How many inferences ran at once at most."""
        return self.state.most

    @property
    def loaded(self) -> list[str]:
        """The names of the loaded models."""
        return [runner.model.name.short for runner in self.state.scheduler.runners]

    @property
    def installed(self) -> list[str]:
        """The names of the installed models."""
        return [model.name.short for model in self.state.inventory.newest_first()]

    def asked(self, path: str) -> list[RequestLog]:
        """The requests for a path, without their queries."""
        return [seen for seen in self.requests if seen.path.partition("?")[0] == path]

    def report(self) -> dict[str, Any]:
        """What runs, for the simulator's own route."""
        return {
            "requests": len(self.requests),
            "running": self.running,
            "most_running": self.most_running,
            "loaded": self.loaded,
            "connections": len(self._connections),
        }

    # What tests command.

    def misbehave(self, what: What | Misbehaviour, **more: Any) -> None:
        """Let something go wrong with what is asked next; ``more`` are the fields of ``Misbehaviour``."""
        self.state.plans.append(what if isinstance(what, Misbehaviour) else Misbehaviour(what, **more))

    def behave(self) -> None:
        """Forget what was to go wrong."""
        self.state.plans.clear()

    def install(self, *names: str) -> None:
        """Add models."""
        self.state.inventory.add(choose(names))

    def uninstall(self, *names: str) -> None:
        """Take models away."""
        for name in names:
            self.state.inventory.remove(named(name))

    def crash_models(self) -> None:
        """Kill the processes of all loaded models, as running out of memory does."""
        self.state.scheduler.crash()

    def go_down(self) -> None:
        """Cut every connection and take no new ones, as a stopped server does; what is loaded is forgotten.

        On a real port the kernel still accepts, and the client sees its connection closed: only a port that stops
        listening refuses.
        """
        self._down = True
        for connection in self.connections:
            connection.cut()
        self.state.scheduler.stop()

    def come_back(self) -> None:
        """Take connections again."""
        self._down = False
