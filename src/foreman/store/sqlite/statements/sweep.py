"""What depends on the clock: queue jobs that are due, discard jobs that have expired, and store the time of the clock."""

from __future__ import annotations

from foreman.store.sqlite.statements.transaction import (
    Transaction,
    end_waiting,
    expired_error,
    record_event,
    require_job,
)

#: How many jobs one sweep changes of each kind, so that it does not hold the writer for long.
BATCH = 500

DUE = "SELECT id FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at, id LIMIT ?"
EXPIRED = (
    "SELECT id FROM jobs INDEXED BY jobs_expiring WHERE deadline IS NOT NULL AND finished_at IS NULL AND deadline <= ? "
    "AND state <> 'running' ORDER BY deadline, id LIMIT ?"
)
NEXT_DUE = "SELECT min(run_at) FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled'"
NEXT_EXPIRY = (
    "SELECT min(deadline) FROM jobs INDEXED BY jobs_expiring WHERE deadline IS NOT NULL AND finished_at IS NULL "
    "AND state <> 'running'"
)


def sweep(tx: Transaction) -> int | None:
    """Queue the jobs that are due, and discard those that have expired.

    :return: when the next job is due or expires, None if none does; not later than now where more wait for a sweep.
    """
    due = tx.cursor.execute(DUE, (tx.now, BATCH)).fetchall()
    for (id_,) in due:
        tx.cursor.execute("UPDATE jobs SET state = 'queued' WHERE id = ? AND state = 'scheduled'", (id_,))
        job = require_job(tx, id_)
        record_event(tx, id_, "queued", job.fence)
    expired = tx.cursor.execute(EXPIRED, (tx.now, BATCH)).fetchall()
    for (id_,) in expired:
        job = require_job(tx, id_)
        end_waiting(tx, job, "discarded", expired_error(job))
    moments = [tx.cursor.execute(statement).fetchone()[0] for statement in (NEXT_DUE, NEXT_EXPIRY)]
    return min((moment for moment in moments if moment is not None), default=None)


def cap_retry_delays(tx: Transaction, max_delay: int) -> None:
    """Make jobs due now that would wait longer than ``max_delay`` milliseconds for a retry: the clock was set back."""
    tx.cursor.execute(
        "UPDATE jobs SET run_at = ? WHERE id IN (SELECT id FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled' "
        "AND run_at > ? AND fence > 0)",
        (tx.now, tx.now + max_delay),
    )


def save_clock(tx: Transaction, wall: int, steady_for: int) -> None:
    """Store the wall clock's time in milliseconds, and for how many seconds it has run without being set."""
    tx.cursor.execute("INSERT OR REPLACE INTO meta VALUES ('clock', ?)", (f"{wall} {steady_for}",))
