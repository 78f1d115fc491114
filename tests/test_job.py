"""What becomes of a job when a try fails, decided from facts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from foreman.jobs.job import ENDED, FOLLOWS, STATES, ErrorClass, Job, sort_key
from foreman.jobs.retry_policy import (
    MAX_RESCUES,
    MAX_RETRY_DELAY,
    MAX_UNCOUNTED_TRIES,
    RETRY_DELAYS,
    AttemptError,
    Transition,
    next_transition,
    rescue_transition,
    retry_delay,
)

NOW = 1_700_000_000_000
BLAMELESS: tuple[ErrorClass, ...] = ("unreachable", "busy", "model_missing", "unauthorized")
TRIED_AGAIN: tuple[ErrorClass, ...] = ("target_error", "truncated", "silent")
FINAL: tuple[ErrorClass, ...] = ("refused", "too_large")


def running(**facts: Any) -> Job:
    """A job in its first try of five."""
    plain: dict[str, Any] = {
        "id": "0" * 26, "state": "running", "endpoint": "/api/chat", "lane": "gate", "family": "ollama", "model": "m",
        "owner": "o", "priority": 5, "sort_key": NOW, "run_at": NOW, "deadline": None, "attempt": 1, "max_attempts": 5,
        "uncounted_tries": 0, "rescues": 0, "fence": 1, "instance": "b", "cancel_asked_at": None, "idempotency_key": None,
        "error": None, "usage": None, "created_at": NOW, "started_at": NOW, "finished_at": None,
    }  # fmt: skip
    return Job(**{**plain, **facts})


running_jobs = st.builds(
    running,
    attempt=st.integers(1, 100),
    max_attempts=st.integers(1, 100),
    uncounted_tries=st.integers(0, 10),
    rescues=st.integers(0, 5),
    deadline=st.none() | st.integers(-10_000_000, 10_000_000).map(lambda by: NOW + by),
    cancel_asked_at=st.none() | st.just(NOW - 1),
)
mishaps = st.builds(
    AttemptError,
    st.sampled_from(BLAMELESS + TRIED_AGAIN + FINAL + ("expired",)),
    st.just("why"),
    st.none() | st.floats(),
    st.booleans(),
)
jitters = st.floats(0, 1)


@given(running_jobs, mishaps, jitters)
def test_a_try_that_failed_leads_to_a_state_that_may_follow(job: Job, mishap: AttemptError, jitter: float) -> None:
    ending = next_transition(job, mishap, NOW, jitter)
    assert ending.state in FOLLOWS["running"]
    assert ending.state != "succeeded"
    assert (ending.state == "scheduled") == (ending.run_at is not None)


@given(running_jobs)
def test_a_rescue_leads_to_a_state_that_may_follow(job: Job) -> None:
    assert rescue_transition(job).state in FOLLOWS["running"]


@given(running_jobs, mishaps, jitters)
def test_a_job_that_was_cancelled_never_runs_again(job: Job, mishap: AttemptError, jitter: float) -> None:
    job = evolve(job, cancel_asked_at=NOW)
    assert next_transition(job, mishap, NOW, jitter).state == "cancelled"
    assert rescue_transition(job).state == "cancelled"


@given(running_jobs, st.sampled_from(BLAMELESS), st.booleans(), jitters)
def test_what_the_job_is_not_to_blame_for_burns_no_attempt(
    job: Job, error_class: ErrorClass, reached: bool, jitter: float
) -> None:
    job = evolve(job, uncounted_tries=min(job.uncounted_tries, MAX_UNCOUNTED_TRIES - 1))
    ending = next_transition(job, AttemptError(error_class, "why", reached=reached), NOW, jitter)
    assert not ending.counts
    assert ending.state != "failed"


@given(running_jobs, st.sampled_from(BLAMELESS), jitters)
def test_an_outage_has_no_end_but_the_deadline(job: Job, error_class: ErrorClass, jitter: float) -> None:
    job = evolve(job, deadline=None, cancel_asked_at=None, uncounted_tries=1_000_000)
    assert next_transition(job, AttemptError(error_class, "why"), NOW, jitter).state in {"queued", "scheduled"}


@given(running_jobs, mishaps, jitters)
def test_nothing_is_scheduled_beyond_its_deadline(job: Job, mishap: AttemptError, jitter: float) -> None:
    ending = next_transition(job, mishap, NOW, jitter)
    if job.deadline is not None and ending.state in {"queued", "scheduled"}:
        assert (ending.run_at or NOW) < job.deadline


@given(running_jobs, mishaps, jitters)
def test_no_pause_is_longer_than_the_longest_nor_in_the_past(job: Job, mishap: AttemptError, jitter: float) -> None:
    ending = next_transition(job, mishap, NOW, jitter)
    if ending.run_at is not None:
        assert NOW + 1000 <= ending.run_at <= NOW + 1000 * MAX_RETRY_DELAY


@given(running_jobs, st.sampled_from(TRIED_AGAIN), jitters)
def test_the_last_attempt_is_the_last(job: Job, error_class: ErrorClass, jitter: float) -> None:
    job = evolve(job, cancel_asked_at=None, deadline=None)
    ending = next_transition(job, AttemptError(error_class, "why"), NOW, jitter)
    assert ending.counts
    assert ending.state == ("discarded" if job.attempt >= job.max_attempts else "scheduled")


@pytest.mark.parametrize("error_class", FINAL)
def test_what_asking_again_would_not_change_has_failed(error_class: ErrorClass) -> None:
    ending = next_transition(running(), AttemptError(error_class, "why"), NOW, 0.5)
    assert (ending.state, ending.counts) == ("failed", True)
    assert ending.error is not None
    assert (ending.error.error_class, ending.error.message, ending.error.attempt) == (error_class, "why", 1)


def test_what_has_expired_while_it_ran_is_discarded() -> None:
    assert next_transition(running(), AttemptError("expired", "why"), NOW, 0.5).state == "discarded"


def test_breaking_off_before_answering_counts_when_it_has_happened_three_times_in_a_row() -> None:
    job, burned = running(), []
    for _ in range(8):
        ending = next_transition(job, AttemptError("unreachable", "reset", reached=True), NOW, 0.5)
        burned.append(ending.counts)
        job = evolve(job, uncounted_tries=ending.uncounted_tries, attempt=job.attempt + ending.counts)
    assert burned == [False, False, False, True, False, False, False, True]


def test_a_target_that_is_away_between_two_breaks_neither_adds_to_them_nor_forgets_them() -> None:
    away, broke_off = AttemptError("unreachable", "refused"), AttemptError("unreachable", "reset", reached=True)
    job, burned = running(), []
    for mishap in (away, away, away, away, broke_off, away, broke_off, broke_off, broke_off):
        ending = next_transition(job, mishap, NOW, 0.5)
        burned.append(ending.counts)
        job = evolve(job, uncounted_tries=ending.uncounted_tries)
    assert burned == [False] * 8 + [True]


@given(st.integers(0, 10), st.sampled_from(["busy", "model_missing", "unauthorized"]))
def test_only_a_break_can_come_to_count(outages: int, error_class: ErrorClass) -> None:
    ending = next_transition(running(uncounted_tries=outages), AttemptError(error_class, "why", reached=True), NOW, 0.5)
    assert not ending.counts
    assert ending.uncounted_tries == outages + 1


def test_a_job_whose_target_is_away_waits_for_no_longer_than_that() -> None:
    ending = next_transition(
        running(uncounted_tries=9, deadline=NOW + 1), AttemptError("unreachable", "refused"), NOW, 1.0
    )
    assert (ending.state, ending.run_at) == ("queued", None)


def test_a_job_whose_deadline_comes_before_another_try_is_discarded_now() -> None:
    ending = next_transition(running(deadline=NOW + 2000), AttemptError("target_error", "it broke"), NOW, 0.5)
    assert ending.state == "discarded"
    assert ending.error is not None
    assert ending.error.error_class == "expired"
    assert "it broke" in ending.error.message


def test_what_the_target_asks_for_is_heeded() -> None:
    ending = next_transition(running(), AttemptError("busy", "why", retry_after=20.0), NOW, 0.9)
    assert (ending.state, ending.run_at) == ("scheduled", NOW + 20_000)


@given(st.integers(-1, 1000), jitters)
def test_a_pause_is_a_half_for_certain_and_a_half_by_chance(times: int, jitter: float) -> None:
    whole = RETRY_DELAYS[min(max(times, 1), len(RETRY_DELAYS)) - 1]
    assert whole / 2 <= retry_delay(times, None, jitter) <= whole


def test_pauses_grow_and_then_stay() -> None:
    assert [retry_delay(times, None, 1.0) for times in range(1, 7)] == [10.0, 30.0, 90.0, 270.0, 270.0, 270.0]


@pytest.mark.parametrize(
    ("asked", "kept"), [(0.0, 1.0), (-5.0, 1.0), (math.nan, 1.0), (7.5, 7.5), (math.inf, MAX_RETRY_DELAY)]
)
def test_a_pause_that_is_asked_for_is_kept_within_reason(asked: float, kept: float) -> None:
    assert retry_delay(1, asked, 0.5) == kept


def test_a_job_is_run_again_three_times_after_foreman_died() -> None:
    states = [rescue_transition(running(rescues=rescues)).state for rescues in range(MAX_RESCUES + 2)]
    assert states == ["queued"] * 3 + ["discarded"] * 2


@given(running_jobs)
def test_foreman_dying_burns_no_attempt_and_is_said(job: Job) -> None:
    ending = rescue_transition(job)
    assert not ending.counts
    if ending.state != "cancelled":
        assert ending.error is not None
        assert ending.error.error_class == "lost"


@given(st.integers(0, 2**45), st.integers(0, 9), st.integers(0, 2**45), st.integers(0, 9))
def test_a_step_of_priority_is_worth_a_minute(one: int, urgency: int, other: int, less: int) -> None:
    assert (sort_key(one, urgency) < sort_key(other, less)) == (one - other < 60_000 * (less - urgency))


def test_every_state_has_its_followers_and_only_success_is_for_good() -> None:
    assert set(FOLLOWS) == set(STATES)
    assert [state for state in STATES if not FOLLOWS[state]] == ["succeeded"]
    assert all(FOLLOWS[state] <= {"queued"} for state in ENDED)


def test_a_job_has_ended_in_four_states() -> None:
    assert [state for state in STATES if running(state=state).ended] == list(ENDED)


def test_an_ending_is_a_value() -> None:
    assert rescue_transition(running()) == rescue_transition(running())
    assert isinstance(rescue_transition(running()), Transition)
