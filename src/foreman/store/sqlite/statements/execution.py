"""Run a job: take it, keep what comes, and end it.

What a worker writes carries its claim: the job's id, fence and boot. A claim that is no longer the job's writes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

import msgspec
from attrs import frozen

from foreman.errors import ForemanError
from foreman.jobs import job as jobs
from foreman.jobs.job import Job, JobLane, Transition, Usage
from foreman.store.sqlite.statements.rows import CLOUD_GROUP, JOB_COLUMNS, UNREADABLE_GROUP, job_from, usage_text
from foreman.store.sqlite.statements.transaction import (
    Artifact,
    Transaction,
    add_bytes,
    add_waiting,
    end_waiting,
    existing,
    expired_error,
    put,
    tell,
)

#: How many expired jobs one claim discards on its way, so that the writer is not held for long.
MAX_EXPIRED = 500
#: How many groups of queued jobs a claim goes through before it asks for those of the installed models alone.
MAX_GROUPS = 200


@frozen
class Claim:
    """A job that is this foreman's to run.

    :ivar job: as it is now, running; the rest is its request.
    """

    job: Job
    payload: bytes
    content_type: str
    content_encoding: str | None
    headers: tuple[tuple[str, str], ...]
    stream: bool


class Stale(ForemanError):
    """The job is no longer this claim's: it was taken away, and what the claim has to say counts for nothing."""


def claim(
    tx: Transaction,
    lane: JobLane,
    boot: str,
    bonus_of: Callable[[str], int | None],
    installed: Callable[[], Iterable[str]] = tuple,
) -> Claim | None:
    """Take the job that is next in ``lane``; what has expired on the way there is discarded.

    :param bonus_of: by how many milliseconds the jobs of a model go before others; None: it cannot run now.
    :param installed: gives the canonical names of the models that the target has.
    """
    for _ in range(MAX_EXPIRED):
        next_one = head(tx.cursor, lane, bonus_of, installed)
        if next_one is None:
            return None
        rows = tx.cursor.execute(
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, fence = fence + 1, boot = ?, started_at = ? "  # noqa: S608
            f"WHERE id = ? AND state = 'queued' AND (deadline IS NULL OR deadline > ?) RETURNING {JOB_COLUMNS}",
            (boot, tx.now, next_one, tx.now),
        ).fetchall()
        if not rows:
            late = existing(tx, next_one)
            end_waiting(tx, late, "discarded", expired_error(late))
            continue
        add_waiting(tx, -1)
        job = job_from(rows[0])
        tx.cursor.execute(
            "INSERT INTO attempts (job_id, fence, boot, started_at) VALUES (?, ?, ?, ?)",
            (job.id, job.fence, boot, tx.now),
        )
        tell(tx, job.id, "running", job.fence)
        claimed = _with_request(tx, job)
        if claimed is not None:
            return claimed
        # Left where it is, it would be taken again and again, and no job behind it ever.
        lost = jobs.JobError("refused", "its request cannot be read from the store", job.attempt)
        _finish(tx, job, Transition("failed", None, burned=True, outages=0, error=lost))
    tx.queued = True  # whoever asks again gets on with the rest
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


def head(
    cursor: sqlite3.Cursor,
    lane: JobLane,
    bonus_of: Callable[[str], int | None],
    installed: Callable[[], Iterable[str]] = tuple,
) -> str | None:
    """The id of the job that is next in ``lane``; ``bonus_of`` and ``installed`` as of ``claim``."""
    heads = []
    for group in _groups(cursor, lane, installed):
        row = cursor.execute(HEAD, (lane, group)).fetchone()
        bonus = None if row is None else bonus_of(row[2])
        if bonus is not None:
            heads.append((row[0] - bonus, row[1]))
    return min(heads)[1] if heads else None


#: The first of one group, and its model as typed.
HEAD = (
    "SELECT sort_key, id, model FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND lane = ? AND group_key = ? "
    "ORDER BY sort_key, id LIMIT 1"
)
#: From one group to the next, however many jobs each has.
NEXT_GROUP = (
    "SELECT group_key FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND lane = ? AND group_key > ? "
    "ORDER BY group_key LIMIT 1"
)


