"""The protocols by which a request uses its connection and the server, so that their modules need not import each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource

from foreman.config.settings import Config
from foreman.protocol.routes import Route
from foreman.proxy.observer import Observer
from foreman.web.server.admission import Admission
from foreman.web.server.body import BodySpool
from foreman.web.server.connections import Connections, TrackedConnection
from foreman.web.server.responses import HttpDate


class Server(Protocol):
    """What all connections share.

    :ivar clock: for deadlines; :ivar connections: all of them; :ivar bodies: the bodies of requests, and their room;
    :ivar observer: is notified of each request that has ended; :ivar draining: foreman is stopping.
    """

    clock: IReactorTime
    config: Config
    admission: Admission
    connections: Connections[Any]
    bodies: BodySpool
    date: HttpDate
    observer: Observer
    draining: bool

    def resource_for(self, route: Route) -> IResource:
        """The resource that answers a request with this route."""


class Connection(TrackedConnection, Protocol):
    """What a request needs of the connection that it came on.

    :ivar persistent: another request may follow.
    """

    factory: Server
    transport: Any
    persistent: bool

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send parts of the answer."""

    def refuse(self, status: int, message: str, *, log: bool = True) -> None:
        """Refuse a request that cannot be read, or not completely, and close the connection."""

    def loseConnection(self) -> None:
        """Close when everything is sent."""
