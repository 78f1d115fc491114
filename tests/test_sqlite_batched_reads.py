"""Those who ask for a job at the same time share a look, and each gets the answer that is for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred

from foreman.jobs.job import Job
from foreman.store.sqlite.batched_reads import MAX_BATCH, BatchedReads


class Looks:
    """Looks that the test answers: ids in their order, and the Deferred of each."""

    def __init__(self) -> None:
        self.under_way: list[tuple[list[str], Deferred[list[Job | None]]]] = []

    def __call__(self, ids: Sequence[str]) -> Deferred[list[Job | None]]:
        looking: Deferred[list[Job | None]] = Deferred()
        self.under_way.append((list(ids), looking))
        return looking

    def answer(self, number: int) -> None:
        ids, looking = self.under_way[number]
        looking.callback([cast("Job", f"job {id_}") for id_ in ids])


def outcome(deferred: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found


def test_who_comes_while_one_looks_shares_the_next_look() -> None:
    looks = Looks()
    gathered = BatchedReads(looks)
    found = [outcome(gathered.get(id_)) for id_ in ("a", "b", "c", "b")]
    assert [ids for ids, _ in looks.under_way] == [["a"]]
    looks.answer(0)
    assert [ids for ids, _ in looks.under_way] == [["a"], ["b", "c"]]
    looks.answer(1)
    assert found == [["job a"], ["job b"], ["job c"], ["job b"]]


def test_who_asks_on_hearing_an_answer_gets_a_look_that_begins_after_that() -> None:
    looks, again = Looks(), []
    gathered = BatchedReads(looks)
    gathered.get("a").addCallback(lambda _: again.append(outcome(gathered.get("a"))))
    looks.answer(0)
    assert len(looks.under_way) == 2
    looks.answer(1)
    assert again == [["job a"]]


def test_a_look_that_fails_is_told_to_all_of_it_and_to_nobody_else() -> None:
    looks = Looks()
    gathered = BatchedReads(looks)
    first, second = gathered.get("a"), gathered.get("b")
    looks.under_way[0][1].errback(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        outcome(first)[0].raiseException()
    looks.answer(1)
    assert outcome(second) == ["job b"]


def test_who_leaves_leaves_the_others_their_look() -> None:
    looks = Looks()
    gathered = BatchedReads(looks)
    left, stays = gathered.get("a"), gathered.get("b")
    outcome(left)
    left.cancel()
    looks.answer(0)
    looks.answer(1)
    assert outcome(stays) == ["job b"]


def test_no_look_is_for_more_than_so_many() -> None:
    looks = Looks()
    gathered = BatchedReads(looks)
    for number in range(MAX_BATCH + 2):
        outcome(gathered.get(str(number)))
    looks.answer(0)
    looks.answer(1)
    assert [len(ids) for ids, _ in looks.under_way] == [1, MAX_BATCH, 1]
