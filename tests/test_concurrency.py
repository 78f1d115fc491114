"""How many requests without a turn are at the target at once: bounded, fair between callers, and never for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from foreman import errors
from foreman.proxy.concurrency import ConcurrencyLimit, Permit
from support.inference_harness import InferenceHarness


class Crossing:
    """A passage on a clock, and who is where."""

    def __init__(self, places: int = 2, share: int = 2, room: int = 4, patience: float = 30.0) -> None:
        self.clock = Clock()
        self.limit = ConcurrencyLimit(self.clock, places, share, room, patience)

    def enter(self, caller: str = "alice") -> list[Any]:
        """What comes of it: a Pass, or a Failure."""
        results: list[Any] = []
        self.entering: Deferred[Permit] = self.limit.enter(caller)
        self.entering.addBoth(results.append)
        return results

    def is_empty(self) -> bool:
        return (self.limit.in_use, self.limit.waiting, self.clock.getDelayedCalls()) == (0, 0, [])


def test_so_many_are_at_the_target_and_the_next_waits_for_a_place() -> None:
    crossing = Crossing()
    first, second, third = crossing.enter(), crossing.enter(), crossing.enter()
    assert (len(first), len(second), len(third)) == (1, 1, 0)
    first[0].release()
    first[0].release()
    crossing.clock.advance(0)
    assert len(third) == 1
    assert crossing.limit.in_use == 2
    for one in (second, third):
        one[0].release()
    assert crossing.is_empty()


def test_one_caller_has_a_share_and_keeps_nobody_else_out() -> None:
    crossing = Crossing(places=4, share=2, room=8)
    taken = [crossing.enter("greedy") for _ in range(6)]
    assert [len(one) for one in taken] == [1, 1, 0, 0, 0, 0]
    assert len(crossing.enter("other")) == 1
    refused = crossing.enter("greedy")  # of the room, too, one has half
    assert refused[0].check(errors.QueueFull)
    taken[0][0].release()
    crossing.clock.advance(0)
    assert [len(one) for one in taken] == [1, 1, 1, 0, 0, 0]


def test_a_full_room_refuses_and_waiting_has_its_end() -> None:
    crossing = Crossing(places=1, share=1, room=2, patience=30)
    (held,) = crossing.enter()
    waiting = crossing.enter("bob"), crossing.enter("carol")
    refused = crossing.enter("dave")
    assert refused[0].check(errors.QueueFull)
    crossing.clock.advance(30)
    for one in waiting:
        assert one[0].check(errors.QueueFull)
    held.release()
    assert crossing.is_empty()


def test_a_pause_of_foreman_is_no_waiting() -> None:
    crossing = Crossing(places=1, share=1, patience=30)
    (held,) = crossing.enter()
    waiting = crossing.enter("bob")
    crossing.clock.advance(3600)
    crossing.clock.advance(0)
    assert waiting == []
    held.release()
    crossing.clock.advance(0)
    assert len(waiting) == 1
    waiting[0].release()
    assert crossing.is_empty()


def test_who_leaves_while_it_waits_takes_no_place() -> None:
    crossing = Crossing(places=1, share=1)
    (held,) = crossing.enter()
    results = crossing.enter("bob")
    held.release()
    crossing.entering.cancel()
    crossing.clock.advance(0)
    assert results[0].check(CancelledError)
    assert crossing.is_empty()


def test_many_quick_ones_in_a_row_do_not_overflow_the_stack() -> None:
    crossing = Crossing(places=1, share=1, room=4000)
    (held,) = crossing.enter()
    passed = 0

    def pass_through(one: Permit) -> None:
        nonlocal passed
        passed += 1
        one.release()

    for number in range(3000):
        crossing.limit.enter(str(number)).addCallback(pass_through)
    held.release()
    for _ in range(3001):
        crossing.clock.advance(0)
    assert passed == 3000
    assert crossing.is_empty()


@given(st.lists(st.tuples(st.sampled_from("enter leave cancel wait".split()), st.integers(0, 5)), max_size=60))
def test_whatever_happens_nothing_is_lost_and_nobody_exceeds(story: list[tuple[str, int]]) -> None:
    crossing = Crossing(places=3, share=2, room=4, patience=10)
    inside: list[Permit] = []
    waiting: list[Deferred[Permit]] = []
    for what, number in story:
        if what == "enter":
            entering = crossing.limit.enter(f"caller {number % 3}")
            waiting.append(entering)
            entering.addCallbacks(inside.append, lambda _: None)
        elif what == "leave" and inside:
            inside.pop(number % len(inside)).release()
        elif what == "cancel" and waiting:
            waiting.pop(number % len(waiting)).cancel()
        elif what == "wait":
            crossing.clock.advance(number)
        assert crossing.limit.in_use == len(inside) <= 3
        assert crossing.limit.waiting <= 4
        assert all(sum(one.caller == other.caller for one in inside) <= 2 for other in inside)
    crossing.clock.advance(0)
    while inside:
        inside.pop().release()
        crossing.clock.advance(0)
    assert crossing.is_empty()


# around a target


def test_long_transfers_keep_no_quick_question_waiting() -> None:
    work = InferenceHarness()
    limits = work.inference.concurrency
    pulls = [work.ask("/api/pull") for _ in range(limits.transfers.per_caller + 5)]
    assert len(work.target.calls) == limits.transfers.per_caller
    work.ask("/api/show")
    assert work.target.calls[-1].head == b"POST /api/show"
    for pull in pulls:
        pull.leave()
    assert (limits.transfers.in_use, limits.transfers.waiting) == (0, 0)


def test_a_place_is_given_back_when_the_target_has_finished_although_the_reader_takes_its_time() -> None:
    work = InferenceHarness()
    asking = work.ask("/api/show")
    asking.responder.pause_at = 1
    assert work.inference.concurrency.quick.in_use == 1
    work.target.calls[0].begin(headers=[]).say(b"x", b"y").end()
    assert asking.results == []
    assert work.inference.concurrency.quick.in_use == 0


@pytest.mark.parametrize("ending", ["answer", "leave", "break"])
def test_beyond_the_bound_it_is_a_503_and_every_place_comes_back(ending: str) -> None:
    work = InferenceHarness()
    quick = work.inference.concurrency.quick
    askings = [work.ask("/api/show") for _ in range(quick.per_caller + quick.max_waiting // 2)]
    assert len(work.target.calls) == quick.per_caller
    refused = work.ask("/api/show")
    assert isinstance(refused.problem, errors.QueueFull)
    for _ in range(20):
        if ending == "answer":
            for call in work.target.calls:
                if not call.is_over:
                    call.begin(headers=[]).end()
        elif ending == "leave":
            for asking in askings:
                if not asking.results:
                    asking.leave()
        else:
            for call in work.target.calls:
                if not call.response.called:
                    call.response.errback(errors.ConnectionError("reset", "gone"))
        work.clock.advance(0)
    assert (quick.in_use, quick.waiting) == (0, 0)
    assert all(asking.results for asking in askings)
