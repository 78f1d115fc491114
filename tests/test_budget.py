"""A number of bytes that many share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreman.budget import Budget


def test_a_budget_is_full_only_beyond_its_limit() -> None:
    budget = Budget(10)
    assert budget.take(4)
    assert budget.take(6)
    assert not budget.take(1)


def test_what_did_not_fit_is_counted_until_it_is_given_back() -> None:
    budget = Budget(10)
    assert budget.take(8)
    assert not budget.take(5)
    assert budget.used == 13
    budget.give(5)
    assert budget.take(2)
    assert budget.used == 10


def test_nothing_at_all_always_fits() -> None:
    assert Budget(0).take(0)


@given(st.integers(0, 100), st.lists(st.integers(0, 50)))
def test_whoever_gives_back_what_was_taken_leaves_an_empty_budget(limit: int, counts: list[int]) -> None:
    budget = Budget(limit)
    for held, count in enumerate(counts):
        assert budget.take(count) == (sum(counts[: held + 1]) <= limit)
    for count in counts:
        budget.give(count)
    assert budget.used == 0
