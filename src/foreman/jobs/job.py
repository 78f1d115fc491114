"""A job: its states, what may follow what, and what becomes of it when a try fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import frozen

from foreman.protocol.endpoints import Family

State = Literal["scheduled", "queued", "running", "succeeded", "failed", "cancelled", "discarded"]
JobLane = Literal["gate", "embedding"]

STATES: tuple[State, ...] = get_args(State)
ACTIVE: tuple[State, ...] = ("scheduled", "queued", "running")
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled", "discarded")

#: What may follow each state. The store's own triggers hold it to this too.
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
#: What one step of priority is worth in waiting, in milliseconds.
PRIORITY_STEP = 60_000
#: How often a job is run again that was running when foreman died.
MAX_RESCUES = 3
#: How often in a row the target may break off before it answers without the job being counted as tried.
MAX_BREAKS = 3
#: Between tries, in seconds; the last of them from then on.
BACKOFF = (10.0, 30.0, 90.0, 270.0)
#: The longest pause that is kept, whoever asks for it, in seconds.
LONGEST_PAUSE = 3600.0

#: Names of artifacts that foreman gives.
RESPONSE, STREAM, ERROR, PARTIAL = "response", "stream", "error", "partial"
#: The type of lines of JSON.
LINES = "application/x-ndjson"
OWN_ARTIFACTS = frozenset({RESPONSE, STREAM, ERROR, PARTIAL})

ErrorClass = Literal[
    "unreachable", "busy", "model_missing", "unauthorized", "refused", "target_error", "truncated", "silent",
    "too_large", "expired", "lost",
]  # fmt: skip

#: What burns no attempt, since the job is not to blame.
_BLAMELESS: frozenset[ErrorClass] = frozenset({"unreachable", "busy", "model_missing", "unauthorized"})
#: What trying again would not change.
_FINAL: frozenset[ErrorClass] = frozenset({"refused", "too_large"})


@frozen
class JobError:
    """What went wrong in a job's last try, or keeps it waiting."""

    error_class: ErrorClass
    message: str
    attempt: int


@frozen
class Usage:
    """What the target said an answer cost; None where it did not.

    :ivar prompt_tokens: of the whole prompt; :ivar cached_tokens: how many of those came from the engine's cache.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    load_ms: int | None = None
    total_ms: int | None = None
    cached_tokens: int | None = None


@frozen
class ArtifactInfo:
    """What is known of an artifact without its bytes; ``created_at`` in milliseconds since the epoch."""

    name: str
    type: str
    bytes: int
    sha256: str
    created_at: int


@frozen(kw_only=True)
class NewJob:
    """A job as it is handed over. Times in milliseconds since the epoch.

    :ivar model: as typed; :ivar run_at: None for now; :ivar payload: the body as it goes to the target, with its
        ``content_type`` and ``content_encoding``; :ivar headers: those of its request that matter to the target;
    :ivar stream: whether the payload asks for a stream, its route's default applied;
    :ivar fingerprint: of all that was asked, to tell a repetition from another request with the same key.
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
    """A job as it stands in the store. Times in milliseconds since the epoch.

    :ivar attempt: tries that count; :ivar outages: tries in a row that did not, less those while the
        target was away; :ivar rescues: how often
        foreman died while it ran; :ivar fence: grows with each claim and each rescue, so that who holds an older one
        cannot write; :ivar boot: whose claim it is, while it runs; :ivar cancel_asked_at: when its end was asked for.
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
    outages: int
    rescues: int
    fence: int
    boot: str | None
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
        """Whether nothing more happens by itself."""
        return self.state in ENDED


@frozen
class AttemptError:
    """A try that did not succeed.

    :ivar retry_after: what the target asked for, in seconds; :ivar reached: whether the target had taken the request,
        so that the job may be what made it break off.
    """

    error_class: ErrorClass
    message: str
    retry_after: float | None = None
    reached: bool = False


@frozen
class Transition:
    """What becomes of a running job.

    :ivar run_at: when it tries again, milliseconds since the epoch, None to leave it; :ivar burned: whether the try
        counts; :ivar outages: how many in a row did not count; :ivar error: what to show, None for nothing.
    """

    state: State
    run_at: int | None
    burned: bool
    outages: int
    error: JobError | None


def sort_key(run_at: int, priority: int) -> int:
    """Where a job stands among others, the least first: when it could first have run, and a minute for each step."""
    return run_at + priority * PRIORITY_STEP


def after(job: Job, mishap: AttemptError, now: int, jitter: float) -> Transition:
    """What becomes of ``job``, which runs, after ``mishap``.

    :param now: milliseconds since the epoch; :param jitter: from 0 to 1, so that many do not come back at once.
    """
    unreachable = mishap.error_class == "unreachable"
    away = unreachable and not mishap.reached
    broke_off_again = unreachable and mishap.reached and job.outages >= MAX_BREAKS
    blameless = mishap.error_class in _BLAMELESS and not broke_off_again
    # While the target is away nothing is learned of the job: its breaks are neither more nor forgotten.
    outages = 0 if not blameless else job.outages if away else job.outages + 1
    # A try that counts was counted when it was claimed.
    error = JobError(mishap.error_class, mishap.message, job.attempt)
    if job.cancel_asked_at is not None:
        return Transition("cancelled", None, not blameless, 0, None)
    if mishap.error_class in _FINAL:
        return Transition("failed", None, burned=True, outages=0, error=error)
    if mishap.error_class == "expired":
        return Transition("discarded", None, burned=True, outages=0, error=error)
    if not blameless and job.attempt >= job.max_attempts:
        return Transition("discarded", None, burned=True, outages=0, error=error)
    # The worker takes nothing while the target is away, so that the job need not wait for longer than that.
    wait = 0.0 if away else pause(outages if blameless else job.attempt, mishap.retry_after, jitter)
    run_at = now + round(1000 * wait)
    if job.deadline is not None and run_at >= job.deadline:
        late = JobError("expired", f"its deadline comes before another try; the last: {mishap.message}", job.attempt)
        return Transition("discarded", None, not blameless, outages, late)
    if away:
        return Transition("queued", None, burned=False, outages=outages, error=error)
    return Transition("scheduled", run_at, not blameless, outages, error)


def pause(times: int, asked: float | None, jitter: float) -> float:
    """How long to wait before another try, in seconds: a half for certain and a half by chance.

    :param times: tries so far, 1 or more; :param asked: what the target asked for, which wins.
    """
    if asked is not None:
        return min(LONGEST_PAUSE, max(1.0, asked))  # in this order also what is no number is one
    whole = BACKOFF[min(max(times, 1), len(BACKOFF)) - 1]
    return whole / 2 + whole / 2 * jitter


def rescued(job: Job) -> Transition:
    """What becomes of a job that was running when foreman died."""
    if job.cancel_asked_at is not None:
        return Transition("cancelled", None, burned=False, outages=0, error=None)
    error = JobError("lost", "foreman ended without a word while this ran", job.attempt)
    if job.rescues >= MAX_RESCUES:
        return Transition("discarded", None, burned=False, outages=0, error=error)
    return Transition("queued", None, burned=False, outages=0, error=error)
