"""What is asked of the database: each function is one look within a reader's transaction, in the database's thread."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from attrs import evolve, frozen

from foreman.jobs.job import STATES, ArtifactInfo, Job, JobLane, State
from foreman.protocol import model_names
from foreman.store.sqlite.statements.execution import head
from foreman.store.sqlite.statements.rows import JOB_COLUMNS, LEEWAY, Row, first_id, job_from, job_of

#: Farther back in the queue nobody is told a place.
FARTHEST = 1000


@frozen(kw_only=True)
class Filter:
    """Which jobs are listed; None and nothing for all.

    :ivar created_after, created_before: milliseconds since the epoch, the first included, the second not.
    """

    states: tuple[State, ...] = ()
    model: str | None = None
    endpoint: str | None = None
    lane: JobLane | None = None
    owner: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    metadata: Mapping[str, str] = {}


@frozen
class Event:
    """Something that happened to a job. ``at`` in milliseconds since the epoch; ``attempt`` is the number of the try."""

    id: int
    at: int
    type: str
    attempt: int
    error: str | None


@frozen
class Counts:
    """How many jobs there are of each state that has not ended, and which run."""

    scheduled: int
    queued: int
    running: tuple[Job, ...]


def jobs_whole(cursor: sqlite3.Cursor, ids: Sequence[str]) -> list[Job | None]:
    """The jobs in the order of ``ids``, with all that belongs to them but their blobs; None for each that is not there."""
    found = [job for id_ in ids if (job := job_of(cursor, id_)) is not None]
    whole = {job.id: job for job in _filled(cursor, found)}
    return [whole.get(id_) for id_ in ids]


#: By what a list is read in its order; the rest of what is asked is looked at row by row.
_Chosen = Literal["metadata", "owner_model", "owner_state", "model_state", "state", "owner", "all"]
_FROM: Mapping[_Chosen, str] = {
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


def page_statements(wanted: Filter, before: str | None, limit: int) -> list[tuple[str, dict[str, Any]]]:
    """The statements, with their parameters, whose rows together hold the page."""
    values: dict[str, Any] = {"before": before or _AFTER_ALL_IDS, "limit": limit}
    more = []
    for number, (key, value) in enumerate(wanted.metadata.items()):
        values |= {f"key{number}": key, f"value{number}": value}
        more.append(
            f"EXISTS (SELECT 1 FROM job_metadata m WHERE m.job_id = jobs.id AND m.key = :key{number} "  # noqa: S608
            f"AND m.value = :value{number})"
        )
    if wanted.model is not None:
        values["model"] = model_names.canonical(wanted.model)
        more.append("jobs.model_key = :model")
    for name in ("endpoint", "lane", "owner"):
        if getattr(wanted, name) is not None:
            values[name] = getattr(wanted, name)
            more.append(f"jobs.{name} = :{name}")
    # An id begins with its time, so that ids bound what is looked at; created_at decides.
    if wanted.created_after is not None:
        values |= {"after": wanted.created_after, "first": first_id(wanted.created_after - LEEWAY)}
        more.append("jobs.created_at >= :after AND jobs.id >= :first")
    if wanted.created_before is not None:
        values |= {"until": wanted.created_before}
        values["before"] = min(values["before"], first_id(wanted.created_before, leeway=True))
        more.append("jobs.created_at < :until")
    chosen = _chosen(wanted)
    if chosen in {"owner_state", "model_state", "state"}:
        states = wanted.states or STATES
        return [(_statement(chosen, more), {**values, "state": state}) for state in dict.fromkeys(states)]
    if wanted.metadata:
        values |= {"key": values["key0"], "value": values["value0"]}
    if wanted.states:
        by_name = {f"state{number}": state for number, state in enumerate(wanted.states)}
        values |= by_name
        more.append(f"jobs.state IN ({', '.join(f':{name}' for name in by_name)})")
    return [(_statement(chosen, more), values)]


def _chosen(wanted: Filter) -> _Chosen:
    if wanted.metadata:
        return "metadata"
    if wanted.owner is not None and wanted.model is not None:
        return "owner_model"
    if wanted.owner is not None:
        return "owner_state" if wanted.states else "owner"
    if wanted.model is not None:
        return "model_state"
    return "state" if wanted.states else "all"


def keyed(cursor: sqlite3.Cursor, owner: str, keys: Sequence[str]) -> dict[str, str]:
    """The fingerprints of those jobs of ``owner`` that have one of ``keys``, by key."""
    return dict(cursor.execute(KEYED, (owner, json.dumps(keys))).fetchall())


KEYED = (
    "SELECT idempotency_key, fingerprint FROM jobs INDEXED BY jobs_key WHERE owner = ? AND idempotency_key IS NOT NULL "
    "AND idempotency_key IN (SELECT value FROM json_each(?))"
)


def page(cursor: sqlite3.Cursor, wanted: Filter, before: str | None, limit: int) -> list[Job]:
    """Up to ``limit`` jobs that are older than the one with the id ``before``, newest first."""
    found = [
        map(job_from, cursor.execute(statement, values).fetchall())
        for statement, values in page_statements(wanted, before, limit)
    ]
    newest = list(heapq.merge(*found, key=lambda job: job.id, reverse=True))[:limit]
    return _filled(cursor, newest)


def events(cursor: sqlite3.Cursor, id_: str, after: int, limit: int) -> list[Event]:
    """What happened to the job after the event ``after``."""
    rows = cursor.execute(EVENTS, (id_, after, limit)).fetchall()
    return [Event(*row) for row in rows]


EVENTS = (
    "SELECT id, at, type, attempt, error FROM events INDEXED BY events_job WHERE job_id = ? AND id > ? "
    "ORDER BY id LIMIT ?"
)


def noted_clock(cursor: sqlite3.Cursor) -> tuple[int, int] | None:
    """What the wall clock said when it was last written down, in milliseconds, and how long it had gone evenly, in seconds."""
    row = cursor.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
    numbers = row[0].split() if row is not None else []
    if len(numbers) != 2 or not all(number.isdecimal() and len(number) < 19 for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def counts(cursor: sqlite3.Cursor) -> Counts:
    """How many wait, and which run."""
    scheduled = cursor.execute("SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled'").fetchone()[0]
    (waiting,) = cursor.execute("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'waiting'").fetchone()
    running = cursor.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs INDEXED BY jobs_running WHERE state = 'running' ORDER BY id"  # noqa: S608
    ).fetchall()
    return Counts(scheduled, max(0, waiting - scheduled), tuple(map(job_from, running)))


def first(
    cursor: sqlite3.Cursor,
    lane: JobLane,
    bonus_of: Callable[[str], int | None],
    installed: Callable[[], Iterable[str]] = tuple,
) -> Job | None:
    """The job that is next in ``lane``, without taking it; the parameters as of ``running.claim``."""
    id_ = head(cursor, lane, bonus_of, installed)
    return None if id_ is None else job_of(cursor, id_)


def oldest(cursor: sqlite3.Cursor, lane: JobLane) -> int | None:
    """When the first queued job of ``lane`` could first have run; None where none is queued."""
    row = cursor.execute(OLDEST, (lane,)).fetchone()
    return None if row is None else int(row[0])


#: The first by order, of all models.
OLDEST = (
    "SELECT run_at FROM jobs INDEXED BY jobs_place WHERE state = 'queued' AND lane = ? ORDER BY sort_key, id LIMIT 1"
)
#: How many stand between two places in the queue, the first included, as far as anybody is told.
BETWEEN = (
    "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_place WHERE state = 'queued' AND lane = ? "
    "AND (sort_key, id) >= (?, ?) AND (sort_key, id) < (?, ?) LIMIT ?)"
)


def _statement(chosen: _Chosen, more: Iterable[str]) -> str:
    where = " AND ".join((_FROM[chosen], *more))
    columns = ", ".join(f"jobs.{name}" for name in JOB_COLUMNS.split(", "))
    order = "job_metadata.job_id" if chosen == "metadata" else "id"
    # Only names of columns and of parameters are put together here.
    return f"SELECT {columns} FROM {where} ORDER BY {order} DESC LIMIT :limit"  # noqa: S608


def _filled(cursor: sqlite3.Cursor, jobs: Sequence[Job]) -> list[Job]:
    """The jobs with their metadata, artifacts and positions."""
    ids = json.dumps([job.id for job in jobs])
    metadata: dict[str, dict[str, str]] = {}
    for id_, key, value in cursor.execute(
        "SELECT job_id, key, value FROM job_metadata WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY key",
        (ids,),
    ):
        metadata.setdefault(id_, {})[key] = value
    artifacts: dict[str, list[ArtifactInfo]] = {}
    for id_, *known in cursor.execute(
        "SELECT job_id, name, type, bytes, sha256, created_at FROM artifacts "
        "WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY name",
        (ids,),
    ):
        artifacts.setdefault(id_, []).append(ArtifactInfo(*cast("Row", known)))
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
    """The places of those that are queued, each among all of its lane, 1 is next; nothing beyond FARTHEST."""
    places = {}
    for lane in {job.lane for job in jobs if job.state == "queued"}:
        # From one to the next, so that what stands before them all is counted once.
        before, since = 0, _BEFORE_ALL
        for job in sorted((job for job in jobs if job.state == "queued" and job.lane == lane), key=_place):
            most = FARTHEST + 1 - before
            before += cursor.execute(BETWEEN, (lane, *since, *_place(job), most)).fetchone()[0]
            if before > FARTHEST:
                break
            places[job.id], since = before + 1, _place(job)
    return places


_BEFORE_ALL = (-(2**63), "")


def _place(job: Job) -> tuple[int, str]:
    return job.sort_key, job.id
