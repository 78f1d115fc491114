"""Who is next: people before jobs, and a job that is overdue after three of them."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from foreman.scheduling.policy import REQUESTS_BEFORE_JOB, Ticket, next_ticket
from foreman.util.clock import EpochSeconds, Monotonic


def person(name: str) -> Ticket:
    return Ticket(name, "someone", "m", "/api/chat", EpochSeconds(0.0))


def job(name: str, overdue_at: float) -> Ticket:
    return Ticket(name, "someone", "m", "/api/chat", EpochSeconds(0.0), Monotonic(overdue_at))


def test_whoever_is_alone_is_next() -> None:
    one, other = person("a"), job("b", 1e9)
    assert next_ticket([one], [], Monotonic(0), 0) is one
    assert next_ticket([], [other], Monotonic(0), 0) is other


def test_a_person_is_before_a_job_however_many_have_passed() -> None:
    one = person("a")
    assert next_ticket([one], [job("b", 10.0)], Monotonic(9.9), 1000) is one


def test_a_job_that_is_overdue_goes_after_three_people_and_not_before() -> None:
    one, late = person("a"), job("b", 10.0)
    for since_job in range(REQUESTS_BEFORE_JOB):
        assert next_ticket([one], [late], Monotonic(10.0), since_job) is one
    assert next_ticket([one], [late], Monotonic(10.0), REQUESTS_BEFORE_JOB) is late


def test_among_each_the_first_to_come_is_the_first_to_go() -> None:
    people, jobs = [person(name) for name in "abc"], [job(name, 0.0) for name in "xyz"]
    assert next_ticket(people, jobs, Monotonic(1.0), 0) is people[0]
    assert next_ticket(people, jobs, Monotonic(1.0), 3) is jobs[0]


@given(st.lists(st.sampled_from("pj"), max_size=60), st.integers(0, 60))
def test_of_any_crowd_everybody_is_served_in_order_and_overdue_jobs_get_every_fourth_turn(
    tracked: list[str], overdue_after: int
) -> None:
    people = deque(person(str(number)) for number, kind in enumerate(tracked) if kind == "p")
    jobs = deque(job(str(number), float(overdue_after)) for number, kind in enumerate(tracked) if kind == "j")
    served: list[Ticket] = []
    since_job = 0
    while people or jobs:
        crowded = bool(people and jobs)
        ticket = next_ticket(people, jobs, Monotonic(len(served)), since_job)
        overdue = len(served) >= overdue_after
        if crowded:
            assert ticket.is_job is (overdue and since_job >= REQUESTS_BEFORE_JOB)
        since_job = 0 if ticket.is_job else since_job + 1
        (jobs if ticket.is_job else people).remove(ticket)
        served.append(ticket)
    for kind in (True, False):
        names = [int(ticket.id) for ticket in served if ticket.is_job is kind]
        assert names == sorted(names)
