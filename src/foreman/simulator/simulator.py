"""The simulator as a whole: the factory to listen with, what tests inspect, and what they control."""

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
from foreman.simulator.api.error_shapes import refuse
from foreman.simulator.api.routes import ROUTES
from foreman.simulator.engine.catalogue import models_named
from foreman.simulator.engine.errors import Refused
from foreman.simulator.engine.faults import HEADER, Fault, FaultKind, parse
from foreman.simulator.engine.go_json import encode
from foreman.simulator.engine.models import Inventory, parse_name
from foreman.simulator.engine.scheduler import Scheduler
from foreman.simulator.engine.settings import Settings
from foreman.simulator.engine.state import SimulatorState
from foreman.simulator.server.connection import Connection
from foreman.simulator.server.content_types import JSON
from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.fault_injection import inject
from foreman.simulator.server.interfaces import BodyReceiver, ClientConnection
from foreman.simulator.server.request_body import BodyBuffer, decompressed
from foreman.simulator.server.request_log import LoggedRequest, LostConnection, Outcome
from foreman.simulator.server.router import Plain, Route, find

#: 2026-01-01, the time of day of a simulator that is not given one.
NEW_YEAR = 1_767_225_600.0


class Simulator(Factory):
    """A simulated Ollama server. Listen with it, as with any factory.

    :ivar requests: the last requests, in order; :ivar lost_connections: the last closed connections, in order.
    """

    noisy = False
    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: Settings | None = None, time_of_day: float = NEW_YEAR) -> None:
        """A simulator whose ``clock`` now shows ``time_of_day``, in seconds since the epoch."""
        self.clock = clock
        self.settings = settings = settings or Settings()
        inventory = Inventory()
        inventory.add(models_named(settings.models))
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
        self.requests: deque[LoggedRequest] = deque(maxlen=settings.remember)
        self.lost_connections: deque[LostConnection] = deque(maxlen=settings.remember)
        self._connections: dict[int, ClientConnection] = {}
        self._count = 0
        self._down = False
        self._open_requests: dict[Exchange, LoggedRequest] = {}
        self._chosen_routes: dict[Exchange, Route | Plain] = {}
        self._routes = tuple(route for route in ROUTES if settings.newer or not route.newer)
        self._replacements: dict[Exchange, Callable[[], None]] = {}

    # Called by Twisted and by the connections.

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        """A new connection, or ``None`` while the server is down."""
        return None if self._down else Connection(self)

    def stopFactory(self) -> None:
        """The port is closed: leave no timer behind."""
        self.state.scheduler.stop()

    def connection_made(self, connection: ClientConnection) -> None:
        """A client has connected."""
        self._count += 1
        connection.number = self._count
        self._connections[connection.number] = connection

    def connection_lost(self, connection: ClientConnection, exchange: Exchange | None) -> None:
        """A connection is gone."""
        self._connections.pop(connection.number, None)
        request = self._open_requests.get(exchange) if exchange is not None else None
        self.lost_connections.append(LostConnection(connection.number, self.clock.seconds(), request))
        if exchange is not None:
            self._request_ended(exchange, "left")

    def date(self) -> str:
        """The value of the ``Date`` header."""
        return self.state.date()

    def request_started(self, connection: ClientConnection, exchange: Exchange) -> BodyReceiver | None:
        """The head of a request has arrived: record it, and find its route."""
        request = LoggedRequest(
            exchange.method,
            exchange.target,
            exchange.version,
            exchange.headers,
            self.clock.seconds(),
            connection.number,
        )
        self.requests.append(request)
        self._open_requests[exchange] = request
        exchange.on_finish = lambda status: self._request_ended(exchange, "answered", status)
        route = find(self._routes, exchange, check_hosts=self.settings.check_hosts)
        self._chosen_routes[exchange] = route
        try:
            request.fault = fault = self._fault_for(exchange, route)
            instead = inject(connection, exchange, fault) if fault is not None else None
        except ValueError as error:
            instead = partial(exchange.respond, 400, JSON, encode({"error": str(error)}))
        if instead is not None:
            self._replacements[exchange] = instead
        if isinstance(route, Plain) or route.body == "none":
            return None
        if route.body == "stream":
            return blobs.open_upload(self.state, exchange)
        return BodyBuffer(exchange, partial(self.run, exchange, route))

    def _fault_for(self, exchange: Exchange, route: Route | Plain) -> Fault | None:
        """The fault for this request: its own, from the header, or the first planned one that applies."""
        if (own := exchange.header(HEADER)) is not None:
            return next(iter(parse(own)), None)
        asks = isinstance(route, Route) and route.asks_a_model
        fault = next((fault for fault in self.state.faults if fault.concerns(exchange.path, asks_a_model=asks)), None)
        if fault is not None and fault.times:
            received_at = self.state.faults.index(fault)
            self.state.faults[received_at : received_at + 1] = (
                [evolve(fault, times=fault.times - 1)] if fault.times > 1 else []
            )
        return fault

    def answer(self, exchange: Exchange) -> None:
        """Respond to a request whose body is not needed."""
        route = self._chosen_routes[exchange]
        if exchange in self._replacements:
            self._replacements.pop(exchange)()
        elif isinstance(route, Plain):
            exchange.respond(route.status, route.headers, route.body)
        else:
            self.run(exchange, route)

    def _request_ended(self, exchange: Exchange, outcome: Outcome, status: int = 0) -> None:
        self._chosen_routes.pop(exchange, None)
        self._replacements.pop(exchange, None)
        request = self._open_requests.pop(exchange, None)
        if request is not None:
            request.outcome, request.ended_at, request.status = outcome, self.clock.seconds(), status or exchange.status

    def run(self, exchange: Exchange, route: Route) -> None:
        """Run the handler of a route until it has responded or the client disconnects."""
        if (request := self._open_requests.get(exchange)) is not None:
            request.body = exchange.body
        if exchange in self._replacements:
            self._replacements.pop(exchange)()
            return
        answering = Deferred.fromCoroutine(self._run(exchange, route))
        exchange.on_disconnect = answering.cancel
        answering.addErrback(self._failed, exchange)

    async def _run(self, exchange: Exchange, route: Route) -> None:
        try:
            exchange.body = decompressed(exchange, exchange.body)
            await route.handler(self.state, exchange)
        except Refused as refused:
            refuse(self.state, exchange, route.family, refused, exchange.extra_on_error)

    def _failed(self, failure: Failure, exchange: Exchange) -> None:
        """Respond as Go does when a handler panics: 500 without a body."""
        if isinstance(failure.value, CancelledError):
            return
        self._log.failure("the simulator failed at {target}", failure, target=exchange.target)
        if not exchange.started:
            exchange.respond(500)

    # For tests to inspect.

    @property
    def connections(self) -> list[ClientConnection]:
        """The open connections, the oldest first."""
        return list(self._connections.values())

    @property
    def running(self) -> int:
        """How many inferences are running."""
        return self.state.running

    @property
    def max_running(self) -> int:
        """The largest number of inferences that ran at the same time."""
        return self.state.max_running

    @property
    def loaded(self) -> list[str]:
        """The names of the loaded models."""
        return [runner.model.name.short for runner in self.state.scheduler.runners]

    @property
    def installed(self) -> list[str]:
        """The names of the installed models."""
        return [model.name.short for model in self.state.inventory.newest_first()]

    def requests_for(self, path: str) -> list[LoggedRequest]:
        """The recorded requests for a path, whatever their query."""
        return [request for request in self.requests if request.path.partition("?")[0] == path]

    def report(self) -> dict[str, Any]:
        """The state of the simulator, for ``GET /simulator``."""
        return {
            "requests": len(self.requests),
            "running": self.running,
            "most_running": self.max_running,
            "loaded": self.loaded,
            "connections": len(self._connections),
        }

    # For tests to control.

    def misbehave(self, what: FaultKind | Fault, **more: Any) -> None:
        """Inject a fault into the next responses; ``more`` are fields of ``Fault``."""
        self.state.faults.append(what if isinstance(what, Fault) else Fault(what, **more))

    def clear_faults(self) -> None:
        """Drop the faults that have not happened yet."""
        self.state.faults.clear()

    def install(self, *names: str) -> None:
        """Install models."""
        self.state.inventory.add(models_named(names))

    def uninstall(self, *names: str) -> None:
        """Remove models."""
        for name in names:
            self.state.inventory.remove(parse_name(name))

    def crash_models(self) -> None:
        """Kill the processes of all loaded models, as running out of memory does."""
        self.state.scheduler.crash()

    def go_down(self) -> None:
        """Reset every connection and accept no new ones, as a stopped server does; all models are unloaded.

        On a real port the kernel still accepts connections, which are then closed: only a port that stops listening
        refuses them.
        """
        self._down = True
        for connection in self.connections:
            connection.abort()
        self.state.scheduler.stop()

    def come_back(self) -> None:
        """Accept connections again."""
        self._down = False
