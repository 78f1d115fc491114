"""What users do with their jobs: cancel, retry and delete them, and store artifacts with them."""

from __future__ import annotations

from foreman.jobs.artifacts import OWN_ARTIFACTS, Artifact, ArtifactFile, ArtifactInfo
from foreman.jobs.job import Job, sort_key
from foreman.store.errors import ArtifactsTooLarge, TooManyArtifacts, WrongState
from foreman.store.sqlite.statements.enqueue import check_waiting
from foreman.store.sqlite.statements.transaction import (
    Transaction,
    add_waiting,
    check_storage_share,
    end_waiting,
    put_artifact,
    record_event,
    require_job,
)

#: How many artifacts a job may have beside those that foreman makes: lists of jobs name them all.
MAX_ARTIFACTS = 32
#: The number and bytes of a job's user artifacts, except the one that is to be stored.
OTHER_ARTIFACTS = (
    "SELECT count(*), coalesce(sum(bytes), 0) FROM artifacts WHERE job_id = ? AND name NOT IN (?, ?, ?, ?, ?)"
)


def cancel(tx: Transaction, id_: str) -> Job:
    """Cancel a job that waits; one that runs stays ``running`` with ``cancel_asked_at``, and its worker ends it.

    :raises WrongState: when it has ended otherwise.
    """
    job = require_job(tx, id_)
    if job.state in {"scheduled", "queued"}:
        return end_waiting(tx, job, "cancelled", None)
    if job.state == "running":
        if job.cancel_asked_at is None:
            tx.cursor.execute("UPDATE jobs SET cancel_asked_at = ? WHERE id = ?", (tx.now, id_))
            tx.changed.add(id_)
        return require_job(tx, id_)
    if job.state != "cancelled":
        raise WrongState(f"it has ended: {job.state}")
    return job


def retry(tx: Transaction, id_: str, max_jobs: int | None = None) -> Job:
    """Queue a job again that ended without success, with all its attempts before it.

    :param max_jobs: how many jobs may wait.
    :raises WrongState, TooManyJobs:
    """
    job = require_job(tx, id_)
    if job.state not in {"failed", "discarded", "cancelled"}:
        raise WrongState(
            f"only a failed, discarded or cancelled job can be retried; the state of this one is {job.state}"
        )
    tx.cursor.execute(
        "UPDATE jobs SET state = 'queued', attempt = 0, outages = 0, rescues = 0, finished_at = NULL, "
        "cancel_asked_at = NULL, deadline = NULL, run_at = ?, sort_key = ? WHERE id = ?",
        (tx.now, sort_key(tx.now, job.priority), id_),
    )
    waiting = add_waiting(tx, 1)
    if max_jobs is not None:
        check_waiting(waiting, max_jobs, [job.owner], tx)
    record_event(tx, id_, "queued", job.fence)
    return require_job(tx, id_)


def delete(tx: Transaction, id_: str) -> None:
    """Delete a job that has ended, and all that belongs to it.

    :raises WrongState: when it has not ended.
    """
    job = require_job(tx, id_)
    if not job.ended:
        raise WrongState(f"it is {job.state}; cancel it first")
    tx.cursor.execute("DELETE FROM jobs WHERE id = ?", (id_,))
    tx.changed.add(id_)


def put_user_artifact(
    tx: Transaction,
    id_: str,
    artifact: Artifact | ArtifactFile,
    max_bytes: int | None = None,
    free: int | None = None,
) -> tuple[ArtifactInfo, bool]:
    """Store an artifact that a user gives to a job.

    :param max_bytes: how many bytes the users' artifacts of the job may have together; :param free: bytes that are free
        on the disk, if known.
    :return: what is known of it, and whether its name is new.
    :raises TooManyArtifacts, ArtifactsTooLarge, TooMuchStored:
    """
    job = require_job(tx, id_)
    count, size = tx.cursor.execute(OTHER_ARTIFACTS, (id_, artifact.name, *sorted(OWN_ARTIFACTS))).fetchone()
    if count >= MAX_ARTIFACTS:
        raise TooManyArtifacts(f"a job may have {MAX_ARTIFACTS} artifacts of yours; replace one, or use another job")
    # Checked before anything is copied: a refused artifact must not delay other writes.
    new = len(artifact.data) if isinstance(artifact, Artifact) else artifact.measure()[0]
    if max_bytes is not None and size + new > max_bytes:
        raise ArtifactsTooLarge(
            f"your artifacts of a job may have {max_bytes} bytes together, and these would have {size + new}"
        )
    old = tx.cursor.execute(
        "SELECT coalesce(sum(bytes), 0) FROM artifacts WHERE job_id = ? AND name = ?", (id_, artifact.name)
    ).fetchone()[0]
    check_storage_share(tx, [job.owner], free, new, to_come=new - old)
    return put_artifact(tx, id_, artifact, job.fence)
