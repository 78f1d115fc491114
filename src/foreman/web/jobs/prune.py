"""Deleting many ended jobs, in small batches, so that other writes to the store get in between."""

from __future__ import annotations

from collections.abc import Sequence

from foreman import errors
from foreman.jobs.job import State
from foreman.store.job_store import JobStore
from foreman.web.jobs.wakeups import Wakeups

#: The pause between two batches, in seconds.
PAUSE = 0.02


async def delete_jobs(
    store: JobStore, wakeups: Wakeups, states: Sequence[State], before: int, owner: str | None
) -> int:
    """Delete the jobs of ``owner`` (None: of everybody) that ended in one of ``states`` before ``before``.

    Cancelling it keeps the jobs that are not deleted yet.

    :param before: milliseconds since the epoch.
    :return: how many jobs were deleted.
    :raises errors.Draining: when foreman stops.
    """
    count = 0
    for state in states:
        after: str | None = ""
        while after is not None:
            batch = await store.delete_batch(state, before, owner, after)
            count, after = count + batch.count, batch.last
            if after is not None:
                await wakeups.first_of(seconds=PAUSE)
                if wakeups.closed:
                    raise errors.Draining(
                        f"foreman is stopping; {count} jobs were deleted, and more are left: repeat the request"
                    )
    return count
