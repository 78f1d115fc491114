"""Parameters and results of the store's operations: filters, events, counts, and the progress of a deletion."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from foreman.jobs.job import Job, JobLane, State


@frozen(kw_only=True)
class Filter:
    """Which jobs are listed; None or an empty value places no condition.

    :ivar created_after, created_before: milliseconds since the epoch; the first inclusive, the second exclusive.
    """

    states: tuple[State, ...] = ()
    model: str | None = None
    endpoint: str | None = None
    lane: JobLane | None = None
    owner: str | None = None
    created_after: int | None = None
    created_before: int | None = None
    metadata: Mapping[str, str] = {}


@frozen
class Event:
    """A recorded change of a job.

    :ivar id: grows with time; :ivar at: milliseconds since the epoch; :ivar type: the job's new state, or ``released``
        or ``rescued``; :ivar attempt: the fence of the attempt; :ivar error: its class and message, None where none.
    """

    id: int
    at: int
    type: str
    attempt: int
    error: str | None


@frozen
class Counts:
    """How many jobs are scheduled and queued, and the jobs that are running."""

    scheduled: int
    queued: int
    running: tuple[Job, ...]


@frozen
class DeletedBatch:
    """The result of one step of a deletion.

    :ivar count: how many jobs it deleted; :ivar last: the id after which the next step continues, None when the
        deletion is complete.
    """

    count: int
    last: str | None
