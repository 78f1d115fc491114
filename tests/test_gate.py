"""Turns, one at a time, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from foreman import errors
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.util.clock import EpochSeconds, Monotonic


def ticket(name: str) -> Ticket:
    return Ticket(id=name, caller="someone", model="m", route="/api/chat", queued_at=EpochSeconds(0.0))


class Line:
    """A gate on a clock, and who got a turn in which order."""

    def __init__(self, turns: int = 1, max_queue: int = 10_000) -> None:
        self.clock = Clock()
        self.gate = Gate(self.clock, turns, max_queue)
        self.served: list[str] = []
        self.turns: list[Turn] = []
        self.most_at_once = 0

    def enter(self, name: str, then: Callable[[Turn], None] | None = None) -> Deferred[Turn]:
        entered = self.gate.enter(ticket(name))

        def served(turn: Turn) -> Turn:
            self.served.append(name)
            self.turns.append(turn)
            self.most_at_once = max(self.most_at_once, len(self.gate.running))
            if then is not None:
                then(turn)
            return turn

        return entered.addCallback(served)


def test_a_free_gate_gives_its_turn_at_once() -> None:
    line = Line()
    line.enter("a")
    assert line.served == ["a"]


def test_the_next_in_the_queue_enters_when_the_turn_is_released_and_not_before() -> None:
    line = Line()
    line.enter("a")
    line.enter("b")
    line.clock.advance(60)
    assert line.served == ["a"]
    line.turns[0].release()
    line.clock.advance(0)
    assert line.served == ["a", "b"]


def test_a_thousand_quick_holders_pass_in_order_without_deep_recursion() -> None:
    line = Line()
    names = [str(number) for number in range(1000)]
    for name in names:
        line.enter(name, then=Turn.release)
    for _ in names:
        line.clock.advance(0)
    assert line.served == names
    assert line.most_at_once == 1
    assert line.gate.running == []


def test_a_caller_who_leaves_the_line_is_forgotten() -> None:
    line = Line()
    line.enter("a")
    leaver = line.enter("b")
    line.enter("c")
    leaver.cancel()
    assert isinstance(leaver.result.value, CancelledError)  # type: ignore[attr-defined]
    leaver.addErrback(lambda _: None)
    assert [waiting.id for waiting in line.gate.waiting] == ["c"]
    line.turns[0].release()
    line.clock.advance(0)
    assert line.served == ["a", "c"]


def test_a_caller_who_leaves_while_the_turn_is_being_handed_over_does_not_keep_it() -> None:
    line = Line()
    line.enter("a")
    leaver = line.enter("b")
    line.enter("c")
    line.turns[0].release()
    leaver.cancel()
    leaver.addErrback(lambda _: None)
    line.clock.advance(0)
    assert line.served == ["a", "c"]


def test_a_newcomer_does_not_overtake_the_one_the_turn_is_being_handed_to() -> None:
    line = Line()
    line.enter("a")
    line.enter("b")
    line.turns[0].release()
    line.enter("c")
    line.clock.advance(0)
    assert line.served == ["a", "b"]


def test_a_turn_released_twice_lets_only_one_enter() -> None:
    line = Line()
    for name in "abc":
        line.enter(name)
    line.turns[0].release()
    line.turns[0].release()
    line.clock.advance(0)
    assert line.served == ["a", "b"]


def test_several_turns_let_as_many_run_at_once() -> None:
    line = Line(turns=2)
    for name in "abcd":
        line.enter(name)
    assert line.served == ["a", "b"]
    line.turns[1].release()
    line.clock.advance(0)
    assert line.served == ["a", "b", "c"]
    assert line.most_at_once == 2


def test_a_full_room_refuses_with_ollamas_words() -> None:
    line = Line(max_queue=1)
    line.enter("a")
    line.enter("b")
    refused = line.enter("c")
    with pytest.raises(errors.QueueFull, match=r"server busy, please try again\.  maximum pending requests exceeded"):
        refused.result.raiseException()  # type: ignore[attr-defined]
    refused.addErrback(lambda _: None)


def test_a_closed_gate_sends_away_who_waits_and_lets_who_runs_go_on() -> None:
    line = Line()
    line.enter("a")
    waiting = line.enter("b")
    line.gate.close()
    late = line.enter("c")
    for sent_away in (waiting, late):
        assert isinstance(sent_away.result.value, errors.Draining)  # type: ignore[attr-defined]
        sent_away.addErrback(lambda _: None)
    assert [turn.ticket.id for turn in line.gate.running] == ["a"]
    line.turns[0].release()
    assert line.gate.running == []


def test_whoever_leaves_because_another_was_sent_away_does_no_harm() -> None:
    line = Line()
    line.enter("a")
    first, second, third = (line.enter(name) for name in "bcd")
    first.addErrback(lambda _: second.cancel())
    second.addErrback(lambda reason: reason.trap(CancelledError) and None)
    sent_away: list[Failure] = []
    third.addErrback(sent_away.append)
    line.gate.close()
    assert sent_away[0].check(errors.Draining)


def test_leaving_a_long_line_is_no_search() -> None:
    line = Line(max_queue=100_000)
    line.enter("a")
    waiting = [line.enter(str(number)) for number in range(20_000)]
    for one in reversed(waiting):
        one.addErrback(lambda _: None)
        one.cancel()
    assert line.gate.waiting == []
    line.turns[0].release()
    assert line.clock.getDelayedCalls() == []


def test_a_turn_knows_when_it_began_and_ended() -> None:
    line = Line()
    line.enter("a")
    line.enter("b")
    line.clock.advance(2)
    line.turns[0].release()
    line.clock.advance(1)
    assert (line.turns[0].began_at, line.turns[0].ended_at) == (0.0, 2.0)
    assert (line.turns[1].began_at, line.turns[1].ended_at) == (3.0, None)


def job(name: str, overdue_at: float = 1e9) -> Ticket:
    return Ticket(
        id=name,
        caller="someone",
        model="m",
        route="/api/chat",
        queued_at=EpochSeconds(0.0),
        overdue_at=Monotonic(overdue_at),
    )


def enter_job(line: Line, name: str, overdue_at: float = 1e9) -> Deferred[Turn]:
    entered = line.gate.enter(job(name, overdue_at))

    def served(turn: Turn) -> Turn:
        line.served.append(name)
        line.turns.append(turn)
        return turn

    return entered.addCallback(served)


def release_all(line: Line) -> None:
    """Release turn after turn, until nobody has one or waits."""
    line.clock.advance(0)
    while line.gate.running:
        line.gate.running[0].release()
        line.clock.advance(0)


def test_a_job_gets_a_free_turn_at_once_and_is_not_taken_from() -> None:
    line = Line()
    enter_job(line, "job")
    line.enter("a")
    assert line.served == ["job"]
    assert [turn.ticket.id for turn in line.gate.running] == ["job"]


def test_people_are_before_jobs_whoever_came_first() -> None:
    line = Line()
    line.enter("a")
    enter_job(line, "job")
    for name in "bcdef":
        line.enter(name)
    assert [waiting.id for waiting in line.gate.waiting] == list("bcdef")
    assert [waiting.id for waiting in line.gate.waiting_jobs] == ["job"]
    release_all(line)
    assert line.served == [*"abcdef", "job"]


def test_an_overdue_job_has_every_fourth_turn() -> None:
    line = Line()
    line.enter("a")
    for name in ("first", "second", "not yet"):
        enter_job(line, name, 1e9 if name == "not yet" else 30.0)
    for name in "bcdefghi":
        line.enter(name)
    line.clock.advance(30)
    release_all(line)
    assert line.served == [*"abc", "first", *"def", "second", *"ghi", "not yet"]


def test_a_person_who_comes_while_the_turn_is_handed_over_is_before_the_job_that_waits() -> None:
    line = Line()
    line.enter("a")
    enter_job(line, "job")
    line.turns[0].release()
    line.enter("b")
    release_all(line)
    assert line.served == ["a", "b", "job"]


def test_jobs_do_not_count_where_only_so_many_may_wait() -> None:
    line = Line(max_queue=1)
    line.enter("a")
    jobs = [enter_job(line, name) for name in ("one", "two")]
    line.enter("b")
    assert not any(one.called for one in jobs)
    enter_job(line, "three")
    assert len(line.gate.waiting_jobs) == 3
    release_all(line)
    assert line.served == ["a", "b", "one", "two", "three"]


def test_a_job_that_is_cancelled_leaves_the_room() -> None:
    line = Line()
    line.enter("a")
    leaver = enter_job(line, "one")
    enter_job(line, "two")
    leaver.addErrback(lambda reason: reason.trap(CancelledError) and None)
    leaver.cancel()
    assert [waiting.id for waiting in line.gate.waiting_jobs] == ["two"]
    release_all(line)
    assert line.served == ["a", "two"]


def test_a_closed_gate_sends_jobs_away_too() -> None:
    line = Line()
    line.enter("a")
    waiting = enter_job(line, "one")
    line.gate.close()
    late = enter_job(line, "two")
    for sent_away in (waiting, late):
        assert isinstance(sent_away.result.value, errors.Draining)  # type: ignore[attr-defined]
        sent_away.addErrback(lambda _: None)
    assert line.gate.waiting_jobs == []


def enter_as(gate: Gate, caller: str, name: str) -> bool:
    """Whether ``caller`` may wait."""
    place = gate.enter(Ticket(id=name, caller=caller, model="m", route="/api/chat", queued_at=EpochSeconds(0.0)))
    refused: list[Failure] = []
    place.addErrback(refused.append)
    assert all(failure.check(errors.QueueFull) for failure in refused)
    return not refused


def test_one_caller_alone_gets_seven_eighths_of_the_queue() -> None:
    gate = Gate(Clock(), 1, 64)
    enter_as(gate, "alice", "running")
    assert [enter_as(gate, "alice", str(number)) for number in range(60)] == [True] * 56 + [False] * 4
    assert enter_as(gate, "bob", "b")
    assert not enter_as(gate, "alice", "once more")
    gate._leave(gate.waiting[0])
    assert enter_as(gate, "alice", "after one has left")


def test_however_many_callers_take_all_that_they_may_the_next_one_gets_a_place() -> None:
    gate = Gate(Clock(), 1, 512)
    enter_as(gate, "someone", "running")
    for caller in range(20):
        number = 0
        while enter_as(gate, f"greedy{caller}", f"{caller}-{number}"):
            number += 1
        assert number
    assert enter_as(gate, "late", "1")
    assert not enter_as(gate, "late", "2")


def test_a_short_queue_may_be_filled_by_one() -> None:
    gate = Gate(Clock(), 1, 7)
    enter_as(gate, "alice", "running")
    assert [enter_as(gate, "alice", str(number)) for number in range(8)] == [True] * 7 + [False]
