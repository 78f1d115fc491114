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
    crowd: TrackedSet[str] = TrackedSet()
    for name in names:
        crowd.add(name)
    return crowd


def test_members_are_met_in_the_order_of_their_arrival() -> None:
    crowd = crowd_of("b", "a", "c")
    assert list(crowd) == ["b", "a", "c"]
    crowd.discard("a")
    assert list(crowd) == ["b", "c"]
    assert len(crowd) == 2


def test_who_comes_in_twice_is_there_once() -> None:
    crowd = crowd_of("a", "b", "a")
    assert list(crowd) == ["a", "b"]
    crowd.discard("a")
    assert list(crowd) == ["b"]


def test_a_stranger_may_leave() -> None:
    crowd = crowd_of("a")
    crowd.discard("b")
    assert list(crowd) == ["a"]


def test_an_empty_crowd_says_so_at_once() -> None:
    assert Told(crowd_of().when_empty()).what == [None]


def test_everybody_who_waits_hears_when_the_last_one_leaves() -> None:
    crowd = crowd_of("a", "b")
    first, second = Told(crowd.when_empty()), Told(crowd.when_empty())
    crowd.discard("a")
    crowd.discard("a stranger")
    assert first.what == second.what == []
    crowd.discard("b")
    assert first.what == second.what == [None]


def test_it_can_be_waited_for_again() -> None:
    crowd = crowd_of("a")
    first = Told(crowd.when_empty())
    crowd.discard("a")
    crowd.add("b")
    second = Told(crowd.when_empty())
    assert (first.what, second.what) == ([None], [])
    crowd.discard("b")
    assert (first.what, second.what) == ([None], [None])


def test_who_gave_up_waiting_is_forgotten() -> None:
    crowd = crowd_of("a")
    waiting, other = crowd.when_empty(), Told(crowd.when_empty())
    told = Told(waiting)
    waiting.cancel()
    assert [getattr(what, "type", None) for what in told.what] == [CancelledError]
    crowd.discard("a")
    assert other.what == [None]
    assert len(told.what) == 1


def test_who_hears_it_may_make_others_give_up() -> None:
    crowd = crowd_of("a")
    first, second = crowd.when_empty(), crowd.when_empty()
    told = Told(second)
    first.addCallback(lambda _: second.cancel())
    crowd.discard("a")
    assert [getattr(what, "type", None) for what in told.what] == [CancelledError]


def test_who_hears_it_may_come_in_and_wait_again() -> None:
    crowd = crowd_of("a")
    again: list[Told] = []

    def come_in(_: None) -> None:
        crowd.add("b")
        again.append(Told(crowd.when_empty()))

    crowd.when_empty().addCallback(come_in)
    other = Told(crowd.when_empty())
    crowd.discard("a")
    assert other.what == [None]
    assert again[0].what == []
    crowd.discard("b")
    assert again[0].what == [None]


@pytest.mark.parametrize("leaver", ["a", "b"])
def test_members_may_leave_while_a_copy_of_the_crowd_is_walked(leaver: str) -> None:
    crowd = crowd_of("a", "b")
    for _ in list(crowd):
        crowd.discard(leaver)
    assert leaver not in list(crowd)
