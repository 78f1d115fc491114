"""Jobs, artifacts and events as JSON; the members are in the order of docs/jobs.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field
from twisted.logger import Logger

from foreman import errors
from foreman.jobs.artifacts import ArtifactInfo
from foreman.jobs.job import Job, JobError
from foreman.jobs.queries import Event
from foreman.target.models import Availability
from foreman.util import timestamps
from foreman.web.jobs.wakeups import Wakeups

#: At most this many jobs are logged as impossible to show.
MAX_REPORTED = 1000


class Models(Protocol):
    """What is known of the models of the target: its inventory."""

    def find(self, typed: str) -> Availability:
        """Whether the target has a model, as far as is known."""

    async def look_for(self, typed: str) -> Availability:
        """Likewise; for a model that is missing, the target's lists are fetched again first."""

    def why_held(self, lane: str) -> str | None:
        """Why no job of a lane is run now; None where nothing holds jobs back."""


#: So many jobs are serialized at a time; then the reactor does other work.
BATCH_SIZE = 25


async def job_values(
    jobs: Sequence[Job], serialize: Callable[[Job], dict[str, Any]], wakeups: Wakeups
) -> list[dict[str, Any]]:
    """Serialize many jobs without blocking the reactor for long: each may have dozens of artifacts."""
    values: list[dict[str, Any]] = []
    for number, job in enumerate(jobs, 1):
        values.append(serialize(job))
        if number % BATCH_SIZE == 0:
            await wakeups.first_of(seconds=0)
    return values


def job_value(job: Job, models: Models) -> dict[str, Any]:
    """The JSON value of a job."""
    usage = job.usage
    return {
        "id": job.id,
        "state": job.state,
        "endpoint": job.endpoint,
        "model": job.model,
        "owner": job.owner,
        "priority": job.priority,
        "metadata": dict(job.metadata),
        "run_at": timestamps.format_ms(job.run_at),
        "deadline": timestamps.format_ms(job.deadline),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "idempotency_key": job.idempotency_key,
        "created_at": timestamps.format_ms(job.created_at),
        "started_at": timestamps.format_ms(job.started_at),
        "finished_at": timestamps.format_ms(job.finished_at),
        "position": job.position,
        "error": _error(job, models),
        "usage": None
        if usage is None
        else {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "load_ms": usage.load_ms,
            "total_ms": usage.total_ms,
        },
        "artifacts": [
            {"name": artifact.name, "type": artifact.type, "bytes": artifact.bytes} for artifact in job.artifacts
        ],
    }


@define(eq=False)
class ListSerializer:
    """Serializes the jobs of a list; a job that fails to serialize does not fail the list."""

    _models: Models
    _reported: set[str] = field(factory=set, init=False)
    _log = Logger()

    def value(self, job: Job) -> dict[str, Any]:
        """The JSON value of a job; only id and state of a job that fails to serialize, which is logged once."""
        try:
            return job_value(job, self._models)
        except Exception:  # noqa: BLE001 - whatever it is, the other jobs are shown
            if job.id not in self._reported and len(self._reported) < MAX_REPORTED:
                self._reported.add(job.id)
                self._log.failure("job {job} cannot be shown", job=job.id)
            return {
                "id": job.id,
                "state": job.state,
                "unreadable": "this job cannot be shown; the log of foreman has the error",
            }


def artifact_value(info: ArtifactInfo) -> dict[str, Any]:
    """The JSON value of an artifact, without its bytes."""
    return {
        "name": info.name,
        "type": info.type,
        "bytes": info.bytes,
        "sha256": info.sha256,
        "created_at": timestamps.format_ms(info.created_at),
    }


def event_value(event: Event) -> dict[str, Any]:
    """The JSON value of an event."""
    return {
        "id": event.id,
        "at": timestamps.format_ms(event.at),
        "type": event.type,
        "attempt": event.attempt,
        "error": event.error,
    }


def _error(job: Job, models: Models) -> dict[str, Any] | None:
    error = job.error
    if job.state == "queued":
        # Why the job waits now comes first, whatever the error of its last attempt was.
        hold_reason = models.why_held(job.lane)
        if hold_reason is not None:
            error = JobError("unreachable", hold_reason, job.attempt)
        elif error is None and _is_missing(job.model, models):
            error = JobError("model_missing", f"model '{job.model}' not found", job.attempt)
    return None if error is None else {"class": error.error_class, "message": error.message, "attempt": error.attempt}


def _is_missing(model: str, models: Models) -> bool:
    try:
        return models.find(model) is Availability.MISSING
    except errors.InvalidName:
        return False
