"""Work in slices: what is small is done at once, what is large keeps nobody waiting."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from foreman.util.cooperator import LARGE, cooperator, run_in_slices
from foreman.util.slices import Slices, at_once


class Work:
    """``pauses`` pauses, then a result; remembers what was done and whether it was dropped."""

    def __init__(self, pauses: int, problem: Exception | None = None) -> None:
        self.done = 0
        self.dropped = False
        self.pauses, self.problem = pauses, problem

    def slices(self) -> Slices[str]:
        try:
            for _ in range(self.pauses):
                self.done += 1
                yield
        except GeneratorExit:
            self.dropped = True
            raise
        if self.problem is not None:
            raise self.problem
        return "result"


class Turns(Clock):
    """A clock whose turns are taken one by one: what is called later with no delay is for the next one, as in a reactor."""

    def turn(self) -> None:
        due, self.calls = self.calls, []
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)


def started(clock: Turns, *works: Work) -> list[Deferred[str]]:
    turns = cooperator(clock)
    return [Deferred.fromCoroutine(run_in_slices(turns, work.slices(), 0)) for work in works]


def result(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0] if found else None


def test_work_of_one_slice_is_done_at_once() -> None:
    clock = Turns()
    (done,) = started(clock, Work(0))
    assert result(done) == "result"
    assert not clock.getDelayedCalls()


def test_one_slice_of_one_work_is_done_in_each_turn_of_the_reactor() -> None:
    clock, first, second = Turns(), Work(4), Work(4)
    running = started(clock, first, second)
    for _ in range(4):
        before = first.done + second.done
        clock.turn()
        assert first.done + second.done - before <= 1
    assert abs(first.done - second.done) <= 1
    for _ in range(8):
        clock.turn()
    assert [result(done) for done in running] == ["result", "result"]
    assert not clock.getDelayedCalls()


def test_of_large_works_not_even_the_first_slice_is_done_at_once() -> None:
    clock, works = Turns(), [Work(1) for _ in range(20)]
    turns = cooperator(clock)
    running = [Deferred.fromCoroutine(run_in_slices(turns, work.slices(), LARGE)) for work in works]
    assert sum(work.done for work in works) <= 1
    for _ in range(60):
        clock.turn()
    assert [result(done) for done in running] == ["result"] * 20


@pytest.mark.parametrize("pauses", [0, 3])
def test_what_the_work_raises_is_raised(pauses: int) -> None:
    clock, problem = Turns(), ValueError("no object")
    (done,) = started(clock, Work(pauses, problem))
    for _ in range(5):
        clock.turn()
    assert result(done).value is problem


def test_cancelling_drops_the_rest_of_the_work() -> None:
    clock, work, other = Turns(), Work(100), Work(3)
    cancelled, done = started(clock, work, other)
    clock.turn()
    cancelled.cancel()
    assert result(cancelled).check(CancelledError)
    assert work.dropped
    before = work.done
    for _ in range(10):
        clock.turn()
    assert work.done == before
    assert result(done) == "result"
    assert not clock.getDelayedCalls()


def test_without_a_pause_the_result_is_the_same() -> None:
    assert at_once(Work(5).slices()) == "result"
