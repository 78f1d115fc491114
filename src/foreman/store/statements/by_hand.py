"""What a job's caller does with it: cancel, try again, forget, and keep artifacts with it."""

from __future__ import annotations

from foreman import job as jobs
from foreman.job import ArtifactInfo, Job
from foreman.store.statements.shared import (
    Artifact,
    ArtifactFile,
    Transaction,
    WrongState,
    add_waiting,
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


def retry(tx: Transaction, id_: str) -> Job:
    """Queue again what has ended without success, with new attempts.

    :raises WrongState:
    """
    job = existing(tx, id_)
    if job.state not in {"failed", "discarded", "cancelled"}:
        raise WrongState(f"only what failed, or was discarded or cancelled, can be tried again; it is {job.state}")
    tx.cursor.execute(
        "UPDATE jobs SET state = 'queued', attempt = 0, outages = 0, rescues = 0, finished_at = NULL, "
        "cancel_asked_at = NULL, deadline = NULL, run_at = ?, sort_key = ? WHERE id = ?",
        (tx.now, jobs.sort_key(tx.now, job.priority), id_),
    )
    add_waiting(tx, 1)
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


def put_by_hand(tx: Transaction, id_: str, artifact: Artifact | ArtifactFile) -> tuple[ArtifactInfo, bool]:
    """Keep an artifact that a caller gives to its job.

    :return: what is known of it, and whether it is new.
    """
    job = existing(tx, id_)
    return put(tx, id_, artifact, job.fence)
