"""What a simulator remembers of the requests it got and the connections it lost."""

from __future__ import annotations

from typing import Literal

from attrs import define

from foreman.simulator.engine.faults import Misbehaviour
from foreman.simulator.server.exchange import Headers

Outcome = Literal["open", "answered", "left"]


@define(eq=False)
class RequestLog:
    """A request as it arrived, and what became of it.

    :ivar path: path and query, byte for byte; :ivar headers: in the order and spelling of the wire.
    :ivar body: empty for uploads, of which nothing is kept.
    :ivar at: when its head had come, on the simulator's clock; :ivar connection: the number of its connection.
    :ivar status: what it was answered with, 0 until then.
    :ivar outcome: ``left`` means that the client's connection was gone before the answer was whole.
    :ivar over: when that was; :ivar misbehaviour: what went wrong with the answer by order.
    """

    method: str
    path: str
    version: str
    headers: Headers
    at: float
    connection: int
    body: bytes = b""
    status: int = 0
    outcome: Outcome = "open"
    over: float | None = None
    misbehaviour: Misbehaviour | None = None

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@define(eq=False)
class LostConnection:
    """A connection that has gone: when, and what it was asking (``None`` if nothing)."""

    connection: int
    at: float
    seen: RequestLog | None
