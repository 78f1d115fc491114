"""The phases of a client's connection: how long each may last, and what happens when that time is over.

``python -m foreman.web.server.phases`` prints them as a table for the documentation.
"""

from __future__ import annotations

import sys
from enum import Enum

from attrs import frozen

from foreman.web.server import linger

#: How long a connection that does not count towards the limit may stay in a phase, in seconds, unless the phase has a
#: shorter limit.
UNCOUNTED_TIMEOUT = 2.0


class Phase(Enum):
    """What a connection is doing."""

    __hash__ = object.__hash__  # that of Enum is no C function, and each request looks phases up a dozen times

    NEW = "nothing of a request has arrived since the connection was accepted"
    IDLE = "a request was answered; nothing of the next one has arrived"
    HEAD = "the head of a request is arriving"
    BODY = "the request was admitted, and its body is arriving; a model file is answered meanwhile"
    RESPONDING = "the request is complete, and waits or is answered"
    REFUSING = "the request was refused or answered before it was complete; what still arrives is discarded"
    LINGERING = "that answer was written; what still arrives is discarded, so that the client can read the answer"
    CLOSING = "no more is read; the rest of the last answer is being sent"


#: Phases in which what arrives is read and dropped, and those in which no further request is read.
DROPPING = frozenset({Phase.REFUSING, Phase.LINGERING})
ENDING = DROPPING | {Phase.CLOSING}


class Place(Enum):
    """Whether a connection counts towards ``FOREMAN_MAX_CONNECTIONS``."""

    __hash__ = object.__hash__  # as of ``Phase``

    COUNTED = "counted"
    STANDBY = "beyond the limit"
    EVICTED = "closing, so that another connection has its place"


class Expiry(Enum):
    """What happens when a phase has lasted too long."""

    CLOSE = "the connection is closed"
    ABORT = "the connection is cut"
    REFUSE = "the request is refused: 408, on standby 503"
    CHECK_BODY = (
        "if too little has arrived, the request is refused: 408, or 502 if the target has read nothing; otherwise the limit "
        "starts over"
    )
    END_LINGER = f"the connection is closed, and cut if it is still open {linger.MAX_SILENCE:g} s later"


@frozen
class Limit:
    """How long a phase may last.

    :ivar seconds: a number, or the name of a setting that has it.
    """

    seconds: str | float
    then: Expiry
    note: str = ""


#: None: no limit of the connection. Whatever answers the request has limits of its own.
LIMITS: dict[Phase, Limit | None] = {
    Phase.NEW: Limit("head_timeout", Expiry.CLOSE),
    Phase.IDLE: Limit("idle_timeout", Expiry.CLOSE),
    Phase.HEAD: Limit("head_timeout", Expiry.REFUSE),
    Phase.BODY: Limit("body_timeout", Expiry.CHECK_BODY),
    Phase.RESPONDING: None,
    Phase.REFUSING: None,
    Phase.LINGERING: Limit(
        linger.MAX_SILENCE, Expiry.END_LINGER, f"since the last byte arrived, and {linger.MAX_DURATION:g} s in all"
    ),
    Phase.CLOSING: Limit("stall_timeout", Expiry.ABORT),
}


def table() -> str:
    """The phases and their limits as a Markdown table."""
    rows = ["| phase | what | at most | then |", "|---|---|---|---|"]
    for phase, limit in LIMITS.items():
        at_most, then = "–", "–"
        if limit is not None:
            name = limit.seconds
            at_most = f"`FOREMAN_{name.upper()}`" if isinstance(name, str) else f"{name:g} s"
            at_most += f" {limit.note}" if limit.note else ""
            then = limit.then.value
        rows.append(f"| {phase.name} | {phase.value} | {at_most} | {then} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
