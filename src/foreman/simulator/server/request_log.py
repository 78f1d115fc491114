"""What the simulator records of the requests it received and the connections that closed."""

from __future__ import annotations

from typing import Literal

from attrs import define

from foreman.simulator.engine.faults import Fault
from foreman.simulator.server.exchange import Headers

Outcome = Literal["open", "answered", "left"]


@define(eq=False)
class LoggedRequest:
    """A request as it arrived, and its outcome.

    :ivar path: path and query, byte for byte as received; :ivar headers: in the order and spelling of the wire.
    :ivar body: empty for uploads, of which nothing is kept.
    :ivar received_at: when its head had arrived, on the simulator's clock; :ivar connection: the number of its connection.
    :ivar status: the status of the response, 0 until it is complete.
    :ivar outcome: ``left`` means that the client disconnected before the response was complete.
    :ivar ended_at: when the response was complete or the client left; :ivar fault: the fault that was injected, if any.
    """

    method: str
    path: str
    version: str
    headers: Headers
    received_at: float
    connection: int
    body: bytes = b""
    status: int = 0
    outcome: Outcome = "open"
    ended_at: float | None = None
    fault: Fault | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@define(eq=False)
class LostConnection:
    """A connection that has closed: when, and the request that was open then (``None`` if there was none)."""

    connection: int
    lost_at: float
    request: LoggedRequest | None
