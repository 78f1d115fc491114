"""Forget jobs that ended long ago, a few at a time, so that the writer is not held for long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import frozen

from foreman.jobs.job import State
from foreman.store.sqlite.statements.rows import first_id
from foreman.store.sqlite.statements.transaction import Transaction

T = TypeVar("T")

#: How many a step forgets: each takes its payload, artifacts and events with it.
BATCH = 100
#: Ids begin with the time of their making, which was before the end: they bound what is looked at.
OLD = "SELECT id FROM jobs INDEXED BY jobs_state WHERE state = ? AND id < ? AND finished_at < ? ORDER BY id LIMIT ?"
#: How many bytes of payloads and artifacts a step deletes at the most, unless one job has more: each is overwritten.
MAX_BYTES = 32 * 1024 * 1024
SIZE = (
    "SELECT (SELECT coalesce(sum(bytes), 0) FROM artifacts WHERE job_id = :id) + "
    "(SELECT coalesce(sum(length(payload)), 0) FROM payloads WHERE job_id = :id)"
)
#: How many a step looks at for somebody's own: those of others are passed by.
LOOK = 1000
ENDED = "SELECT id, owner, finished_at FROM jobs INDEXED BY jobs_state WHERE state = ? AND id > ? AND id < ? ORDER BY id LIMIT ?"
DELETE = "DELETE FROM jobs WHERE id = ?"


@frozen
class Forgotten:
    """What a step has done.

    :ivar count: of the jobs that are gone; :ivar last: where the next step goes on, None when there is none.
    """

    count: int
    last: str | None


def prune(tx: Transaction, state: State, before: int) -> int:
    """Forget up to BATCH jobs that are in ``state`` and ended before ``before``, milliseconds since the epoch.

    :return: how many those were.
    """
    rows = tx.cursor.execute(OLD, (state, first_id(before, leeway=True), before, BATCH)).fetchall()
    return _delete(tx, [id_ for (id_,) in rows])


def forget(tx: Transaction, state: State, before: int, owner: str | None, after: str) -> Forgotten:
    """Forget up to BATCH jobs that are in ``state``, ended before ``before`` and are those of ``owner``.

    :param before: milliseconds since the epoch; :param owner: None for everybody's;
    :param after: the last id that was looked at, empty for the first step.
    """
    rows = tx.cursor.execute(ENDED, (state, after, first_id(before, leeway=True), LOOK)).fetchall()
    chosen: list[str] = []
    last: str | None = rows[-1][0] if len(rows) == LOOK else None
    for id_, whose, finished_at in rows:
        if owner in {None, whose} and finished_at < before:
            chosen.append(id_)
        if len(chosen) == BATCH:
            last = id_
            break
    count = _delete(tx, chosen)
    return Forgotten(count, last if count == len(chosen) else chosen[count - 1])


def _delete(tx: Transaction, ids: Sequence[str]) -> int:
    """Delete the first of these jobs, as many as MAX_BYTES allow, one at least; how many those were."""
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
    """Run ``step``, which deletes, on a disk that is full: overwriting takes as much room in the log as what is deleted.

    Its pages are given back to the disk by ``opening.shrink`` instead, as those that an older foreman left.
    """
    tx.cursor.execute("PRAGMA secure_delete = FAST").fetchone()
    try:
        tx.cursor.execute("DELETE FROM meta WHERE key = 'clean'")
        return step(tx)
    finally:
        tx.cursor.execute("PRAGMA secure_delete = ON").fetchone()


def note_clock(tx: Transaction, wall: int, calm: int) -> None:
    """Write down what the wall clock says, in milliseconds, and for how many seconds it has gone evenly."""
    tx.cursor.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (f"{wall} {calm}",))
