"""Run a job: claim it, store its output as it arrives, and end it.

A worker's writes carry its claim: the job's id, fence and instance. A claim that no longer holds the job writes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

import msgspec

from foreman.jobs.artifacts import ERROR, NDJSON, PARTIAL, Artifact
from foreman.jobs.job import ENDED, Claim, Job, JobError, JobLane, State, Usage
from foreman.jobs.retry_policy import Transition, rescue_transition
from foreman.store.errors import StaleClaim
from foreman.store.sqlite.statements.rows import CLOUD_GROUP, JOB_COLUMNS, UNREADABLE_GROUP, job_from, usage_text
from foreman.store.sqlite.statements.transaction import (
    Transaction,
    add_bytes,
    add_waiting,
    end_waiting,
    expired_error,
    put_artifact,
    record_event,
    require_job,
)

#: How many expired jobs one claim discards, so that it does not hold the writer for long.
MAX_EXPIRED = 500
#: How many groups of queued jobs a claim goes through before it looks up those of the installed models alone.
MAX_GROUPS = 200


def claim(
    tx: Transaction,
    lane: JobLane,
    instance: str,
    bonus_of: Callable[[str], int | None],
    installed: Callable[[], Iterable[str]] = tuple,
) -> Claim | None:
    """Claim the next job in ``lane``; expired jobs before it are discarded.

    :param bonus_of: by how many milliseconds the jobs of a model go before others; None: it cannot run now.
    :param installed: returns the canonical names of the models that the target has.
    """
    for _ in range(MAX_EXPIRED):
        id_ = next_id(tx.cursor, lane, bonus_of, installed)
        if id_ is None:
            return None
        rows = tx.cursor.execute(
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, fence = fence + 1, boot = ?, started_at = ? "  # noqa: S608
            f"WHERE id = ? AND state = 'queued' AND (deadline IS NULL OR deadline > ?) RETURNING {JOB_COLUMNS}",
            (instance, tx.now, id_, tx.now),
        ).fetchall()
        if not rows:
            expired = require_job(tx, id_)
            end_waiting(tx, expired, "discarded", expired_error(expired))
            continue
        add_waiting(tx, -1)
        job = job_from(rows[0])
        tx.cursor.execute(
            "INSERT INTO attempts (job_id, fence, boot, started_at) VALUES (?, ?, ?, ?)",
            (job.id, job.fence, instance, tx.now),
        )
        record_event(tx, job.id, "running", job.fence)
        claimed = _with_request(tx, job)
        if claimed is not None:
            return claimed
        # Left in the queue, it would be claimed again and again, and no job behind it ever.
        error = JobError("refused", "its request cannot be read from the store", job.attempt)
        _apply(tx, job, Transition("failed", None, counts=True, uncounted_tries=0, error=error))
    tx.queued = True  # the next claim continues here
    return None


def _with_request(tx: Transaction, job: Job) -> Claim | None:
    """The claim of ``job`` with its request; None where that cannot be read."""
    row = tx.cursor.execute(
        "SELECT payload, content_type, content_encoding, headers, stream FROM payloads WHERE job_id = ?", (job.id,)
    ).fetchone()
    try:
        payload, content_type, content_encoding, headers, stream = row
        pairs = msgspec.json.decode(headers, type=list[tuple[str, str]])
    except (TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Claim(job, payload, content_type, content_encoding, tuple(pairs), bool(stream))


def next_id(
    cursor: sqlite3.Cursor,
    lane: JobLane,
    bonus_of: Callable[[str], int | None],
    installed: Callable[[], Iterable[str]] = tuple,
) -> str | None:
    """The id of the next job in ``lane``; the parameters as of ``claim``."""
    candidates = []
    for group in _groups(cursor, lane, installed):
        row = cursor.execute(FIRST_OF_GROUP, (lane, group)).fetchone()
        bonus = None if row is None else bonus_of(row[2])
        if bonus is not None:
            candidates.append((row[0] - bonus, row[1]))
    return min(candidates)[1] if candidates else None


#: The first job of one group, and its model as the caller spelled it.
FIRST_OF_GROUP = (
    "SELECT sort_key, id, model FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND lane = ? AND group_key = ? "
    "ORDER BY sort_key, id LIMIT 1"
)
#: The group after another, found without reading the jobs of either.
NEXT_GROUP = (
    "SELECT group_key FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND lane = ? AND group_key > ? "
    "ORDER BY group_key LIMIT 1"
)


def _groups(cursor: sqlite3.Cursor, lane: JobLane, installed: Callable[[], Iterable[str]]) -> Iterable[str]:
    """The groups in which a job of ``lane`` may be able to run.

    Where jobs of very many models are queued, the target does not have most of those models (it could not be
    reached when the jobs were submitted): then the groups of the models that it has are looked up instead.
    """
    found: list[str] = []
    last = ""
    while (row := cursor.execute(NEXT_GROUP, (lane, last)).fetchone()) is not None:
        last = row[0]
        found.append(last)
        if len(found) > MAX_GROUPS:
            known = [group for name in installed() for group in (name, f"{name}:local")]
            return dict.fromkeys((*found, CLOUD_GROUP, UNREADABLE_GROUP, *known))
    return found


def append_output(tx: Transaction, claim: Claim, number: int, data: bytes) -> None:
    """Store the next lines of the answer to a running job.

    :raises StaleClaim:
    """
    claimed_job(tx, claim)
    tx.cursor.execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", (claim.job.id, claim.job.fence, number, data))


def succeed(tx: Transaction, claim: Claim, artifacts: Sequence[Artifact], usage: Usage | None) -> None:
    """End the job as succeeded, and store its artifacts in the same transaction.

    :raises StaleClaim:
    """
    job = claimed_job(tx, claim)
    for artifact in artifacts:
        put_artifact(tx, job.id, artifact, job.fence)
    deleted = tx.cursor.execute(
        "DELETE FROM artifacts WHERE job_id = ? AND name IN (?, ?) RETURNING bytes", (job.id, PARTIAL, ERROR)
    ).fetchall()
    add_bytes(tx, job.id, -sum(count for (count,) in deleted))
    tx.cursor.execute("UPDATE jobs SET usage = ? WHERE id = ?", (usage_text(usage), job.id))
    _apply(tx, job, Transition("succeeded", None, counts=True, uncounted_tries=0, error=None))


def end_attempt(
    tx: Transaction, claim: Claim, decide: Callable[[Job, int], Transition], artifacts: Sequence[Artifact] = ()
) -> Job:
    """End an attempt that did not succeed; ``decide`` returns what becomes of the job, given it and the time.

    :raises StaleClaim:
    """
    job = claimed_job(tx, claim)
    for artifact in artifacts:
        put_artifact(tx, job.id, artifact, job.fence)
    return _apply(tx, job, decide(job, tx.now))


def release(tx: Transaction, claim: Claim) -> Job:
    """Give the job back as if it had not been claimed, since foreman stops.

    :raises StaleClaim:
    """
    job = claimed_job(tx, claim)
    state: State = "queued" if job.cancel_asked_at is None else "cancelled"
    event_type = "released" if state == "queued" else None
    _store_partial(tx, job)
    transition = Transition(state, None, counts=False, uncounted_tries=job.uncounted_tries, error=job.error)
    return _apply(tx, job, transition, event_type)


def claimed_job(tx: Transaction, claim: Claim) -> Job:
    """The job of a claim.

    :raises StaleClaim: when the claim no longer holds it.
    """
    row = tx.cursor.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ? AND state = 'running' AND fence = ? AND boot = ?",  # noqa: S608
        (claim.job.id, claim.job.fence, claim.job.instance),
    ).fetchone()
    if row is None:
        raise StaleClaim(f"job {claim.job.id} no longer belongs to its attempt {claim.job.fence}")
    return job_from(row)


def rescue(tx: Transaction, instance: str) -> int:
    """Queue again the jobs that other instances left running: those are dead, since this one holds the lock.

    :return: how many those were.
    """
    rows = tx.cursor.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs INDEXED BY jobs_running WHERE state = 'running' AND boot <> ?",  # noqa: S608
        (instance,),
    ).fetchall()
    for row in rows:
        job = job_from(row)
        _store_partial(tx, job)
        tx.cursor.execute("UPDATE jobs SET rescues = rescues + 1, fence = fence + 1 WHERE id = ?", (job.id,))
        _apply(tx, job, rescue_transition(job), event_type="rescued")
    return len(rows)


#: The output of an attempt that ``append_output`` has stored.
OUTPUT = "SELECT data FROM pieces WHERE job_id = ? AND fence = ? ORDER BY number"


def _store_partial(tx: Transaction, job: Job) -> None:
    """Make an artifact of the output that was stored of an attempt which will not be finished."""
    lines = [row[0] for row in tx.cursor.execute(OUTPUT, (job.id, job.fence))]
    if lines:
        put_artifact(tx, job.id, Artifact(PARTIAL, NDJSON, b"".join(lines)), job.fence)


def _apply(tx: Transaction, job: Job, transition: Transition, event_type: str | None = None) -> Job:
    """Carry out the transition of a running job, and record it.

    :param event_type: of the event and the attempt's outcome, where that is not the new state.
    """
    error = transition.error
    finished_at = tx.now if transition.state in ENDED else None
    rows = tx.cursor.execute(
        "UPDATE jobs SET state = ?, boot = NULL, finished_at = ?, run_at = coalesce(?, run_at), attempt = attempt - ?, "  # noqa: S608
        "outages = ?, error_class = ?, error_message = ?, error_attempt = ? "
        f"WHERE id = ? AND state = 'running' RETURNING {JOB_COLUMNS}",
        (
            transition.state, finished_at, transition.run_at, 0 if transition.counts else 1, transition.uncounted_tries,
            *((None, None, None) if error is None else (error.error_class, error.message, error.attempt)),
            job.id,
        ),
    ).fetchall()  # fmt: skip
    updated = job_from(rows[0])
    tx.cursor.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ?, error_class = ?, error = ? WHERE job_id = ? AND fence = ?",
        (
            tx.now,
            event_type or transition.state,
            error and error.error_class,
            error and error.message,
            job.id,
            job.fence,
        ),
    )
    tx.cursor.execute("DELETE FROM pieces WHERE job_id = ?", (job.id,))
    if transition.state in {"queued", "scheduled"}:
        add_waiting(tx, 1)
        tx.will_be_due(job.deadline)  # the sweep passes over running jobs
    if event_type == "rescued" and transition.state in ENDED:
        record_event(tx, job.id, event_type, updated.fence, error)
        event_type = None
    record_event(tx, job.id, event_type or transition.state, updated.fence, error)
    tx.queued = tx.queued or transition.state == "queued"
    tx.will_be_due(transition.run_at if transition.state == "scheduled" else None)
    return updated
