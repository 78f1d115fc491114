"""All connections of clients, and what they share."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.web.resource import IResource
from twisted.web.server import Site

from foreman.config.settings import Config
from foreman.protocol.endpoints import is_of_jobs
from foreman.protocol.routes import Route
from foreman.proxy.observer import Observer
from foreman.web.server.accept_limiter import AcceptLimiter
from foreman.web.server.admission import Admission
from foreman.web.server.body import Arriving, BodySpool
from foreman.web.server.connection import ClientConnection
from foreman.web.server.connections import Connections, address_of
from foreman.web.server.responses import HttpDate

#: The most request bodies in files.
MAX_FILES = 1024


class ConnectionFactory(Site):
    """All connections of clients, and what they share.

    :ivar clock: for deadlines; :ivar connections: all of them; :ivar open: whoever is there;
    :ivar admission: who may come in; :ivar bodies: the bodies of requests, and their room;
    :ivar jobs: answers what is below ``/jobs``; :ivar accept_limiter: how they come in.
    """

    noisy = False

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        config: Config,
        admission: Admission,
        date: HttpDate,
        observer: Observer,
        jobs: IResource | None = None,
    ) -> None:
        super().__init__(resource, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.config = config
        self.admission = admission
        self.date = date
        self.observer = observer
        self.jobs = jobs
        self.connections: Connections[ClientConnection] = Connections(clock, config.max_connections)
        self.bodies = BodySpool(
            config.body_budget,
            max(config.body_budget // 2, config.max_body),
            max(16, min(MAX_FILES, config.max_connections // 8)),
            lambda: [
                Arriving(connection.requests[-1].content, connection.refuse)
                for connection in self.connections.slow_bodies()
            ],
        )
        self.open = self.connections.open
        self.draining = False
        self.accept_limiter = AcceptLimiter(clock)

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:  # type: ignore[override]
        """A client connected."""
        self.accept_limiter.accepted()
        connection = ClientConnection()
        connection.factory = self
        connection.address = address_of(str(getattr(addr, "host", "")))
        return connection

    def resource_for(self, route: Route) -> IResource:
        """What answers a request that goes ``classify``."""
        return self.jobs if self.jobs is not None and is_of_jobs(route.path) else self.resource

    def drain(self) -> None:
        """Close the connections on which nothing happens; the others close after their answer."""
        self.draining = True
        for connection in list(self.open):
            connection.drain()

    def log(self, request: Any) -> None:
        """Nothing: the line for each request is written by the API, without path queries or addresses of browsers."""
