"""Time limits: what happens unless something else comes first, and that a pause of foreman does not count."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - what ``within`` fails with
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from foreman.util.deadline import MAX_PAUSES, PAUSE_THRESHOLD, Deadline, within


def test_what_is_due_happens_once() -> None:
    clock, happened = Clock(), []
    Deadline(clock).set(5, lambda: happened.append(clock.seconds()))
    clock.pump([4, 2, 100])
    assert happened == [6]


def test_what_is_set_later_takes_the_place_of_what_was_due() -> None:
    clock, happened = Clock(), []
    deadline = Deadline(clock)
    deadline.set(5, lambda: happened.append("first"))
    deadline.set(7, lambda: happened.append("second"))
    clock.pump([5, 2])
    assert happened == ["second"]


def test_what_was_cleared_does_not_happen() -> None:
    clock, happened = Clock(), []
    deadline = Deadline(clock)
    deadline.clear()
    deadline.set(5, lambda: happened.append("never"))
    deadline.clear()
    deadline.clear()
    clock.advance(10)
    assert happened == []
    assert clock.getDelayedCalls() == []


def test_what_happens_may_set_the_next() -> None:
    clock, happened = Clock(), []
    deadline = Deadline(clock)

    def again() -> None:
        happened.append(clock.seconds())
        deadline.set(5, again)

    deadline.set(5, again)
    clock.pump([5, 5, 5])
    assert happened == [5, 10, 15]


def test_what_is_heard_puts_it_off_without_a_new_timer() -> None:
    clock, happened = Clock(), []
    deadline = Deadline(clock)
    deadline.set(5, lambda: happened.append(clock.seconds()))
    (timer,) = clock.getDelayedCalls()
    for _ in range(40):
        clock.advance(0.1)
        deadline.started_at = clock.seconds()
    assert clock.getDelayedCalls() == [timer]
    clock.pump([1, 3.9])
    assert happened == []
    clock.advance(0.1)
    assert happened == [pytest.approx(9)]


def test_when_the_time_is_over_the_sockets_are_read_once_more() -> None:
    clock, happened = Clock(), []
    deadline = Deadline(clock)
    deadline.set(5, lambda: happened.append("over"))

    def read() -> None:  # stands for the poll that follows the timers of a turn
        deadline.started_at = clock.seconds()

    (timer,) = clock.getDelayedCalls()
    clock.callLater(5, read)
    assert timer.getTime() == 5
    clock.pump([5, 4.9])
    assert happened == []
    clock.advance(0.1)
    assert happened == ["over"]


@pytest.mark.parametrize("paused", [5 + PAUSE_THRESHOLD + 0.1, 60, 100_000])
def test_a_pause_of_foreman_does_not_count(paused: float) -> None:
    clock, happened = Clock(), []
    Deadline(clock).set(5, lambda: happened.append("over"))
    clock.advance(paused)
    assert happened == []
    clock.advance(4.9)
    assert happened == []
    clock.advance(0.1)
    assert happened == ["over"]


def test_a_second_pause_does_not_count_either() -> None:
    clock, happened = Clock(), []
    Deadline(clock).set(5, lambda: happened.append("over"))
    clock.pump([60, 60, 60, 4.9])
    assert happened == []
    clock.advance(0.1)
    assert happened == ["over"]


def test_a_reactor_that_is_always_late_puts_no_limit_off_for_ever() -> None:
    clock, happened = Clock(), []
    Deadline(clock).set(5, lambda: happened.append("over"))
    clock.pump([60] * MAX_PAUSES)
    assert happened == []
    clock.advance(60)
    assert happened == ["over"]


def test_pauses_are_counted_anew_when_something_was_heard() -> None:
    clock, happened = Clock(), []
    deadline = Deadline(clock)
    deadline.set(5, lambda: happened.append("over"))
    for _ in range(3 * MAX_PAUSES):
        clock.advance(60)
        clock.advance(1)
        deadline.started_at = clock.seconds()
        clock.advance(4.5)
    assert happened == []


def test_a_busy_reactor_is_no_pause() -> None:
    clock, happened = Clock(), []
    Deadline(clock).set(5, lambda: happened.append("over"))
    clock.advance(5 + PAUSE_THRESHOLD)
    assert happened == ["over"]


def test_what_is_due_at_a_point_in_time_waits_only_a_moment_after_a_pause() -> None:
    clock, happened = Clock(), []
    Deadline(clock, after_pause=2).set(3600, lambda: happened.append("over"))
    clock.pump([5000, 1.9])
    assert happened == []
    clock.advance(0.1)
    assert happened == ["over"]


def test_what_comes_in_time_is_handed_on_and_leaves_no_timer() -> None:
    clock = Clock()
    results: list[object] = []
    waiting: Deferred[str] = Deferred()
    within(waiting, 5, clock).addCallback(results.append)
    waiting.callback("in time")
    assert results == ["in time"]
    assert clock.getDelayedCalls() == []


def test_what_comes_too_late_is_cancelled() -> None:
    clock = Clock()
    failures: list[Failure] = []
    cancelled: list[str] = []
    within(Deferred[None](lambda _: cancelled.append("cancelled")), 5, clock).addErrback(failures.append)
    clock.advance(5)
    assert cancelled == ["cancelled"]
    assert [failure.type for failure in failures] == [TimeoutError]


def test_what_comes_too_late_may_have_a_result_of_its_own() -> None:
    clock = Clock()
    results: list[object] = []
    within(Deferred[str](), 5, clock, lambda: "nothing").addCallback(results.append)
    clock.advance(5)
    assert results == ["nothing"]


def test_who_cancels_in_time_is_told_of_that() -> None:
    clock = Clock()
    failures: list[Failure] = []
    waiting = within(Deferred[str](), 5, clock, lambda: "nothing").addErrback(failures.append)
    waiting.cancel()
    assert [failure.type for failure in failures] == [CancelledError]
    assert clock.getDelayedCalls() == []
