"""What many share, and how much of it one may have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreman.util.byte_budget import ByteBudget, is_fair


def test_a_budget_is_full_only_beyond_its_limit() -> None:
    budget = ByteBudget(10)
    assert budget.take(4)
    assert budget.take(6)
    assert not budget.take(1)


def test_what_did_not_fit_is_counted_until_it_is_given_back() -> None:
    budget = ByteBudget(10)
    assert budget.take(8)
    assert not budget.take(5)
    assert budget.used == 13
    budget.give(5)
    assert budget.take(2)
    assert budget.used == 10


def test_nothing_at_all_always_fits() -> None:
    assert ByteBudget(0).take(0)


@given(st.integers(0, 100), st.lists(st.integers(0, 50)))
def test_whoever_gives_back_what_was_taken_leaves_an_empty_budget(limit: int, counts: list[int]) -> None:
    budget = ByteBudget(limit)
    for held, count in enumerate(counts):
        assert budget.take(count) == (sum(counts[: held + 1]) <= limit)
    for count in counts:
        budget.give(count)
    assert budget.used == 0


def test_a_caller_may_have_seven_times_what_is_left() -> None:
    held, free = 0, 800
    while is_fair(held, free):
        held, free = held + 1, free - 1
    assert (held, free) == (700, 100)
    assert is_fair(0, 1)
    assert not is_fair(0, 0)


def test_the_last_part_is_for_callers_who_have_nothing_yet() -> None:
    assert is_fair(1, 7, 100)
    assert not is_fair(1, 6, 100)
    assert is_fair(0, 1, 100)
    assert not is_fair(0, 0, 100)
