"""A set that says when nobody is left in it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from foreman.util.tracked_set import TrackedSet


class Told:
    """What a Deferred fired with."""

    def __init__(self, waiting: Deferred[None]) -> None:
        self.what: list[object] = []
        waiting.addBoth(self.what.append)


def crowd_of(*names: str) -> TrackedSet[str]:
    tracked: TrackedSet[str] = TrackedSet()
    for name in names:
        tracked.add(name)
    return tracked


def test_members_are_met_in_the_order_of_their_arrival() -> None:
    tracked = crowd_of("b", "a", "c")
    assert list(tracked) == ["b", "a", "c"]
    tracked.discard("a")
    assert list(tracked) == ["b", "c"]
    assert len(tracked) == 2


def test_who_comes_in_twice_is_there_once() -> None:
    tracked = crowd_of("a", "b", "a")
    assert list(tracked) == ["a", "b"]
    tracked.discard("a")
    assert list(tracked) == ["b"]


def test_a_stranger_may_leave() -> None:
    tracked = crowd_of("a")
    tracked.discard("b")
    assert list(tracked) == ["a"]


def test_an_empty_crowd_says_so_at_once() -> None:
    assert Told(crowd_of().when_empty()).what == [None]


def test_everybody_who_waits_hears_when_the_last_one_leaves() -> None:
    tracked = crowd_of("a", "b")
    first, second = Told(tracked.when_empty()), Told(tracked.when_empty())
    tracked.discard("a")
    tracked.discard("a stranger")
    assert first.what == second.what == []
    tracked.discard("b")
    assert first.what == second.what == [None]


def test_it_can_be_waited_for_again() -> None:
    tracked = crowd_of("a")
    first = Told(tracked.when_empty())
    tracked.discard("a")
    tracked.add("b")
    second = Told(tracked.when_empty())
    assert (first.what, second.what) == ([None], [])
    tracked.discard("b")
    assert (first.what, second.what) == ([None], [None])


def test_who_gave_up_waiting_is_forgotten() -> None:
    tracked = crowd_of("a")
    waiting, other = tracked.when_empty(), Told(tracked.when_empty())
    told = Told(waiting)
    waiting.cancel()
    assert [getattr(what, "type", None) for what in told.what] == [CancelledError]
    tracked.discard("a")
    assert other.what == [None]
    assert len(told.what) == 1


def test_who_hears_it_may_make_others_give_up() -> None:
    tracked = crowd_of("a")
    first, second = tracked.when_empty(), tracked.when_empty()
    told = Told(second)
    first.addCallback(lambda _: second.cancel())
    tracked.discard("a")
    assert [getattr(what, "type", None) for what in told.what] == [CancelledError]


def test_who_hears_it_may_come_in_and_wait_again() -> None:
    tracked = crowd_of("a")
    again: list[Told] = []

    def come_in(_: None) -> None:
        tracked.add("b")
        again.append(Told(tracked.when_empty()))

    tracked.when_empty().addCallback(come_in)
    other = Told(tracked.when_empty())
    tracked.discard("a")
    assert other.what == [None]
    assert again[0].what == []
    tracked.discard("b")
    assert again[0].what == [None]


@pytest.mark.parametrize("leaver", ["a", "b"])
def test_members_may_leave_while_a_copy_of_the_crowd_is_walked(leaver: str) -> None:
    tracked = crowd_of("a", "b")
    for _ in list(tracked):
        tracked.discard(leaver)
    assert leaver not in list(tracked)
