"""Whether the target answers: not known yet, well, or degraded."""

from __future__ import annotations

from attrs import frozen

from foreman import errors
from foreman.util.clock import Monotonic

#: Reasons to be degraded although something answers at the target's address: not as Ollama does when it is well.
ANSWERS_WRONGLY: frozenset[errors.FailureReason] = frozenset({"garbage", "status"})


@frozen
class Unknown:
    """The target has neither answered nor failed yet."""


@frozen
class Well:
    """The target answers."""


@frozen
class Degraded:
    """The target does not answer as Ollama does.

    :ivar reason: one word of ``errors.FailureReason``; :ivar detail: a sentence; :ivar since: when that began;
    :ivar status: the HTTP status of its answer, None where it gave none.
    """

    reason: errors.FailureReason
    detail: str
    since: Monotonic
    status: int | None = None


TargetState = Unknown | Well | Degraded
