"""The SQL that reads: each function is one read within a reader's transaction, in the database's thread."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from attrs import evolve

from foreman.jobs.artifacts import ArtifactInfo, StoredArtifact
from foreman.jobs.job import STATES, Job, JobLane
from foreman.jobs.queries import Counts, Event, Filter
from foreman.protocol import model_names
from foreman.store.errors import ArtifactGone
from foreman.store.sqlite.statements.execution import next_id
from foreman.store.sqlite.statements.rows import JOB_COLUMNS, LEEWAY, Row, first_id, job_from, job_of

#: Farther back in the queue a job's position is not counted.
MAX_POSITION = 1000


def get_many(cursor: sqlite3.Cursor, ids: Sequence[str]) -> list[Job | None]:
    """The jobs in the order of ``ids``, with metadata, artifacts' names and position; None where there is none."""
    found = [job for id_ in ids if (job := job_of(cursor, id_)) is not None]
    jobs = {job.id: job for job in _with_details(cursor, found)}
    return [jobs.get(id_) for id_ in ids]


#: The index by which a list is read in its order; the other conditions are checked row by row.
_Index = Literal["metadata", "owner_model", "owner_state", "model_state", "state", "owner", "all"]
_FROM: Mapping[_Index, str] = {
    "metadata": "job_metadata INDEXED BY job_metadata_value CROSS JOIN jobs ON jobs.id = job_metadata.job_id "
    "WHERE job_metadata.key = :key AND job_metadata.value = :value AND job_metadata.job_id < :before",
    "owner_model": "jobs INDEXED BY jobs_owner_model WHERE owner = :owner AND model_key = :model AND id < :before",
    "owner_state": "jobs INDEXED BY jobs_owner_state WHERE owner = :owner AND state = :state AND id < :before",
    "model_state": "jobs INDEXED BY jobs_model_state WHERE model_key = :model AND state = :state AND id < :before",
    "state": "jobs INDEXED BY jobs_state WHERE state = :state AND id < :before",
    "owner": "jobs INDEXED BY jobs_owner WHERE owner = :owner AND id < :before",
    "all": "jobs WHERE id < :before",
}
_AFTER_ALL_IDS = "~"


