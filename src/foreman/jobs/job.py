"""A job as a value: as submitted, as stored, and as claimed; its states and what may follow each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import frozen

from foreman.jobs.artifacts import ArtifactInfo
from foreman.protocol.endpoints import Family

State = Literal["scheduled", "queued", "running", "succeeded", "failed", "cancelled", "discarded"]
JobLane = Literal["gate", "embedding"]

STATES: tuple[State, ...] = get_args(State)
ACTIVE: tuple[State, ...] = ("scheduled", "queued", "running")
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled", "discarded")

#: Which states may follow each state. The database enforces it too.
FOLLOWS: Mapping[State, frozenset[State]] = {
    "scheduled": frozenset({"queued", "cancelled", "discarded"}),
    "queued": frozenset({"running", "cancelled", "discarded"}),
    "running": frozenset({"queued", "scheduled", "succeeded", "failed", "cancelled", "discarded"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
    "discarded": frozenset({"queued"}),
}

PRIORITIES = range(10)
#: How much earlier one step of priority puts a job in the queue, in milliseconds.
PRIORITY_STEP = 60_000


ErrorClass = Literal[
    "unreachable", "busy", "model_missing", "unauthorized", "refused", "target_error", "truncated", "silent",
    "too_large", "expired", "lost",
]  # fmt: skip


@frozen
class JobError:
    """Why a job's last attempt failed, or why the job has to wait; ``attempt`` is that attempt's number."""

    error_class: ErrorClass
    message: str
    attempt: int


@frozen
class Usage:
    """What the target reported about an answer; None where it reported nothing.

    :ivar prompt_tokens: of the whole prompt; :ivar cached_tokens: how many of those came from the engine's cache.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    load_ms: int | None = None
    total_ms: int | None = None
    cached_tokens: int | None = None


@frozen(kw_only=True)
class NewJob:
    """A job as it is submitted. Times in milliseconds since the epoch.

    :ivar model: as the caller spelled it; :ivar run_at: None for now; :ivar payload: the body as it goes to the target,
        with its ``content_type`` and ``content_encoding``; :ivar headers: the request's headers that the target gets;
    :ivar stream: whether the payload asks for a stream, its route's default applied;
    :ivar fingerprint: of the whole request; tells a repetition from another request with the same key.
    """

    endpoint: str
    lane: JobLane
    family: Family
    model: str
    owner: str
    payload: bytes
    stream: bool
    fingerprint: str
    content_type: str = "application/json"
    content_encoding: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    priority: int = 5
    run_at: int | None = None
    deadline: int | None = None
    max_attempts: int = 5
    metadata: Mapping[str, str] = {}
    idempotency_key: str | None = None


@frozen(kw_only=True)
class Job:
    """A job as it is in the store. Times in milliseconds since the epoch.

    :ivar attempt: attempts that count; :ivar uncounted_tries: attempts in a row that do not count, without those that
        did not reach the target; :ivar rescues: how often foreman died while the job ran;
    :ivar fence: grows with each claim and each rescue, so that a writer with an older one is rejected;
    :ivar instance: the foreman that has claimed it, while it runs; :ivar cancel_asked_at: when somebody asked to cancel
        it while it ran; :ivar position: its place in the queue of its lane, 1 is next; None where it is not known.
    """

    id: str
    state: State
    endpoint: str
    lane: JobLane
    family: Family
    model: str
    owner: str
    priority: int
    sort_key: int
    run_at: int
    deadline: int | None
    attempt: int
    max_attempts: int
    uncounted_tries: int
    rescues: int
    fence: int
    instance: str | None
    cancel_asked_at: int | None
    idempotency_key: str | None
    error: JobError | None
    usage: Usage | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    metadata: Mapping[str, str] = {}
    artifacts: tuple[ArtifactInfo, ...] = ()
    position: int | None = None

    @property
    def ended(self) -> bool:
        """Whether it is in a final state, which only a retry by a user leaves."""
        return self.state in ENDED


@frozen
class EnqueueResult:
    """The stored job that a ``NewJob`` became.

    :ivar replayed: whether the job was there already, from an earlier request with the same idempotency key;
    :ivar job: with its metadata; without artifacts and position.
    """

    id: str
    replayed: bool
    job: Job


@frozen
class Claim:
    """A job that this foreman has claimed in order to run it.

    :ivar job: as it is now, running; the other fields are its request.
    """

    job: Job
    payload: bytes
    content_type: str
    content_encoding: str | None
    headers: tuple[tuple[str, str], ...]
    stream: bool


def sort_key(run_at: int, priority: int) -> int:
    """A job's rank in the queue, lowest first: when it could first have run, plus a minute for each step of priority."""
    return run_at + priority * PRIORITY_STEP
