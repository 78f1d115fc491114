"""All connections of clients, and what they share."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Site

from foreman.budget import Budget
from foreman.config import Config
from foreman.crowd import Crowd
from foreman.lanes import Way, is_of_jobs
from foreman.web.door import Door
from foreman.web.entrance import Entrance

#: How often it is said that there are too many connections, in seconds.
CROWDED_SILENCE = 60.0


class DoorFactory(Site):
    """All connections of clients, and what they share.

    :ivar clock: for deadlines; :ivar entrance: who may come in; :ivar bodies: bytes of bodies that wait, all together;
    :ivar jobs: answers what is below ``/jobs``.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        config: Config,
        entrance: Entrance,
        jobs: IResource | None = None,
    ) -> None:
        super().__init__(resource, reactor=clock, parsePOSTFormSubmission=False)
        self.clock = clock
        self.config = config
        self.entrance = entrance
        self.jobs = jobs
        self.bodies = Budget(config.body_budget)
        self.open: Crowd[Door] = Crowd()
        self.draining = False
        self._crowded_at = -CROWDED_SILENCE

    def buildProtocol(self, addr: IAddress | None) -> Door:  # type: ignore[override]
        """A client connected."""
        door = Door()
        door.factory = self
        self.open.add(door)
        return door

    def resource_for(self, way: Way) -> IResource:
        """What answers a request that goes ``way``."""
        return self.jobs if self.jobs is not None and is_of_jobs(way.path) else self.resource

    def drain(self) -> None:
        """Close the connections on which nothing happens; the others close after their answer."""
        self.draining = True
        for door in list(self.open):
            door.drain()

    def crowded(self) -> None:
        """Somebody was refused because too many are there; said once a minute."""
        now = self.clock.seconds()
        if now - self._crowded_at >= CROWDED_SILENCE:
            self._crowded_at = now
            self._log.warn("{count} connections are open: refusing more", count=len(self.open))

    def left(self, door: Door) -> None:
        """A client's connection is gone."""
        self.open.discard(door)

    def log(self, request: Any) -> None:
        """Nothing: the line for each request is written by the API, without path queries or addresses of browsers."""
