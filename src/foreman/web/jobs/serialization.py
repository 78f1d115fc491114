"""A job and what belongs to it, as JSON; the order of the members is that of docs/jobs.md."""

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

#: Of so many jobs the log tells that they cannot be shown.
MAX_REPORTED = 1000


class Models(Protocol):
    """What is known of the target's models."""

    def find(self, typed: str) -> Availability:
        """What is known of a model."""

    async def look_for(self, typed: str) -> Availability:
        """Likewise; one that is missing is looked for once more at the target."""

    def why_held(self, lane: str) -> str | None:
        """Why no job of a lane is taken now, None where nothing keeps it."""


#: So many jobs are put into words at once; then others get their turn.
AT_ONCE = 25


async def job_values(
    jobs: Sequence[Job], show: Callable[[Job], dict[str, Any]], wakeups: Wakeups
) -> list[dict[str, Any]]:
    """Many jobs, without keeping the reactor for long: each may have dozens of artifacts."""
    values: list[dict[str, Any]] = []
    for number, job in enumerate(jobs, 1):
        values.append(show(job))
        if number % AT_ONCE == 0:
            await wakeups.first_of(seconds=0)
    return values


def job_value(job: Job, models: Models) -> dict[str, Any]:
    """A job."""
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
        "artifacts": [{"name": one.name, "type": one.type, "bytes": one.bytes} for one in job.artifacts],
    }


@define(eq=False)
class Listed:
    """Shows jobs in lists, each by itself: one that cannot be shown takes none of the others with it."""

    _models: Models
    _reported: set[str] = field(factory=set, init=False)
    _log = Logger()

    def value(self, job: Job) -> dict[str, Any]:
        """A job; of one that cannot be shown only which it is. The log tells of it once."""
        try:
            return job_value(job, self._models)
        except Exception:  # noqa: BLE001 - whatever it is, the others are shown
            if job.id not in self._reported and len(self._reported) < MAX_REPORTED:
                self._reported.add(job.id)
                self._log.failure("job {job} cannot be shown", job=job.id)
            return {"id": job.id, "state": job.state, "unreadable": "it cannot be shown; the log of foreman says why"}


def artifact_value(info: ArtifactInfo) -> dict[str, Any]:
    """What is known of an artifact."""
    return {
        "name": info.name,
        "type": info.type,
        "bytes": info.bytes,
        "sha256": info.sha256,
        "created_at": timestamps.format_ms(info.created_at),
    }


def event_value(event: Event) -> dict[str, Any]:
    """Something that happened to a job."""
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
        # What no try has said yet, and what keeps it waiting now, whatever its last try came to.
        held = models.why_held(job.lane)
        if held is not None:
            error = JobError("unreachable", held, job.attempt)
        elif error is None and _is_missing(job.model, models):
            error = JobError("model_missing", f"model '{job.model}' not found", job.attempt)
    return None if error is None else {"class": error.error_class, "message": error.message, "attempt": error.attempt}


def _is_missing(model: str, models: Models) -> bool:
    try:
        return models.find(model) is Availability.MISSING
    except errors.InvalidName:
        return False
