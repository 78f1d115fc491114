"""Conversion between rows of the database and the values of ``foreman.jobs``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from attrs import fields
from ulid import ULID

from foreman.jobs.artifacts import ArtifactInfo
from foreman.jobs.job import Job, JobError, Usage

Row = Sequence[Any]

#: The columns that a Job is made of, in the order of ``job_from``. ``outages`` is ``uncounted_tries``, ``boot`` ``instance``.
JOB_COLUMNS = (
    "id, state, endpoint, lane, family, model, owner, priority, sort_key, run_at, deadline, attempt, max_attempts, "
    "outages, rescues, fence, boot, cancel_asked_at, idempotency_key, error_class, error_message, error_attempt, usage, "
    "created_at, started_at, finished_at"
)

#: By how much an id may be ahead of its job's creation, in milliseconds: ids keep growing when the clock is set back.
LEEWAY = 86_400_000
_USAGE_FIELDS = tuple(attribute.name for attribute in fields(Usage))


def first_id(moment: int, *, leeway: bool = False) -> str:
    """The prefix of the ids of jobs created at ``moment``, milliseconds since the epoch, or LEEWAY later."""
    return str(ULID.from_timestamp(max(0, moment + LEEWAY * leeway) / 1000))[:10]


def job_from(row: Row, metadata: Mapping[str, str] | None = None, artifacts: Sequence[ArtifactInfo] = ()) -> Job:
    """The job in a row of JOB_COLUMNS, without its position."""
    (
        id_, state, endpoint, lane, family, model, owner, priority, sort_key, run_at, deadline, attempt, max_attempts,
        uncounted_tries, rescues, fence, instance, cancel_asked_at, idempotency_key, error_class, error_message, error_attempt, usage,
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
        uncounted_tries=uncounted_tries,
        rescues=rescues,
        fence=fence,
        instance=instance,
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


#: The groups of the jobs whose models run in the cloud, and of those whose model name cannot be parsed.
CLOUD_GROUP, UNREADABLE_GROUP = ":cloud", "?"


def group_key_of(model_key: str) -> str:
    """The group in which a claim looks for the jobs of a model; ``model_key`` as from ``model_names.canonical``."""
    if model_key.endswith(CLOUD_GROUP):
        return CLOUD_GROUP
    return UNREADABLE_GROUP if model_key.startswith(UNREADABLE_GROUP) else model_key


def usage_from(text: str | None) -> Usage | None:
    """A usage as stored; members that are unknown or not integers are left out."""
    if text is None:
        return None
    try:
        stored = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(stored, dict):
        return None
    return Usage(**{name: stored[name] for name in _USAGE_FIELDS if type(stored.get(name)) is int})


def usage_text(usage: Usage | None) -> str | None:
    """A usage as it is stored."""
    if usage is None:
        return None
    return msgspec.json.encode({name: getattr(usage, name) for name in _USAGE_FIELDS}).decode()


def job_of(cursor: sqlite3.Cursor, id_: str) -> Job | None:
    """The job ``id_`` as its row has it, without metadata, artifacts and position."""
    row = cursor.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", (id_,)).fetchone()  # noqa: S608 - a constant
    return None if row is None else job_from(cast("Row", row))
