"""What becomes of jobs by the clock: they are due, or have expired."""

from __future__ import annotations

from foreman.store.sqlite.statements.transaction import Transaction, end_waiting, existing, expired_error, tell

#: How many a sweep takes at once, so that the writer is not held for long.
SWEEP = 500

DUE = "SELECT id FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at, id LIMIT ?"
EXPIRING = (
    "SELECT id FROM jobs INDEXED BY jobs_expiring WHERE deadline IS NOT NULL AND finished_at IS NULL AND deadline <= ? "
    "AND state <> 'running' ORDER BY deadline, id LIMIT ?"
)
NEXT_DUE = "SELECT min(run_at) FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled'"
NEXT_EXPIRING = (
    "SELECT min(deadline) FROM jobs INDEXED BY jobs_expiring WHERE deadline IS NOT NULL AND finished_at IS NULL "
    "AND state <> 'running'"
)


def sweep(tx: Transaction) -> int | None:
    """Queue what is due, and discard what has expired.

    :return: when the next is due or expires, None if none will; not later than now where more wait for a sweep.
    """
    due = tx.cursor.execute(DUE, (tx.now, SWEEP)).fetchall()
    for (id_,) in due:
        tx.cursor.execute("UPDATE jobs SET state = 'queued' WHERE id = ? AND state = 'scheduled'", (id_,))
        job = existing(tx, id_)
        tell(tx, id_, "queued", job.fence)
    expired = tx.cursor.execute(EXPIRING, (tx.now, SWEEP)).fetchall()
    for (id_,) in expired:
        job = existing(tx, id_)
        end_waiting(tx, job, "discarded", expired_error(job))
    moments = [tx.cursor.execute(statement).fetchone()[0] for statement in (NEXT_DUE, NEXT_EXPIRING)]
    return min((moment for moment in moments if moment is not None), default=None)


def hasten(tx: Transaction, longest: int) -> None:
    """Bring forward what was to be tried again later than any pause: the clock was set back.

    :param longest: milliseconds.
    """
    tx.cursor.execute(
        "UPDATE jobs SET run_at = ? WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled' "
        "AND run_at > ? AND fence > 0)",
        (tx.now, tx.now + longest),
    )
