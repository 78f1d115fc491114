"""Who is next through the gate: a pure function of who waits."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from foreman.util.clock import EpochSeconds, Monotonic

#: A job that has waited for too long gets every fourth turn: after so many people.
PEOPLE_BEFORE_JOB = 3


@frozen(eq=False)
class Ticket:
    """One place in the waiting room.

    :ivar id: a ULID; :ivar caller: who asks; :ivar model: as typed, None when it could not be read;
    :ivar route: the path; :ivar queued_at: when it was queued;
    :ivar overdue_at: of a job: from then on it no longer gives way to every request; None: not a job.
    """

    id: str
    caller: str
    model: str | None
    route: str
    queued_at: EpochSeconds
    overdue_at: Monotonic | None = None

    @property
    def is_job(self) -> bool:
        """Whether nobody waits for it on a socket."""
        return self.overdue_at is not None


def next_up(people: Iterable[Ticket], jobs: Iterable[Ticket], now: Monotonic, since_job: int) -> Ticket:
    """Whose turn it is: people before jobs, and among each first in, first out. One of both is not empty.

    :param people, jobs: in the order of arrival; :param now: seconds of the clock;
    :param since_job: how many people have had a turn since the last job.
    """
    person, job = next(iter(people), None), next(iter(jobs), None)
    if job is None or job.overdue_at is None:
        assert person is not None
        return person
    if person is None or (since_job >= PEOPLE_BEFORE_JOB and job.overdue_at <= now):
        return job
    return person
