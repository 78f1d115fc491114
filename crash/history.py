"""The values of a history: requests, responses, arrivals at the target, and the final state of the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import define, field, frozen

#: ``unknown``: the connection broke, so that the request may have been executed or not.
Outcome = Literal["acked", "refused", "unknown"]
#: The state recorded for a job that does not exist (404).
GONE = "gone"


@frozen
class Enqueue:
    """One request that submits jobs. Times are of the test's monotonic clock, in seconds.

    :ivar prompts: of its jobs, each unique; :ivar keys: the idempotency keys, None for none; :ivar ids: from the response.
    """

    prompts: tuple[str, ...]
    keys: tuple[str | None, ...]
    began: float
    ended: float
    outcome: Outcome
    ids: tuple[str, ...] = ()


@frozen
class Observation:
    """A job as a response showed it."""

    id: str
    state: str
    began: float
    ended: float


@frozen
class ObservedArtifact:
    """An artifact as it was downloaded, by its digest; None when it did not exist."""

    id: str
    name: str
    sha256: str | None
    began: float
    ended: float


@frozen
class Change:
    """A request to cancel, retry or delete a job."""

    kind: Literal["cancel", "retry", "delete"]
    id: str
    began: float
    ended: float
    outcome: Outcome


@frozen
class Put:
    """A request to store an artifact of the client's own."""

    id: str
    name: str
    sha256: str
    began: float
    ended: float
    outcome: Outcome


@frozen
class Arrival:
    """A job reached the target. ``number`` is part of the answer; ``wall`` is in milliseconds since the epoch."""

    prompt: str
    number: int
    at: float
    wall: int


@frozen
class Event:
    """A row of the event log."""

    type: str
    fence: int


@frozen
class Attempt:
    """A row of the attempts; times in milliseconds since the epoch."""

    fence: int
    started_at: int
    ended_at: int | None
    outcome: str | None
    error_class: str | None = None


@frozen
class Artifact:
    """An artifact of a job."""

    fence: int
    size: int
    sha256: str
    data: bytes


@frozen(kw_only=True)
class Row:
    """A job in the database, with all that belongs to it."""

    id: str
    state: str
    endpoint: str
    prompt: str
    key: str | None = None
    owner: str = ""
    attempt: int = 0
    rescues: int = 0
    fence: int = 0
    boot: str | None = None
    finished: bool = False
    error_class: str | None = None
    events: tuple[Event, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    artifacts: Mapping[str, Artifact] = {}
    pieces: int = 0


@frozen
class FinalState:
    """The content of the database: its jobs, the errors that SQLite reports, and its counter of waiting jobs."""

    rows: tuple[Row, ...]
    damage: tuple[str, ...] = ()
    waiting: int = 0


@define
class History:
    """Everything that was recorded."""

    enqueues: list[Enqueue] = field(factory=list)
    observations: list[Observation] = field(factory=list)
    observed_artifacts: list[ObservedArtifact] = field(factory=list)
    changes: list[Change] = field(factory=list)
    puts: list[Put] = field(factory=list)
    arrivals: list[Arrival] = field(factory=list)
