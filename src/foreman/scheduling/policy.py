"""The policy: chooses the next ticket at the gate, as a pure function of the tickets that wait."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from foreman.util.clock import EpochSeconds, Monotonic

#: While a job is overdue, jobs get every fourth turn: one after this many requests.
REQUESTS_BEFORE_JOB = 3


@frozen(eq=False)
class Ticket:
    """One place in the queue.

    :ivar id: a ULID; :ivar caller: whose request or job it is; :ivar model: as typed, None when it could not be read;
    :ivar route: the path; :ivar queued_at: when it was queued;
    :ivar overdue_at: from when on a job no longer lets every request go first; None: it is not a job's.
    """

    id: str
    caller: str
    model: str | None
    route: str
    queued_at: EpochSeconds
    overdue_at: Monotonic | None = None

    @property
    def is_job(self) -> bool:
        """Whether it belongs to a job, for which no client waits on a connection."""
        return self.overdue_at is not None


def next_ticket(requests: Iterable[Ticket], jobs: Iterable[Ticket], now: Monotonic, since_job: int) -> Ticket:
    """The ticket that is next: requests before jobs, and each first in, first out. At least one of both is not empty.

    :param requests, jobs: in the order of arrival; :param now: the present;
    :param since_job: how many requests have had a turn since the last job.
    """
    request, job = next(iter(requests), None), next(iter(jobs), None)
    if job is None or job.overdue_at is None:
        assert request is not None
        return request
    if request is None or (since_job >= REQUESTS_BEFORE_JOB and job.overdue_at <= now):
        return job
    return request
