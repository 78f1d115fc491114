"""Delete jobs that have ended, a few at a time, so that one step does not hold the writer for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from foreman.jobs.job import State
from foreman.jobs.queries import DeletedBatch
from foreman.store.sqlite.statements.rows import first_id
from foreman.store.sqlite.statements.transaction import Transaction

T = TypeVar("T")

#: How many jobs a step deletes, each with its payload, artifacts and events.
BATCH = 100
#: An id begins with the time of creation, which is before the end: that bounds the rows that are read.
OLD = "SELECT id FROM jobs INDEXED BY jobs_state WHERE state = ? AND id < ? AND finished_at < ? ORDER BY id LIMIT ?"
#: How many bytes of payloads and artifacts a step deletes, unless its first job has more: each of them is overwritten.
MAX_BYTES = 32 * 1024 * 1024
SIZE = (
    "SELECT (SELECT coalesce(sum(bytes), 0) FROM artifacts WHERE job_id = :id) + "
    "(SELECT coalesce(sum(length(payload)), 0) FROM payloads WHERE job_id = :id)"
)
#: How many rows a step reads when it looks for the jobs of one owner.
MAX_ROWS = 1000
ENDED = "SELECT id, owner, finished_at FROM jobs INDEXED BY jobs_state WHERE state = ? AND id > ? AND id < ? ORDER BY id LIMIT ?"
DELETE = "DELETE FROM jobs WHERE id = ?"


def prune(tx: Transaction, state: State, before: int) -> int:
    """Delete up to BATCH jobs that ended in ``state`` before ``before``, milliseconds since the epoch.

    :return: how many those were.
    """
    rows = tx.cursor.execute(OLD, (state, first_id(before, leeway=True), before, BATCH)).fetchall()
    return _delete(tx, [id_ for (id_,) in rows])


def delete_batch(tx: Transaction, state: State, before: int, owner: str | None, after: str) -> DeletedBatch:
    """Delete up to BATCH jobs of ``owner`` that ended in ``state`` before ``before``.

    :param before: milliseconds since the epoch; :param owner: None for those of everybody;
    :param after: the last id that the step before read, empty for the first step.
    """
    rows = tx.cursor.execute(ENDED, (state, after, first_id(before, leeway=True), MAX_ROWS)).fetchall()
    chosen: list[str] = []
    last: str | None = rows[-1][0] if len(rows) == MAX_ROWS else None
    for id_, owner_of_row, finished_at in rows:
        if owner in {None, owner_of_row} and finished_at < before:
            chosen.append(id_)
        if len(chosen) == BATCH:
            last = id_
            break
    count = _delete(tx, chosen)
    return DeletedBatch(count, last if count == len(chosen) else chosen[count - 1])


def _delete(tx: Transaction, ids: Sequence[str]) -> int:
    """Delete the first of these jobs, as many as MAX_BYTES allows and at least one; returns how many."""
    chosen: list[str] = []
    size = 0
    for id_ in ids:
        chosen.append(id_)
        size += tx.cursor.execute(SIZE, {"id": id_}).fetchone()[0]
        if size >= MAX_BYTES:
            break
    tx.cursor.executemany(DELETE, [(id_,) for id_ in chosen])
    tx.changed.update(chosen)
    return len(chosen)


def without_overwriting(tx: Transaction, step: Callable[[Transaction], T]) -> T:
    """Run ``step``, which deletes, on a full disk: overwriting needs as much space in the log as what it overwrites.

    ``maintenance.reclaim_space`` returns its pages to the disk instead, like those that an older foreman left.
    """
    tx.cursor.execute("PRAGMA secure_delete = FAST").fetchone()
    try:
        tx.cursor.execute("DELETE FROM meta WHERE key = 'clean'")
        return step(tx)
    finally:
        tx.cursor.execute("PRAGMA secure_delete = ON").fetchone()
