"""Store new jobs: all of a submission or none, and a job whose idempotency key is known is not stored again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from attrs import evolve

from foreman.jobs.job import EnqueueResult, Job, NewJob, State, sort_key
from foreman.protocol import model_names
from foreman.store.errors import KeyReused, TooManyJobs
from foreman.store.sqlite.statements.rows import group_key_of, job_of
from foreman.store.sqlite.statements.transaction import (
    Transaction,
    add_waiting,
    check_storage_share,
    owner_totals,
    record_event,
)
from foreman.util.byte_budget import SHARE, is_fair


def enqueue(
    tx: Transaction, new: Sequence[NewJob], ids: Sequence[str], max_jobs: int, free: int | None = None
) -> list[EnqueueResult]:
    """Store all of ``new``, or none.

    :param ids: one for each; :param max_jobs: how many may wait; :param free: bytes that are free on the disk, if known.
    :raises KeyReused, TooManyJobs, TooMuchStored:
    """
    results = [_enqueue(tx, job, id_, index) for index, (job, id_) in enumerate(zip(new, ids, strict=True))]
    stored = sum(not result.replayed for result in results)
    if stored:
        owners = {job.owner for job in new}
        check_waiting(add_waiting(tx, stored), max_jobs, owners, tx)
        added = sum(len(job.payload) for job, result in zip(new, results, strict=True) if not result.replayed)
        check_storage_share(tx, owners, free, added)
    return results


def check_waiting(waiting: int, max_jobs: int, owners: Iterable[str], tx: Transaction) -> None:
    """Check that not too many jobs wait, in all and of each of ``owners``.

    :param waiting: how many wait now, with the new ones.
    :raises TooManyJobs: if too many do.
    """
    if waiting > max_jobs:
        raise TooManyJobs(f"{max_jobs} jobs wait already, the most that FOREMAN_MAX_JOBS allows")
    for owner in owners:
        held, _bytes = owner_totals(tx, owner)
        if not is_fair(held - 1, max_jobs - waiting + 1, max_jobs):
            raise TooManyJobs(
                f"you would have {held} jobs waiting; one caller may have at most {SHARE}/{SHARE + 1} of FOREMAN_MAX_JOBS "
                f"({max_jobs}), less when others wait too"
            )


def _enqueue(tx: Transaction, new: NewJob, id_: str, index: int) -> EnqueueResult:
    run_at = tx.now if new.run_at is None else max(new.run_at, tx.now)
    state: State = "scheduled" if run_at > tx.now else "queued"
    key = sort_key(run_at, new.priority)
    model_key = model_names.canonical(new.model)
    inserted = tx.cursor.execute(
        "INSERT INTO jobs (id, state, endpoint, lane, family, model, model_key, group_key, owner, priority, sort_key, "
        "run_at, deadline, max_attempts, idempotency_key, fingerprint, created_at, bytes) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (owner, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING",
        (
            id_, state, new.endpoint, new.lane, new.family, new.model, model_key, group_key_of(model_key), new.owner,
            new.priority, key, run_at, new.deadline, new.max_attempts, new.idempotency_key,
            new.fingerprint, tx.now, len(new.payload),
        ),
    ).rowcount  # fmt: skip
    if not inserted:
        return _replay(tx, new, index)
    headers = msgspec.json.encode(new.headers).decode()
    tx.cursor.execute(
        "INSERT INTO payloads VALUES (?, ?, ?, ?, ?, ?)",
        (id_, new.payload, new.content_type, new.content_encoding, headers, new.stream),
    )
    if new.metadata:
        rows = [(id_, key, value) for key, value in new.metadata.items()]
        tx.cursor.executemany("INSERT INTO job_metadata VALUES (?, ?, ?)", rows)
    record_event(tx, id_, state, 0)
    tx.will_be_due(run_at if state == "scheduled" else None)
    tx.will_be_due(new.deadline)
    return EnqueueResult(id_, replayed=False, job=_as_job(new, id_, state, key, run_at, tx.now))


def _as_job(new: NewJob, id_: str, state: State, key: int, run_at: int, now: int) -> Job:
    return Job(
        id=id_,
        state=state,
        endpoint=new.endpoint,
        lane=new.lane,
        family=new.family,
        model=new.model,
        owner=new.owner,
        priority=new.priority,
        sort_key=key,
        run_at=run_at,
        deadline=new.deadline,
        attempt=0,
        max_attempts=new.max_attempts,
        uncounted_tries=0,
        rescues=0,
        fence=0,
        instance=None,
        cancel_asked_at=None,
        idempotency_key=new.idempotency_key,
        error=None,
        usage=None,
        created_at=now,
        started_at=None,
        finished_at=None,
        metadata=new.metadata,
    )


def _replay(tx: Transaction, new: NewJob, index: int) -> EnqueueResult:
    known, fingerprint = tx.cursor.execute(
        "SELECT id, fingerprint FROM jobs INDEXED BY jobs_key WHERE owner = ? AND idempotency_key = ?",
        (new.owner, new.idempotency_key),
    ).fetchone()
    if fingerprint != new.fingerprint:
        raise KeyReused(index)
    job = job_of(tx.cursor, known)
    assert job is not None
    return EnqueueResult(known, replayed=True, job=evolve(job, metadata=new.metadata))
