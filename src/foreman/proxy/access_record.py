"""The record of one request: its times and its outcome; observers get it when the request has ended."""

from __future__ import annotations

from typing import Literal

from attrs import define

from foreman import errors
from foreman.util.clock import Monotonic

#: How a request ended, in the words of the access log.
Outcome = Literal["complete", "incomplete", "client left", "target failed", "cancelled", "stopped", "refused"]


def outcome_of(problem: errors.ForemanError) -> Outcome:
    """The outcome of a request that ``problem`` has ended."""
    if isinstance(problem, errors.ReaderStalled):
        return "client left"
    if isinstance(problem, errors.TargetError):
        return "target failed"
    if isinstance(problem, errors.Cancelled | errors.Revoked):
        return "cancelled"
    return "stopped" if isinstance(problem, errors.Draining) else "refused"


@define(eq=False, weakref_slot=False)
class RequestRecord:
    """What happened to one request, filled in while it happens. Times in seconds of the reactor's clock; nothing of its
    content.

    :ivar started_at: when its head was whole, of a job when the attempt began; :ivar turn_at: when it got its turn;
    :ivar head_at: when the target's headers came; :ivar first_byte_at: of the body; :ivar eval_seconds: how long the target
        says it took for the tokens out; :ivar is_early_refusal: refused before any work was done for it.
    """

    id: str
    caller: str
    route: str
    lane: str
    started_at: float
    model: str | None = None
    status: int = 0
    outcome: Outcome = "complete"
    detail: str = ""
    turn_at: Monotonic | None = None
    head_at: Monotonic | None = None
    first_byte_at: Monotonic | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    eval_seconds: float | None = None
    is_early_refusal: bool = False
