"""What a job's caller does with it: cancel, try again, forget, and keep artifacts with it."""

from __future__ import annotations

from foreman.errors import ForemanError
from foreman.jobs import job as jobs
from foreman.jobs.job import ArtifactInfo, Job
from foreman.store.sqlite.statements.enqueue import check_waiting
from foreman.store.sqlite.statements.transaction import (
    Artifact,
    ArtifactFile,
    Transaction,
    WrongState,
    add_waiting,
    check_room,
    end_waiting,
    existing,
    put,
    tell,
)


def cancel(tx: Transaction, id_: str) -> Job:
    """End the job, or ask its worker to: a running one is ``running`` still, with ``cancel_asked_at``.

    :raises WrongState: when it has ended otherwise.
    """
    job = existing(tx, id_)
    if job.state in {"scheduled", "queued"}:
        return end_waiting(tx, job, "cancelled", None)
    if job.state == "running":
        if job.cancel_asked_at is None:
            tx.cursor.execute("UPDATE jobs SET cancel_asked_at = ? WHERE id = ?", (tx.now, id_))
            tx.changed.add(id_)
        return existing(tx, id_)
    if job.state != "cancelled":
        raise WrongState(f"it has ended: {job.state}")
    return job


def retry(tx: Transaction, id_: str, most: int | None = None) -> Job:
    """Queue again what has ended without success, with new attempts.

    :param most: how many jobs may wait.
    :raises WrongState, TooManyJobs:
    """
    job = existing(tx, id_)
    if job.state not in {"failed", "discarded", "cancelled"}:
        raise WrongState(f"only what failed, or was discarded or cancelled, can be tried again; it is {job.state}")
    tx.cursor.execute(
        "UPDATE jobs SET state = 'queued', attempt = 0, outages = 0, rescues = 0, finished_at = NULL, "
        "cancel_asked_at = NULL, deadline = NULL, run_at = ?, sort_key = ? WHERE id = ?",
        (tx.now, jobs.sort_key(tx.now, job.priority), id_),
    )
    waiting = add_waiting(tx, 1)
    if most is not None:
        check_waiting(waiting, most, [job.owner], tx)
    tell(tx, id_, "queued", job.fence)
    return existing(tx, id_)


def delete(tx: Transaction, id_: str) -> None:
    """Forget a job that has ended, and all that belongs to it.

    :raises WrongState: while it has not.
    """
    job = existing(tx, id_)
    if not job.ended:
        raise WrongState(f"it is {job.state}; cancel it first")
    tx.cursor.execute("DELETE FROM jobs WHERE id = ?", (id_,))
    tx.changed.add(id_)


#: How many artifacts a job may have beside those that foreman gives it: lists of jobs name them all.
MAX_ARTIFACTS = 32
OTHERS = "SELECT count(*), coalesce(sum(bytes), 0) FROM artifacts WHERE job_id = ? AND name NOT IN (?, ?, ?, ?, ?)"


class TooManyArtifacts(ForemanError):
    """A job has as many artifacts as may be."""


class TooLargeTogether(ForemanError):
    """The artifacts of a job would have more bytes than they may."""


def put_by_hand(
    tx: Transaction,
    id_: str,
    artifact: Artifact | ArtifactFile,
    most_bytes: int | None = None,
    room: int | None = None,
) -> tuple[ArtifactInfo, bool]:
    """Keep an artifact that a caller gives to its job.

    :param most_bytes: that the callers' artifacts of a job may have together; :param room: bytes that are left on the
        disk, if known.
    :return: what is known of it, and whether it is new.
    :raises TooManyArtifacts, TooLargeTogether, TooMuchStored:
    """
    job = existing(tx, id_)
    count, size = tx.cursor.execute(OTHERS, (id_, artifact.name, *sorted(jobs.OWN_ARTIFACTS))).fetchone()
    if count >= MAX_ARTIFACTS:
        raise TooManyArtifacts(f"a job may have {MAX_ARTIFACTS} artifacts of yours; replace one, or use another job")
    # Before anything is copied: what is refused is not to keep others from writing.
    new = len(artifact.data) if isinstance(artifact, Artifact) else artifact.measure()[0]
    if most_bytes is not None and size + new > most_bytes:
        raise TooLargeTogether(
            f"your artifacts of a job may have {most_bytes} bytes together, and these would have {size + new}"
        )
    old = tx.cursor.execute(
        "SELECT coalesce(sum(bytes), 0) FROM artifacts WHERE job_id = ? AND name = ?", (id_, artifact.name)
    ).fetchone()[0]
    check_room(tx, [job.owner], room, new, to_come=new - old)
    return put(tx, id_, artifact, job.fence)