def _groups(cursor: sqlite3.Cursor, lane: JobLane, installed: Callable[[], Iterable[str]]) -> Iterable[str]:
    """The groups in which a job of ``lane`` may be able to run.

    Where jobs of very many models are queued, most of them are of models that the target does not have (nobody could
    ask it when they were taken): then those that it has are looked up instead.
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


def keep(tx: Transaction, claim: Claim, number: int, data: bytes) -> None:
    """Keep the next lines of an answer that is on its way.

    :raises Stale:
    """
    own(tx, claim)
    tx.cursor.execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", (claim.job.id, claim.job.fence, number, data))


def succeed(tx: Transaction, claim: Claim, artifacts: Sequence[Artifact], usage: Usage | None) -> None:
    """The job has its answer: that and the state are one.

    :raises Stale:
    """
    job = own(tx, claim)
    for artifact in artifacts:
        put(tx, job.id, artifact, job.fence)
    forgotten = tx.cursor.execute(
        "DELETE FROM artifacts WHERE job_id = ? AND name IN (?, ?) RETURNING bytes", (job.id, jobs.PARTIAL, jobs.ERROR)
    ).fetchall()
    add_bytes(tx, job.id, -sum(count for (count,) in forgotten))
    tx.cursor.execute("UPDATE jobs SET usage = ? WHERE id = ?", (usage_text(usage), job.id))
    _finish(tx, job, Transition("succeeded", None, burned=True, outages=0, error=None))


def end(
    tx: Transaction, claim: Claim, decide: Callable[[Job, int], Transition], artifacts: Sequence[Artifact] = ()
) -> Job:
    """The job's try ended without success; ``decide`` says of the job, and of now, what becomes of it.

    :raises Stale:
    """
    job = own(tx, claim)
    for artifact in artifacts:
        put(tx, job.id, artifact, job.fence)
    return _finish(tx, job, decide(job, tx.now))


def release(tx: Transaction, claim: Claim) -> Job:
    """Give the job back as if it had not been taken: foreman stops.

    :raises Stale:
    """
    job = own(tx, claim)
    state: jobs.State = "queued" if job.cancel_asked_at is None else "cancelled"
    told = "released" if state == "queued" else None
    _leave_partial(tx, job)
    return _finish(tx, job, Transition(state, None, burned=False, outages=job.outages, error=job.error), told)


def own(tx: Transaction, claim: Claim) -> Job:
    """The job of a claim.

    :raises Stale: when it is somebody else's, or nobody's.
    """
    row = tx.cursor.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ? AND state = 'running' AND fence = ? AND boot = ?",  # noqa: S608
        (claim.job.id, claim.job.fence, claim.job.boot),
    ).fetchone()
    if row is None:
        raise Stale(f"job {claim.job.id} is no longer that of its try {claim.job.fence}")
    return job_from(row)


def rescue(tx: Transaction, boot: str) -> int:
    """Queue again what other boots left running: they are gone, since the lock is ours.

    :return: how many those were.
    """
    rows = tx.cursor.execute(
        f"SELECT {JOB_COLUMNS} FROM jobs INDEXED BY jobs_running WHERE state = 'running' AND boot <> ?",  # noqa: S608
        (boot,),
    ).fetchall()
    for row in rows:
        job = job_from(row)
        _leave_partial(tx, job)
        tx.cursor.execute("UPDATE jobs SET rescues = rescues + 1, fence = fence + 1 WHERE id = ?", (job.id,))
        _finish(tx, job, jobs.rescued(job), told="rescued")
    return len(rows)


#: The lines that were kept of a try.
PIECES = "SELECT data FROM pieces WHERE job_id = ? AND fence = ? ORDER BY number"


def _leave_partial(tx: Transaction, job: Job) -> None:
    """Make an artifact of the lines that were kept of a try, which nobody will hear to its end."""
    lines = [row[0] for row in tx.cursor.execute(PIECES, (job.id, job.fence))]
    if lines:
        put(tx, job.id, Artifact(jobs.PARTIAL, jobs.LINES, b"".join(lines)), job.fence)


def _finish(tx: Transaction, job: Job, transition: Transition, told: str | None = None) -> Job:
    """Carry out what was decided of a running job, and say so."""
    error = transition.error
    finished = tx.now if transition.state in jobs.ENDED else None
    rows = tx.cursor.execute(
        "UPDATE jobs SET state = ?, boot = NULL, finished_at = ?, run_at = coalesce(?, run_at), attempt = attempt - ?, "  # noqa: S608
        "outages = ?, error_class = ?, error_message = ?, error_attempt = ? "
        f"WHERE id = ? AND state = 'running' RETURNING {JOB_COLUMNS}",
        (
            transition.state, finished, transition.run_at, 0 if transition.burned else 1, transition.outages,
            *((None, None, None) if error is None else (error.error_class, error.message, error.attempt)),
            job.id,
        ),
    ).fetchall()  # fmt: skip
    ended = job_from(rows[0])
    tx.cursor.execute(
        "UPDATE attempts SET ended_at = ?, outcome = ?, error_class = ?, error = ? WHERE job_id = ? AND fence = ?",
        (tx.now, told or transition.state, error and error.error_class, error and error.message, job.id, job.fence),
    )
    tx.cursor.execute("DELETE FROM pieces WHERE job_id = ?", (job.id,))
    if transition.state in {"queued", "scheduled"}:
        add_waiting(tx, 1)
        tx.will_be_due(job.deadline)  # nobody looks at it while it runs
    if told == "rescued" and transition.state in jobs.ENDED:
        tell(tx, job.id, told, ended.fence, error)
        told = None
    tell(tx, job.id, told or transition.state, ended.fence, error)
    tx.queued = tx.queued or transition.state == "queued"
    tx.will_be_due(transition.run_at if transition.state == "scheduled" else None)
    return ended
