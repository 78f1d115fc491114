"""The factory of client connections, and what they share."""

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
from foreman.web.server.body import ArrivingBody, BodySpool
from foreman.web.server.connection import ClientConnection
from foreman.web.server.connections import Connections, address_of
from foreman.web.server.responses import HttpDate

#: The most request bodies in files at a time.
MAX_BODY_FILES = 1024


class ConnectionFactory(Site):
    """Makes the connections of clients, and holds what they share.

    :ivar clock: for deadlines; :ivar connections: all of them, with their places; :ivar open: all that are open;
    :ivar admission: decides which requests are admitted; :ivar bodies: the room for request bodies; :ivar date: the ``Date``
        header; :ivar observer: is notified of each request that has ended; :ivar jobs: answers what is below ``/jobs``;
    :ivar draining: foreman is stopping; :ivar accept_limiter: limits how fast connections are accepted.
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
            max(16, min(MAX_BODY_FILES, config.max_connections // 8)),
            lambda: [
                ArrivingBody(connection.requests[-1].content, connection.refuse)
                for connection in self.connections.slow_bodies()
            ],
        )
        self.open = self.connections.open
        self.draining = False
        self.accept_limiter = AcceptLimiter(clock)

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:  # type: ignore[override]
        """The protocol of a client that has connected."""
        self.accept_limiter.accepted()
        connection = ClientConnection()
        connection.factory = self
        connection.address = address_of(str(getattr(addr, "host", "")))
        return connection

    def resource_for(self, route: Route) -> IResource:
        """What answers a request that takes ``route``."""
        return self.jobs if self.jobs is not None and is_of_jobs(route.path) else self.resource

    def drain(self) -> None:
        """Close the connections without a request; the others close after their answer."""
        self.draining = True
        for connection in list(self.open):
            connection.drain()

    def log(self, request: Any) -> None:
        """Log nothing: the access log has a line for each request, without queries and without what browsers say of themselves."""