def list_statements(which: Filter, before: str | None, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """The statements, with their parameters, whose rows together contain the page of a list."""
    values: dict[str, Any] = {"before": before or _AFTER_ALL_IDS, "limit": limit}
    conditions = []
    for number, (key, value) in enumerate(which.metadata.items()):
        values |= {f"key{number}": key, f"value{number}": value}
        conditions.append(
            f"EXISTS (SELECT 1 FROM job_metadata m WHERE m.job_id = jobs.id AND m.key = :key{number} "  # noqa: S608
            f"AND m.value = :value{number})"
        )
    if which.model is not None:
        values["model"] = model_names.canonical(which.model)
        conditions.append("jobs.model_key = :model")
    for name in ("endpoint", "lane", "owner"):
        if getattr(which, name) is not None:
            values[name] = getattr(which, name)
            conditions.append(f"jobs.{name} = :{name}")
    # An id begins with its time, so that ids bound the rows that are read; created_at decides.
    if which.created_after is not None:
        values |= {"after": which.created_after, "first": first_id(which.created_after - LEEWAY)}
        conditions.append("jobs.created_at >= :after AND jobs.id >= :first")
    if which.created_before is not None:
        values |= {"until": which.created_before}
        values["before"] = min(values["before"], first_id(which.created_before, leeway=True))
        conditions.append("jobs.created_at < :until")
    index = _index(which)
    if index in {"owner_state", "model_state", "state"}:
        states = which.states or STATES
        return [(_statement(index, conditions), {**values, "state": state}) for state in dict.fromkeys(states)]
    if which.metadata:
        values |= {"key": values["key0"], "value": values["value0"]}
    if which.states:
        by_name = {f"state{number}": state for number, state in enumerate(which.states)}
        values |= by_name
        conditions.append(f"jobs.state IN ({', '.join(f':{name}' for name in by_name)})")
    return [(_statement(index, conditions), values)]


def _index(which: Filter) -> _Index:
    if which.metadata:
        return "metadata"
    if which.owner is not None and which.model is not None:
        return "owner_model"
    if which.owner is not None:
        return "owner_state" if which.states else "owner"
    if which.model is not None:
        return "model_state"
    return "state" if which.states else "all"


def fingerprints(cursor: sqlite3.Cursor, owner: str, keys: Sequence[str]) -> dict[str, str]:
    """The fingerprints of the jobs of ``owner`` that have one of ``keys``, by key."""
    return dict(cursor.execute(FINGERPRINTS, (owner, json.dumps(keys))).fetchall())


FINGERPRINTS = (
    "SELECT idempotency_key, fingerprint FROM jobs INDEXED BY jobs_key WHERE owner = ? AND idempotency_key IS NOT NULL "
    "AND idempotency_key IN (SELECT value FROM json_each(?))"
)


def list_jobs(cursor: sqlite3.Cursor, which: Filter, before: str | None, limit: int) -> list[Job]:
    """Up to ``limit`` jobs that are older than the one with the id ``before``, newest first."""
    found = [
        map(job_from, cursor.execute(statement, values).fetchall())
        for statement, values in list_statements(which, before, limit)
    ]
    newest = list(heapq.merge(*found, key=lambda job: job.id, reverse=True))[:limit]
    return _with_details(cursor, newest)


def events(cursor: sqlite3.Cursor, id_: str, after: int, limit: int) -> list[Event]:
    """Up to ``limit`` events of a job, oldest first, after the event with the id ``after``."""
    rows = cursor.execute(EVENTS, (id_, after, limit)).fetchall()
    return [Event(*row) for row in rows]


EVENTS = (
    "SELECT id, at, type, attempt, error FROM events INDEXED BY events_job WHERE job_id = ? AND id > ? "
    "ORDER BY id LIMIT ?"
)


def get_artifact(cursor: sqlite3.Cursor, id_: str, name: str) -> StoredArtifact | None:
    """What is known of an artifact; None where it does not exist."""
    row = cursor.execute(ARTIFACT, (id_, name)).fetchone()
    return None if row is None else StoredArtifact(id_, ArtifactInfo(name, *row[:4]), row[4])


ARTIFACT = "SELECT type, bytes, sha256, created_at, fence FROM artifacts WHERE job_id = ? AND name = ?"
#: The row of an artifact's bytes, unless it has been replaced.
ARTIFACT_ROW = "SELECT rowid FROM artifacts WHERE job_id = ? AND name = ? AND sha256 = ? AND bytes = ?"


def read_artifact(cursor: sqlite3.Cursor, artifact: StoredArtifact, start: int, stop: int) -> bytes:
    """The bytes of an artifact from ``start`` up to, not including, ``stop``; no others are read.

    :raises ArtifactGone: when it has been deleted or replaced.
    """
    info = artifact.info
    row = cursor.execute(ARTIFACT_ROW, (artifact.job_id, info.name, info.sha256, info.bytes)).fetchone()
    if row is None:
        raise ArtifactGone(f"the artifact {info.name!r} was deleted or replaced while it was being read")
    with cursor.connection.blobopen("artifacts", "data", row[0], readonly=True) as blob:
        blob.seek(start)
        return blob.read(stop - start)


def load_clock(cursor: sqlite3.Cursor) -> tuple[int, int] | None:
    """The wall clock's time as last stored, in milliseconds, and for how many seconds it had run without being set."""
    row = cursor.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
    numbers = row[0].split() if row is not None else []
    if len(numbers) != 2 or not all(number.isdecimal() and len(number) < 19 for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def counts(cursor: sqlite3.Cursor) -> Counts:
    """How many jobs wait, and the jobs that run."""
    scheduled = cursor.execute("SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled'").fetchone()[0]
    (waiting,) = cursor.execute("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'waiting'").fetchone()
    running = cursor.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs INDEXED BY jobs_running WHERE state = 'running' ORDER BY id"  # noqa: S608
    ).fetchall()
    return Counts(scheduled, max(0, waiting - scheduled), tuple(map(job_from, running)))


def peek(
    cursor: sqlite3.Cursor,
    lane: JobLane,
    bonus_of: Callable[[str], int | None],
    installed: Callable[[], Iterable[str]] = tuple,
) -> Job | None:
    """The next job in ``lane``, without claiming it; the parameters as of ``execution.claim``."""
    id_ = next_id(cursor, lane, bonus_of, installed)
    return None if id_ is None else job_of(cursor, id_)


def oldest_run_at(cursor: sqlite3.Cursor, lane: JobLane) -> int | None:
    """When the first queued job of ``lane`` could first have run; None where none is queued."""
    row = cursor.execute(OLDEST_RUN_AT, (lane,)).fetchone()
    return None if row is None else int(row[0])


#: Of the first job in the queue, whatever its model.
OLDEST_RUN_AT = (
    "SELECT run_at FROM jobs INDEXED BY jobs_place WHERE state = 'queued' AND lane = ? ORDER BY sort_key, id LIMIT 1"
)
#: How many jobs are between two places in the queue, the first included, up to a limit.
BETWEEN = (
    "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_place WHERE state = 'queued' AND lane = ? "
    "AND (sort_key, id) >= (?, ?) AND (sort_key, id) < (?, ?) LIMIT ?)"
)


def _statement(index: _Index, conditions: Iterable[str]) -> str:
    where = " AND ".join((_FROM[index], *conditions))
    columns = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS.split(", "))
    order = "job_metadata.job_id" if index == "metadata" else "id"
    # Only names of columns and parameters are concatenated here.
    return f"SELECT {columns} FROM {where} ORDER BY {order} DESC LIMIT :limit"  # noqa: S608


