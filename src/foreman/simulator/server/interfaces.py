"""What a connection and the simulator behind it ask of each other."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from foreman.simulator.server.exchange import Exchange
from foreman.simulator.server.plain_wire import Line


class Taker(Protocol):
    """Whoever wants the body of a request."""

    def take(self, data: bytes) -> None:
        """A part of it has come."""

    def taken(self) -> None:
        """It is whole: the answer may begin, if it has not."""


class Client(Line, Protocol):
    """A connection.

    :ivar number: which one it is, counted from 1.
    """

    number: int


class Site(Protocol):
    """What a connection asks of the simulator."""

    clock: IReactorTime

    def date(self) -> str:
        """The time for the ``Date`` header."""

    def opened(self, connection: Client, exchange: Exchange) -> Taker | None:
        """A request's head has come. Whoever is returned gets the body; ``None`` if nobody wants it."""

    def answer(self, exchange: Exchange) -> None:
        """Answer a request whose body nobody wanted."""

    def connected(self, connection: Client) -> None:
        """Somebody has connected."""

    def lost(self, connection: Client, exchange: Exchange | None) -> None:
        """A connection is gone, perhaps in the middle of an exchange."""
