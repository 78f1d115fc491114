"""One thing that happens unless another comes first."""

from __future__ import annotations

from twisted.internet.task import Clock

from foreman.web.deadline import Deadline


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
    clock.advance(10)
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