def _with_details(cursor: sqlite3.Cursor, jobs: Sequence[Job]) -> list[Job]:
    """The jobs with their metadata, artifacts' names and positions."""
    ids = json.dumps([job.id for job in jobs])
    metadata: dict[str, dict[str, str]] = {}
    for id_, key, value in cursor.execute(
        "SELECT job_id, key, value FROM job_metadata WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY key",
        (ids,),
    ):
        metadata.setdefault(id_, {})[key] = value
    artifacts: dict[str, list[ArtifactInfo]] = {}
    for id_, *columns in cursor.execute(
        "SELECT job_id, name, type, bytes, sha256, created_at FROM artifacts "
        "WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY name",
        (ids,),
    ):
        artifacts.setdefault(id_, []).append(ArtifactInfo(*cast("Row", columns)))
    positions = _positions(cursor, jobs)
    return [
        evolve(
            job,
            metadata=metadata.get(job.id, {}),
            artifacts=tuple(artifacts.get(job.id, ())),
            position=positions.get(job.id),
        )
        for job in jobs
    ]


def _positions(cursor: sqlite3.Cursor, jobs: Sequence[Job]) -> dict[str, int]:
    """The positions of those that are queued, each among all of its lane, 1 is next; none beyond MAX_POSITION."""
    positions = {}
    for lane in {job.lane for job in jobs if job.state == "queued"}:
        # Counted from each to the next, so that what is before them all is counted once.
        before, previous = 0, _BEFORE_ALL
        for job in sorted((job for job in jobs if job.state == "queued" and job.lane == lane), key=_place):
            limit = MAX_POSITION + 1 - before
            before += cursor.execute(BETWEEN, (lane, *previous, *_place(job), limit)).fetchone()[0]
            if before > MAX_POSITION:
                break
            positions[job.id], previous = before + 1, _place(job)
    return positions


_BEFORE_ALL = (-(2**63), "")


def _place(job: Job) -> tuple[int, str]:
    return job.sort_key, job.id
