"""What a connection and the simulator behind it need of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from foreman.simulator.server.exchange import Exchange


class BodyReceiver(Protocol):
    """Gets the body of a request."""

    def receive(self, data: bytes) -> None:
        """A part of the body has arrived."""

    def complete(self) -> None:
        """The whole body has arrived: the response may begin, if it has not begun yet."""


class ClientConnection(Protocol):
    """A client's connection, over which responses are sent.

    :ivar number: which connection it is, counted from 1.
    """

    number: int
    transport: Any
    clock: IReactorTime

    def response_streaming(self, exchange: Exchange) -> None:
        """A response of unknown length begins."""

    def response_finished(self, exchange: Exchange) -> None:
        """A response is complete."""

    def call_later(self, delay: float, do: Callable[..., object], *args: object) -> None:
        """Call ``do`` after ``delay`` seconds, unless the client has disconnected by then."""

    def abort(self) -> None:
        """Reset the connection (RST)."""


class Application(Protocol):
    """What a connection calls in the simulator."""

    clock: IReactorTime

    def date(self) -> str:
        """The value of the ``Date`` header."""

    def request_started(self, connection: ClientConnection, exchange: Exchange) -> BodyReceiver | None:
        """The head of a request has arrived. Returns what receives the body, or ``None`` if nothing needs it."""

    def answer(self, exchange: Exchange) -> None:
        """Respond to a request whose body nothing needed."""

    def connection_made(self, connection: ClientConnection) -> None:
        """A client has connected."""

    def connection_lost(self, connection: ClientConnection, exchange: Exchange | None) -> None:
        """A connection is gone, perhaps in the middle of an exchange."""
