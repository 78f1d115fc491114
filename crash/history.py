"""What was sent, what was answered, what the target heard, and what stands in the file in the end: values, without judgement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import define, field, frozen

#: ``unknown``: the connection broke, so that it may have been done or not.
Outcome = Literal["acked", "refused", "unknown"]
#: As a job's state is seen that is not there (404).
GONE = "gone"


@frozen
class Enqueue:
    """One request that hands jobs over. Times are of the harness's monotonic clock, in seconds.

    :ivar prompts: of its jobs, each job's own; :ivar keys: of each, None for none; :ivar ids: as answered, if it was.
    """

    prompts: tuple[str, ...]
    keys: tuple[str | None, ...]
    began: float
    ended: float
    outcome: Outcome
    ids: tuple[str, ...] = ()


@frozen
class Observation:
    """A job as an answer showed it."""

    id: str
    state: str
    began: float
    ended: float


@frozen
class ObservedArtifact:
    """An artifact as it was downloaded, by its digest; None where it was not there."""

    id: str
    name: str
    sha256: str | None
    began: float
    ended: float


@frozen
class Change:
    """A job was to be cancelled, tried again or forgotten."""

    kind: Literal["cancel", "retry", "delete"]
    id: str
    began: float
    ended: float
    outcome: Outcome


@frozen
class Put:
    """An artifact of a caller's own was to be kept."""

    id: str
    name: str
    sha256: str
    began: float
    ended: float
    outcome: Outcome


@frozen
class Arrival:
    """A job came to the target. ``number`` stands in the answer; ``wall`` is milliseconds since the epoch."""

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
    """A row of the tries; times in milliseconds since the epoch."""

    fence: int
    started_at: int
    ended_at: int | None
    outcome: str | None
    error_class: str | None = None


@frozen
class Artifact:
    """What is kept with a job."""

    fence: int
    size: int
    sha256: str
    data: bytes


@frozen(kw_only=True)
class Row:
    """A job in the file, with all that belongs to it."""

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
    """What stands in the file: its jobs, what SQLite finds wrong with it, and how many it says wait."""

    rows: tuple[Row, ...]
    damage: tuple[str, ...] = ()
    waiting: int = 0


@define
class History:
    """All of it."""

    enqueues: list[Enqueue] = field(factory=list)
    observations: list[Observation] = field(factory=list)
    observed_artifacts: list[ObservedArtifact] = field(factory=list)
    changes: list[Change] = field(factory=list)
    puts: list[Put] = field(factory=list)
    arrivals: list[Arrival] = field(factory=list)
