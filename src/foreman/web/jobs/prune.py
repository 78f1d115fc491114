"""Forgetting many jobs at once, a few at a time, so that others get to write in between."""

from __future__ import annotations

from collections.abc import Sequence

from foreman import errors
from foreman.jobs.job import State
from foreman.store.job_store import JobStore
from foreman.web.jobs.wakeups import Wakeups

#: Between two batches, in seconds.
BREATH = 0.02


async def forget(store: JobStore, wakeups: Wakeups, states: Sequence[State], before: int, owner: str | None) -> int:
    """Forget the jobs of ``owner``, None for everybody's, that ended in one of ``states`` before ``before``; how many.

    Cancelling it leaves the rest as it is.

    :param before: milliseconds since the epoch.
    :raises errors.Draining: when foreman stops.
    """
    count = 0
    for state in states:
        after: str | None = ""
        while after is not None:
            forgotten = await store.delete_batch(state, before, owner, after)
            count, after = count + forgotten.count, forgotten.last
            if after is not None:
                await wakeups.first_of(seconds=BREATH)
                if wakeups.closed:
                    raise errors.Draining(f"foreman is stopping; {count} jobs are deleted, and more are left")
    return count
