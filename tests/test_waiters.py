"""Those who wait for one event."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from foreman.util.waiters import Waiters, cancelling


def results_of(waiter: Deferred[str]) -> list[object]:
    """What ``waiter`` fires with, once it has: its value, or the type of its failure."""
    results: list[object] = []
    waiter.addCallbacks(results.append, lambda reason: results.append(reason.type))
    return results


def test_each_of_them_fires_with_the_value_and_only_once() -> None:
    waiters: Waiters[str] = Waiters()
    first, second = results_of(waiters.wait()), results_of(waiters.wait())
    waiters.fire("a")
    waiters.fire("b")
    assert first == second == ["a"]
    assert len(waiters) == 0


def test_they_fire_in_the_order_in_which_they_came() -> None:
    waiters: Waiters[str] = Waiters()
    order: list[int] = []

    def append(number: int, _: str) -> None:
        order.append(number)

    for number in range(4):
        waiters.wait().addCallback(partial(append, number))
    waiters.fire("a")
    assert order == [0, 1, 2, 3]


@given(st.lists(st.sampled_from(["wait", "cancel oldest", "cancel newest", "fire"]), max_size=40))
def test_exactly_those_are_kept_that_have_neither_fired_nor_been_cancelled(steps: list[str]) -> None:
    waiters: Waiters[str] = Waiters()
    kept: list[tuple[Deferred[str], list[object]]] = []
    for step in steps:
        if step == "wait":
            waiter = waiters.wait()
            kept.append((waiter, results_of(waiter)))
        elif step == "fire":
            waiters.fire("value")
            assert all(results == ["value"] for _, results in kept)
            kept = []
        elif kept:
            waiter, results = kept.pop(0 if step == "cancel oldest" else -1)
            waiter.cancel()
            assert results == [CancelledError]
        assert len(waiters) == len(kept)
        assert all(results == [] for _, results in kept)


def test_one_that_is_cancelled_by_the_callback_of_an_earlier_one_does_not_fire() -> None:
    waiters: Waiters[str] = Waiters()
    first, second = waiters.wait(), waiters.wait()
    results = results_of(second)
    first.addCallback(lambda _: second.cancel())
    waiters.fire("a")
    assert results == [CancelledError]


def test_one_that_comes_while_the_others_fire_waits_for_the_next_event() -> None:
    waiters: Waiters[str] = Waiters()
    late: list[list[object]] = []
    waiters.wait().addCallback(lambda _: late.append(results_of(waiters.wait())))
    waiters.fire("a")
    assert late == [[]]
    waiters.fire("b")
    assert late == [["b"]]


@pytest.mark.parametrize("fires", [True, False])
def test_it_tells_when_the_last_one_was_cancelled_but_not_when_they_fire(fires: bool) -> None:
    told: list[str] = []
    waiters: Waiters[str] = Waiters(lambda: told.append("empty"))
    first, second = waiters.wait(), waiters.wait()
    results_of(first), results_of(second)
    first.cancel()
    assert told == []
    if fires:
        waiters.fire("a")
        second.cancel()
    else:
        second.cancel()
    assert told == ([] if fires else ["empty"])


def test_one_that_is_cancelled_while_they_fire_does_not_count_as_the_last() -> None:
    told: list[str] = []
    waiters: Waiters[str] = Waiters(lambda: told.append("empty"))
    first, second = waiters.wait(), waiters.wait()
    results_of(second)
    first.addCallback(lambda _: second.cancel())
    waiters.fire("a")
    assert told == []


@pytest.mark.parametrize("fires", [True, False])
def test_one_that_has_not_fired_is_cancelled_at_the_end_of_its_block(fires: bool) -> None:
    waiters: Waiters[str] = Waiters()
    with cancelling(waiters.wait()) as waiter:
        if fires:
            waiters.fire("a")
        assert waiter.called is fires
    assert waiter.called
    assert len(waiters) == 0
