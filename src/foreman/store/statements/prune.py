"""Forget jobs that ended long ago, a few at a time, so that the writer is not held for long."""

from __future__ import annotations

from foreman.job import State
from foreman.store.rows import first_id
from foreman.store.statements.shared import Transaction

#: How many a step forgets: each takes its payload, artifacts and events with it.
BATCH = 100
#: Ids begin with the time of their making, which was before the end: they bound what is looked at.
PRUNE = (
    "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_state WHERE state = ? AND id < ? "
    "AND finished_at < ? ORDER BY id LIMIT ?) RETURNING id"
)


def prune(tx: Transaction, state: State, before: int) -> int:
    """Forget up to BATCH jobs that are in ``state`` and ended before ``before``, milliseconds since the epoch.

    :return: how many those were.
    """
    rows = tx.cursor.execute(PRUNE, (state, first_id(before, leeway=True), before, BATCH)).fetchall()
    tx.changed.update(id_ for (id_,) in rows)
    return len(rows)
