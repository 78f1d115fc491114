"""What all steps share: the transaction, the events that tell of a change, and how many wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from threading import Lock
from typing import BinaryIO

from attrs import define, field, frozen

from foreman.errors import ForemanError
from foreman.jobs.job import ArtifactInfo, Job, JobError, State
from foreman.store.sqlite.statements.rows import job_of
from foreman.util.byte_budget import SHARE, is_fair


@define(eq=False)
class Transaction:
    """One step's view of the database.

    :ivar now: milliseconds since the epoch; :ivar changed: the jobs that it changed, who are told of after the commit;
    :ivar queued: whether one of them may run now; :ivar due: the first moment at which the clock changes one of them.
    """

    cursor: sqlite3.Cursor
    now: int
    changed: set[str] = field(factory=set)
    queued: bool = False
    due: int | None = None

    def will_be_due(self, moment: int | None) -> None:
        """Something happens by the clock at ``moment``, milliseconds since the epoch; None: nothing does."""
        if moment is not None and (self.due is None or moment < self.due):
            self.due = moment


@frozen
class Artifact:
    """A named, typed blob."""

    name: str
    type: str
    data: bytes


@define(eq=False)
class ArtifactFile:
    """A named, typed blob that is in a file, from its beginning to its end.

    One thread reads the file, and another may close it meanwhile: it stays open until it is no longer read, so that the
    number of its descriptor does not come to mean another file.
    """

    name: str
    type: str
    _file: BinaryIO
    _measured: tuple[int, str] | None = field(default=None, init=False)
    _lock: Lock = field(factory=Lock, init=False)
    _is_read: bool = field(default=False, init=False)
    _is_closed: bool = field(default=False, init=False)

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """The file, at its beginning, for one thread.

        :raises ValueError: when it has been closed.
        """
        with self._lock:
            if self._is_closed:
                raise ValueError("the file of an artifact was closed before it was stored")
            self._is_read = True
        try:
            self._file.seek(0)
            yield self._file
        finally:
            with self._lock:
                self._is_read = False
                if self._is_closed:
                    self._file.close()

    def measure(self) -> tuple[int, str]:
        """How many bytes it has, and their SHA-256; the first time this reads the whole file.

        :raises ValueError: when it has been closed.
        """
        if self._measured is None:
            digest, size = sha256(), 0
            with self.reading() as file:
                while data := file.read(_PIECE):
                    digest.update(data)
                    size += len(data)
            self._measured = size, digest.hexdigest()
        return self._measured

    def close(self) -> None:
        """Close the file, as soon as no thread reads it."""
        with self._lock:
            self._is_closed = True
            if not self._is_read:
                self._file.close()


#: How much of a file is in memory at once, in bytes.
_PIECE = 256 * 1024


class TooMuchStored(ForemanError):
    """A caller's jobs hold their share of the disk."""


class WrongState(ForemanError):
    """The job's state does not allow it."""


def existing(tx: Transaction, id_: str) -> Job:
    """The job as its row has it.

    :raises WrongState: when it is gone.
    """
    job = job_of(tx.cursor, id_)
    if job is None:
        raise WrongState("it is not there any more")
    return job


def end_waiting(tx: Transaction, job: Job, state: State, error: JobError | None) -> Job:
    """End a job that waits; what went wrong in its last try stays, unless ``error`` says something else."""
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
    tell(tx, job.id, state, job.fence, error)
    return existing(tx, job.id)


def expired_error(job: Job) -> JobError:
    """What is said of a job whose deadline has passed."""
    return JobError("expired", "its deadline passed before it had its answer", job.attempt)


def tell(tx: Transaction, id_: str, type_: str, fence: int, error: JobError | None = None) -> None:
    """Write down that something has happened to a job, and have those told who wait for that.

    :param type_: the state that it went into, or ``released`` or ``rescued``; :param fence: the number of its try.
    """
    tx.cursor.execute(
        "INSERT INTO events (job_id, at, type, attempt, error) VALUES (?, ?, ?, ?, ?)",
        (id_, tx.now, type_, fence, error and f"{error.error_class}: {error.message}"),
    )
    tx.changed.add(id_)
    tx.queued = tx.queued or type_ == "queued"


def add_waiting(tx: Transaction, count: int) -> int:
    """Count those who wait, in the database itself, since counting rows takes long where there are many."""
    rows = tx.cursor.execute(
        "UPDATE meta SET value = value + ? WHERE key = 'waiting' RETURNING CAST(value AS INTEGER)", (count,)
    ).fetchall()
    return int(rows[0][0])


def held_by(tx: Transaction, owner: str) -> tuple[int, int]:
    """How many jobs of ``owner`` wait, and the bytes of the payloads and artifacts of all its jobs."""
    row = tx.cursor.execute("SELECT waiting, bytes FROM owners WHERE owner = ?", (owner,)).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def check_room(tx: Transaction, owners: Iterable[str], room: int | None, added: int, to_come: int = 0) -> None:
    """Whether the bytes of each of ``owners``, the new ones included, are its share of the disk at most.

    :param room: bytes that were left there for jobs, None where nobody knows; :param added: how many came since;
    :param to_come: how many bytes more each of ``owners`` will have than the database counts now.
    :raises TooMuchStored: if not.
    """
    if room is None:
        return
    left = max(0, room - added)
    for owner in owners:
        _waiting, held = held_by(tx, owner)
        held += to_come
        if held > 0 and not is_fair(held, left):
            raise TooMuchStored(
                f"your jobs and artifacts would take {held} bytes, and leave {left} for jobs on the disk; one caller may take "
                f"at most {SHARE} times as many bytes as are left; delete some jobs"
            )


def put(tx: Transaction, id_: str, artifact: Artifact | ArtifactFile, fence: int) -> tuple[ArtifactInfo, bool]:
    """Keep an artifact, in place of an older one of its name.

    :return: what is known of it, and whether there was none.
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
        _fill(tx, rows[0][0], artifact, size)
    return ArtifactInfo(artifact.name, artifact.type, size, digest, tx.now), known is None


def add_bytes(tx: Transaction, id_: str, count: int) -> None:
    """Count bytes that a job has now, or with a minus has no more."""
    if count:
        tx.cursor.execute("UPDATE jobs SET bytes = bytes + ? WHERE id = ?", (count, id_))


def _fill(tx: Transaction, row: int, artifact: ArtifactFile, size: int) -> None:
    """Write a file into an artifact that has its size already."""
    with artifact.reading() as file, tx.cursor.connection.blobopen("artifacts", "data", row) as blob:
        while size > 0:
            data = file.read(min(_PIECE, size))
            if not data:
                raise OSError("a file became shorter while it was stored")
            blob.write(data)
            size -= len(data)
