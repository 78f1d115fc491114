"""Between rows of the database and the values of ``job.py``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from attrs import fields
from ulid import ULID

from foreman.jobs.job import ArtifactInfo, Job, JobError, Usage

Row = Sequence[Any]

#: The columns that a Job is read from, in the order of ``job_from``.
JOB_COLUMNS = (
    "id, state, endpoint, lane, family, model, owner, priority, sort_key, run_at, deadline, attempt, max_attempts, "
    "outages, rescues, fence, boot, cancel_asked_at, idempotency_key, error_class, error_message, error_attempt, usage, "
    "created_at, started_at, finished_at"
)

#: By how much an id may be ahead of its job, since ids go on where the clock is set back; milliseconds.
LEEWAY = 86_400_000
_USAGE_FIELDS = tuple(one.name for one in fields(Usage))


def first_id(moment: int, *, leeway: bool = False) -> str:
    """What the ids of jobs made at ``moment`` (milliseconds since the epoch) begin with, or somewhat later ones."""
    return str(ULID.from_timestamp(max(0, moment + LEEWAY * leeway) / 1000))[:10]


def job_from(row: Row, metadata: Mapping[str, str] | None = None, artifacts: Sequence[ArtifactInfo] = ()) -> Job:
    """The job of a row of JOB_COLUMNS, without its position."""
    (
        id_, state, endpoint, lane, family, model, owner, priority, sort_key, run_at, deadline, attempt, max_attempts,
        outages, rescues, fence, boot, cancel_asked_at, idempotency_key, error_class, error_message, error_attempt, usage,
        created_at, started_at, finished_at,
    ) = row  # fmt: skip
    return Job(
        id=id_,
        state=state,
        endpoint=endpoint,
        lane=lane,
        family=family,
        model=model,
        owner=owner,
        priority=priority,
        sort_key=sort_key,
        run_at=run_at,
        deadline=deadline,
        attempt=attempt,
        max_attempts=max_attempts,
        outages=outages,
        rescues=rescues,
        fence=fence,
        boot=boot,
        cancel_asked_at=cancel_asked_at,
        idempotency_key=idempotency_key,
        error=None if error_class is None else JobError(error_class, error_message, error_attempt),
        usage=usage_from(usage),
        created_at=created_at,
        started_at=started_at,
        finished_at=finished_at,
        metadata=metadata or {},
        artifacts=tuple(artifacts),
    )


#: The groups of the jobs whose models run in the cloud, and of those whose model's name cannot be read.
CLOUD_GROUP, UNREADABLE_GROUP = ":cloud", "?"


def group_key_of(model_key: str) -> str:
    """The group in which a claim looks for the jobs of a model; ``model_key`` as of ``names.canonical``."""
    if model_key.endswith(CLOUD_GROUP):
        return CLOUD_GROUP
    return UNREADABLE_GROUP if model_key.startswith(UNREADABLE_GROUP) else model_key


def usage_from(text: str | None) -> Usage | None:
    """A usage as it was kept; what cannot be read of it, or is a newer foreman's, is left out."""
    if text is None:
        return None
    try:
        kept = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(kept, dict):
        return None
    return Usage(**{name: kept[name] for name in _USAGE_FIELDS if type(kept.get(name)) is int})


def usage_text(usage: Usage | None) -> str | None:
    """A usage as it is kept."""
    if usage is None:
        return None
    return msgspec.json.encode({name: getattr(usage, name) for name in _USAGE_FIELDS}).decode()


def job_of(cursor: sqlite3.Cursor, id_: str) -> Job | None:
    """The job ``id_`` as its row has it, without metadata, artifacts and position."""
    row = cursor.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", (id_,)).fetchone()  # noqa: S608 - a constant
    return None if row is None else job_from(cast("Row", row))
