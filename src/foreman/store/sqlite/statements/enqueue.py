"""Hand jobs over: all of them or none, and a repetition is no new job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from attrs import evolve, frozen

from foreman.errors import ForemanError
from foreman.jobs.job import Job, NewJob, State, sort_key
from foreman.protocol import model_names
from foreman.store.sqlite.statements.rows import group_key_of, job_of
from foreman.store.sqlite.statements.transaction import Transaction, add_waiting, check_room, held_by, tell
from foreman.util.byte_budget import SHARE, is_fair


@frozen
class Enqueued:
    """A job that was handed over, or its repetition.

    :ivar job: as its row has it, with its metadata; without artifacts and position.
    """

    id: str
    replayed: bool
    job: Job


class KeyReused(ForemanError):
    """The idempotency key was used for another request; ``index`` says whose of those handed over."""

    def __init__(self, index: int) -> None:
        super().__init__("this idempotency key was used for another request")
        self.index = index


class TooManyJobs(ForemanError):
    """As many jobs wait as may, of all callers or of this one."""


def enqueue(
    tx: Transaction, new: Sequence[NewJob], ids: Sequence[str], most: int, room: int | None = None
) -> list[Enqueued]:
    """Take all of ``new``, or none.

    :param ids: one for each; :param most: how many may wait; :param room: bytes that are left on the disk, if known.
    :raises KeyReused, TooManyJobs, TooMuchStored:
    """
    enqueued = [_enqueue(tx, one, id_, index) for index, (one, id_) in enumerate(zip(new, ids, strict=True))]
    fresh = sum(not one.replayed for one in enqueued)
    if fresh:
        owners = {one.owner for one in new}
        check_waiting(add_waiting(tx, fresh), most, owners, tx)
        added = sum(len(one.payload) for one, known in zip(new, enqueued, strict=True) if not known.replayed)
        check_room(tx, owners, room, added)
    return enqueued


def check_waiting(waiting: int, most: int, owners: Iterable[str], tx: Transaction) -> None:
    """Whether so many may wait, and those of each of ``owners``.

    :param waiting: how many wait now, the new ones included.
    :raises TooManyJobs: if not.
    """
    if waiting > most:
        raise TooManyJobs(f"{most} jobs wait already, as many as may (FOREMAN_MAX_JOBS)")
    for owner in owners:
        held, _bytes = held_by(tx, owner)
        if not is_fair(held - 1, most - waiting + 1, most):
            raise TooManyJobs(
                f"you would have {held} jobs waiting; one caller may have at most {SHARE}/{SHARE + 1} of FOREMAN_MAX_JOBS "
                f"({most}), less when others wait too"
            )


def _enqueue(tx: Transaction, new: NewJob, id_: str, index: int) -> Enqueued:
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
    tell(tx, id_, state, 0)
    tx.will_be_due(run_at if state == "scheduled" else None)
    tx.will_be_due(new.deadline)
    return Enqueued(id_, replayed=False, job=_as_job(new, id_, state, key, run_at, tx.now))


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
        outages=0,
        rescues=0,
        fence=0,
        boot=None,
        cancel_asked_at=None,
        idempotency_key=new.idempotency_key,
        error=None,
        usage=None,
        created_at=now,
        started_at=None,
        finished_at=None,
        metadata=new.metadata,
    )


def _replay(tx: Transaction, new: NewJob, index: int) -> Enqueued:
    known, fingerprint = tx.cursor.execute(
        "SELECT id, fingerprint FROM jobs INDEXED BY jobs_key WHERE owner = ? AND idempotency_key = ?",
        (new.owner, new.idempotency_key),
    ).fetchone()
    if fingerprint != new.fingerprint:
        raise KeyReused(index)
    job = job_of(tx.cursor, known)
    assert job is not None
    return Enqueued(known, replayed=True, job=evolve(job, metadata=new.metadata))
