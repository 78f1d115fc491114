"""What all statements share: the transaction, the events that record changes, and the counts of jobs and bytes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import sha256

from attrs import define, field

from foreman.jobs.artifacts import CHUNK_BYTES, Artifact, ArtifactFile, ArtifactInfo
from foreman.jobs.job import Job, JobError, State
from foreman.store.errors import TooMuchStored, WrongState
from foreman.store.sqlite.statements.rows import job_of
from foreman.util.byte_budget import SHARE, is_fair


@define(eq=False)
class Transaction:
    """One step's view of the database.

    :ivar now: milliseconds since the epoch; :ivar changed: the jobs that it changed, which are announced after the commit;
    :ivar queued: whether one of them may be able to run now; :ivar due: the first time at which one of them is due or
        expires, milliseconds since the epoch.
    """

    cursor: sqlite3.Cursor
    now: int
    changed: set[str] = field(factory=set)
    queued: bool = False
    due: int | None = None

    def will_be_due(self, moment: int | None) -> None:
        """A job is due or expires at ``moment``, milliseconds since the epoch; None: never."""
        if moment is not None and (self.due is None or moment < self.due):
            self.due = moment


def require_job(tx: Transaction, id_: str) -> Job:
    """The job as its row has it.

    :raises WrongState: when it does not exist any more.
    """
    job = job_of(tx.cursor, id_)
    if job is None:
        raise WrongState("it does not exist any more")
    return job


def end_waiting(tx: Transaction, job: Job, state: State, error: JobError | None) -> Job:
    """End a job that waits; the error of its last attempt stays, unless ``error`` replaces it."""
    tx.cursor.execute(
        "UPDATE jobs SET state = ?, finished_at = ?, error_class = coalesce(?, error_class), "
        "error_message = coalesce(?, error_message), error_attempt = coalesce(?, error_attempt) WHERE id = ?",
        (
            state, tx.now,
            *((None, None, None) if error is None else (error.error_class, error.message, error.attempt)),
            job.id,
        ),
    )  # fmt: skip
    add_waiting(tx, -1)
    record_event(tx, job.id, state, job.fence, error)
    return require_job(tx, job.id)


def expired_error(job: Job) -> JobError:
    """The error of a job whose deadline has passed."""
    return JobError("expired", "its deadline passed before it had an answer", job.attempt)


def record_event(tx: Transaction, id_: str, type_: str, fence: int, error: JobError | None = None) -> None:
    """Record a change of a job, and have it announced after the commit.

    :param type_: the job's new state, or ``released`` or ``rescued``; :param fence: of the attempt.
    """
    tx.cursor.execute(
        "INSERT INTO events (job_id, at, type, attempt, error) VALUES (?, ?, ?, ?, ?)",
        (id_, tx.now, type_, fence, error and f"{error.error_class}: {error.message}"),
    )
    tx.changed.add(id_)
    tx.queued = tx.queued or type_ == "queued"


def add_waiting(tx: Transaction, count: int) -> int:
    """Add ``count`` to the number of jobs that wait, and return it.

    It is kept in a row of its own, since counting the rows of a long queue takes long.
    """
    rows = tx.cursor.execute(
        "UPDATE meta SET value = value + ? WHERE key = 'waiting' RETURNING CAST(value AS INTEGER)", (count,)
    ).fetchall()
    return int(rows[0][0])


def owner_totals(tx: Transaction, owner: str) -> tuple[int, int]:
    """How many jobs of ``owner`` wait, and how many bytes the payloads and artifacts of all its jobs have."""
    row = tx.cursor.execute("SELECT waiting, bytes FROM owners WHERE owner = ?", (owner,)).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def check_storage_share(tx: Transaction, owners: Iterable[str], free: int | None, added: int, to_come: int = 0) -> None:
    """Check that none of ``owners`` takes up more than its share of the disk, with what is being stored now.

    :param free: bytes that were free for jobs before this step, None where the system does not say;
    :param added: bytes that this step has added; :param to_come: bytes that each of ``owners`` will have beyond those
        that the database has counted.
    :raises TooMuchStored: if one does.
    """
    if free is None:
        return
    left = max(0, free - added)
    for owner in owners:
        _waiting, held = owner_totals(tx, owner)
        held += to_come
        if held > 0 and not is_fair(held, left):
            raise TooMuchStored(
                f"your jobs and artifacts would take {held} bytes, and leave {left} for jobs on the disk; one caller may take "
                f"at most {SHARE} times as many bytes as are left; delete some jobs"
            )


def put_artifact(tx: Transaction, id_: str, artifact: Artifact | ArtifactFile, fence: int) -> tuple[ArtifactInfo, bool]:
    """Store an artifact, in place of an older one of its name.

    :return: what is known of it, and whether its name is new.
    """
    data: bytes | int
    if isinstance(artifact, Artifact):
        size, digest = len(artifact.data), sha256(artifact.data).hexdigest()
        value, data = "?", artifact.data
    else:
        size, digest = artifact.measure()
        value, data = "zeroblob(?)", size
    known = tx.cursor.execute(
        "SELECT bytes FROM artifacts WHERE job_id = ? AND name = ?", (id_, artifact.name)
    ).fetchone()
    rows = tx.cursor.execute(
        f"INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, {value}) ON CONFLICT (job_id, name) DO UPDATE SET "  # noqa: S608
        "type = excluded.type, bytes = excluded.bytes, sha256 = excluded.sha256, fence = excluded.fence, "
        "created_at = excluded.created_at, data = excluded.data WHERE excluded.fence >= artifacts.fence "
        "RETURNING rowid",
        (id_, artifact.name, artifact.type, size, digest, fence, tx.now, data),
    ).fetchall()
    if rows:
        add_bytes(tx, id_, size - (0 if known is None else known[0]))
    if isinstance(artifact, ArtifactFile) and rows:
        _copy_file(tx, rows[0][0], artifact, size)
    return ArtifactInfo(artifact.name, artifact.type, size, digest, tx.now), known is None


def add_bytes(tx: Transaction, id_: str, count: int) -> None:
    """Add ``count``, which may be negative, to the bytes of a job's payload and artifacts."""
    if count:
        tx.cursor.execute("UPDATE jobs SET bytes = bytes + ? WHERE id = ?", (count, id_))


def _copy_file(tx: Transaction, row: int, artifact: ArtifactFile, size: int) -> None:
    """Copy a file into the blob of its artifact, which has its size already."""
    with artifact.reading() as file, tx.cursor.connection.blobopen("artifacts", "data", row) as blob:
        while size > 0:
            data = file.read(min(CHUNK_BYTES, size))
            if not data:
                raise OSError("a file became shorter while it was stored")
            blob.write(data)
            size -= len(data)
