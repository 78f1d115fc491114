"""What happens to jobs by the clock, also when somebody sets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from conftest import LoggedFailures
from foreman.jobs.job import JobError
from foreman.jobs.retry_policy import Transition
from foreman.store.errors import unavailable
from foreman.store.notifications import Notifications
from foreman.worker.due_jobs import MAX_WAIT, DueJobs
from support.new_jobs import job_for
from support.worker_harness import WorkerHarness

HOUR, DAY = 3600.0, 86_400.0


@define(eq=False)
class Moments:
    """A store that only knows when something is due next.

    :ivar due: the next moment, in seconds; :ivar sweeps: when it was looked; :ivar hastened: what was brought forward.
    """

    clock: Clock
    notifications: Notifications = field(factory=Notifications)
    due: float | None = None
    problem: Exception | None = None
    ahead: float = 1_800_000_000.0
    sweeps: list[float] = field(factory=list)
    hastened: list[float] = field(factory=list)
    slow: Deferred[None] | None = None

    def now(self) -> int:
        return int((self.clock.seconds() + self.ahead) * 1000)

    async def sweep(self) -> int | None:
        self.sweeps.append(self.clock.seconds())
        if self.slow is not None:
            await self.slow
        if self.problem is not None:
            raise self.problem
        if self.due is not None and self.due <= self.clock.seconds():
            self.due = None
        return None if self.due is None else int((self.due + self.ahead) * 1000)

    async def cap_retry_delays(self, max_delay: float) -> None:
        self.hastened.append(max_delay)

    def tell(self, due: float) -> None:
        """A job was written that is due then."""
        self.due = due if self.due is None else min(self.due, due)
        self.notifications.announce(frozenset({"x"}), due=int((due + self.ahead) * 1000))


def table(**store: Any) -> tuple[Clock, Moments, DueJobs]:
    clock = Clock()
    moments = Moments(clock, **store)
    made = DueJobs(clock, moments)  # type: ignore[arg-type]
    made.start()
    return clock, moments, made


def stopped(made: DueJobs) -> Deferred[None]:
    return Deferred.fromCoroutine(made.stop())


def test_it_looks_at_once_and_then_when_something_is_due() -> None:
    clock, store, made = table(due=7.5)
    assert store.sweeps == [0]
    clock.advance(7.4)
    assert store.sweeps == [0]
    clock.advance(0.1)
    assert store.sweeps == [0, 7.5]
    stopped(made)


def test_it_looks_now_and_then_though_nothing_is_due() -> None:
    clock, store, made = table(due=HOUR)
    clock.pump([MAX_WAIT] * 3)
    assert store.sweeps == [0, MAX_WAIT, 2 * MAX_WAIT, 3 * MAX_WAIT]
    stopped(made)


def test_an_earlier_one_brings_the_look_forward_and_a_later_one_does_not() -> None:
    clock, store, made = table(due=20.0)
    store.tell(5.0)
    store.tell(25.0)
    clock.advance(5)
    assert store.sweeps == [0, 5]
    clock.advance(MAX_WAIT)
    store.tell(clock.seconds() - 10)
    clock.advance(0)
    assert store.sweeps == [0, 5, 35, 35]
    stopped(made)


def test_one_that_comes_during_a_look_is_looked_for_after_it() -> None:
    slow: Deferred[None] = Deferred()
    clock, store, made = table(slow=slow)
    store.due = 3.0
    made.sweep()
    store.notifications.announce(frozenset({"x"}), due=store.now() + 3000)
    assert store.sweeps == [0]
    store.slow = None
    slow.callback(None)
    assert store.sweeps == [0, 0]
    clock.advance(3)
    assert store.sweeps == [0, 0, 3]
    stopped(made)


@pytest.mark.parametrize("problem", [unavailable("full", ""), ZeroDivisionError("a mistake")])
def test_a_look_that_fails_is_not_the_last(problem: Exception, logged_failures: LoggedFailures) -> None:
    clock, store, made = table(problem=problem)
    store.problem = None
    clock.advance(MAX_WAIT)
    assert store.sweeps == [0, MAX_WAIT]
    assert len(logged_failures.take(ZeroDivisionError)) == isinstance(problem, ZeroDivisionError)
    stopped(made)


def test_stopping_leaves_no_timer_and_waits_for_the_look_under_way() -> None:
    clock, store, made = table()
    assert stopped(made).called
    assert clock.getDelayedCalls() == []
    made.sweep()
    store.tell(1.0)
    clock.advance(HOUR)
    assert store.sweeps == [0]
    slow: Deferred[None] = Deferred()
    clock, store, made = table(slow=slow)
    made.sweep()
    done = stopped(made)
    assert not done.called
    slow.callback(None)
    assert done.called
    assert clock.getDelayedCalls() == []
    assert store.sweeps == [0]


@pytest.mark.parametrize("step", [HOUR, DAY, 59.0, -59.0])
def test_only_a_clock_that_is_set_back_far_hastens_anything(step: float) -> None:
    clock, store, made = table()
    store.ahead += step
    clock.pump([MAX_WAIT] * 2)
    assert store.hastened == []
    store.ahead -= 120.0
    clock.pump([MAX_WAIT] * 2)
    assert store.hastened == [120.0 - MAX_WAIT - 1]
    store.ahead -= DAY
    clock.pump([MAX_WAIT] * 2)
    assert store.hastened == [120.0 - MAX_WAIT - 1, HOUR]
    stopped(made)


# with a real store


@pytest_twisted.async_yield_fixture
async def harness(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "jobs.db")
    yield made
    await made.end()


def again(harness: WorkerHarness, seconds: float) -> Callable[..., Transition]:
    error = JobError("target_error", "crashed", 1)
    return lambda _job, now: Transition(
        "scheduled", now + round(1000 * seconds), counts=True, uncounted_tries=0, error=error
    )


async def tries_again(harness: WorkerHarness, seconds: float) -> str:
    """A job that has failed once, and tries again in so many seconds."""
    (id_,) = await harness.hand_over(job_for())
    claim = await harness.store.claim("gate", lambda _: 0)
    assert claim is not None
    await harness.store.end_attempt(claim, again(harness, seconds))
    return id_


@pytest_twisted.ensureDeferred
async def test_a_scheduled_job_is_queued_when_it_is_due_and_not_before(harness: WorkerHarness) -> None:
    harness.due_jobs.start()
    later, soon = await harness.hand_over(
        *[job_for(run_at=harness.store.now() + seconds * 1000) for seconds in (20, 5)]
    )
    await harness.wait(4.9, step=4.9)
    assert (await harness.job(soon)).state == "scheduled"
    await harness.wait(0.1)
    assert ((await harness.job(soon)).state, (await harness.job(later)).state) == ("queued", "scheduled")
    await harness.wait(15, step=15)
    assert (await harness.job(later)).state == "queued"


@pytest_twisted.ensureDeferred
async def test_a_job_past_its_deadline_is_discarded_wherever_it_waits(harness: WorkerHarness) -> None:
    harness.due_jobs.start()
    deadline = harness.store.now() + 10_000
    queued, scheduled = await harness.hand_over(
        job_for(deadline=deadline), job_for(run_at=harness.store.now() + 9_000, deadline=deadline)
    )
    await harness.wait(9.5, step=9.5)
    assert ((await harness.job(queued)).state, (await harness.job(scheduled)).state) == ("queued", "queued")
    await harness.wait(0.5)
    for id_ in (queued, scheduled):
        job = await harness.job(id_)
        assert job.error is not None
        assert (job.state, job.error.error_class) == ("discarded", "expired")


@pytest.mark.parametrize("pause", [10.0, 270.0, 3600.0])
@pytest.mark.parametrize("back", [HOUR, DAY])
@pytest_twisted.ensureDeferred
async def test_a_clock_set_back_delays_nothing_that_tries_again_and_leaves_what_was_ordered(
    harness: WorkerHarness, back: float, pause: float
) -> None:
    harness.due_jobs.start()
    await harness.turn()
    trying = await tries_again(harness, pause)
    (ordered,) = await harness.hand_over(job_for(run_at=harness.store.now() + 60_000))
    harness.wall_offset -= back
    await harness.wait(min(MAX_WAIT, pause), step=MAX_WAIT)
    await harness.wait(MAX_WAIT, step=MAX_WAIT)
    assert (await harness.job(trying)).state == "queued"
    await harness.wait(120, step=MAX_WAIT)
    assert (await harness.job(ordered)).state == "scheduled"
    await harness.wait(max(0.0, back - 180), step=60 if back == HOUR else 1800)
    assert (await harness.job(ordered)).state == "scheduled"
    await harness.wait(120, step=MAX_WAIT)
    assert (await harness.job(ordered)).state == "queued"


@pytest.mark.parametrize("ahead", [HOUR, DAY])
@pytest_twisted.ensureDeferred
async def test_a_clock_set_forward_makes_due_what_is_due_by_it(harness: WorkerHarness, ahead: float) -> None:
    harness.due_jobs.start()
    trying = await tries_again(harness, 270)
    before, after = await harness.hand_over(
        *[job_for(run_at=harness.store.now() + round(1000 * (ahead + more))) for more in (-60, 60)]
    )
    harness.wall_offset += ahead
    await harness.wait(MAX_WAIT, step=MAX_WAIT)
    assert [(await harness.job(id_)).state for id_ in (trying, before, after)] == ["queued", "queued", "scheduled"]
    await harness.wait(MAX_WAIT, step=MAX_WAIT)
    assert (await harness.job(after)).state == "queued"
