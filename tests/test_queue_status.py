"""Who has a turn and who waits, and how long that will usually take."""

from __future__ import annotations

from typing import cast

from twisted.internet.task import Clock

from foreman.scheduling.estimates import Estimates, Range, Timing
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.scheduling.queue_status import QueuePosition, QueueStatus
from foreman.target.inventory import Inventory
from foreman.util.clock import EpochSeconds, Monotonic


class Loaded:
    """An inventory in which some models are loaded."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def is_running(self, name: str) -> bool:
        return name in self.names


class Line:
    """A gate with somebody in it, and what is known of two models: ``quick`` takes 10 s, ``slow`` 60 s."""

    def __init__(self, *models: str | None, turns: int = 1) -> None:
        self.clock = Clock()
        self.gate = Gate(self.clock, turns, 100)
        self.loaded = Loaded("quick", "slow")
        estimates = Estimates()
        for model, seconds in (("quick", 10.0), ("slow", 60.0)):
            for _ in range(5):
                estimates.record(model, Timing(seconds))
        self.queue_status = QueueStatus(self.clock, self.gate, cast("Inventory", self.loaded), estimates)
        self.turns: list[Turn] = []
        self.tickets = [
            Ticket(str(number), "someone", model, "/api/chat", EpochSeconds(0.0)) for number, model in enumerate(models)
        ]
        for ticket in self.tickets:
            self.gate.enter(ticket).addCallback(self.turns.append)


def test_a_place_is_counted_from_the_turn_and_waits_for_all_before_it() -> None:
    line = Line("slow", "quick", "quick", "slow")
    line.clock.advance(20)
    assert [line.queue_status.position_of(ticket) for ticket in line.tickets] == [
        QueuePosition(0, None),
        QueuePosition(1, Range(40.0, 40.0)),
        QueuePosition(2, Range(50.0, 50.0)),
        QueuePosition(3, Range(60.0, 60.0)),
    ]
    assert [wait for _, wait in line.queue_status.queue()] == [Range(40.0, 40.0), Range(50.0, 50.0), Range(60.0, 60.0)]


def test_behind_somebody_of_whom_nothing_is_known_nothing_is_said() -> None:
    line = Line("quick", "never seen", "quick")
    assert [wait for _, wait in line.queue_status.queue()] == [Range(10.0, 10.0), None]
    assert Line(None, "quick").queue_status.position_of(Line(None).tickets[0]) == QueuePosition(0, None)


def test_behind_a_turn_that_takes_longer_than_usual_nothing_is_said() -> None:
    line = Line("quick", "quick", "quick")
    (turn,) = line.gate.running
    line.clock.advance(9)
    assert not line.queue_status.is_overtime(turn)
    assert line.queue_status.position_of(line.tickets[2]) == QueuePosition(2, Range(11.0, 11.0))
    line.clock.advance(1000)
    assert line.queue_status.is_overtime(turn)
    assert [line.queue_status.position_of(ticket) for ticket in line.tickets[1:]] == [
        QueuePosition(1, None),
        QueuePosition(2, None),
    ]


def test_beside_a_turn_that_takes_longer_than_usual_the_others_say_how_long_it_takes_at_most() -> None:
    line = Line("quick", "slow", "quick", turns=2)
    line.clock.advance(20)
    assert line.queue_status.position_of(line.tickets[2]) == QueuePosition(1, Range(0.0, 40.0))
    line.clock.advance(100)
    assert line.queue_status.position_of(line.tickets[2]) == QueuePosition(1, None)


def test_a_turn_that_had_to_load_its_model_has_the_time_of_the_load_besides() -> None:
    line = Line("quick", "quick")
    line.queue_status._estimates.record("quick", Timing(40.0, load=30.0))
    (turn,) = line.gate.running
    turn.cold = True
    line.clock.advance(25)
    for names in (set(), {"quick"}):  # while it loads, and when it has loaded
        line.loaded.names = names
        line.clock.advance(1)
        assert not line.queue_status.is_overtime(turn)
    assert line.queue_status.position_of(line.tickets[1]) == QueuePosition(1, Range(13.0, 13.0))
    line.clock.advance(14)
    assert line.queue_status.is_overtime(turn)


def test_with_several_turns_the_first_to_end_counts() -> None:
    line = Line("slow", "quick", "quick", turns=2)
    assert line.queue_status.position_of(line.tickets[2]) == QueuePosition(1, Range(10.0, 10.0))


def test_a_turn_loads_then_reads_then_answers() -> None:
    line = Line("quick")
    (turn,) = line.gate.running
    line.loaded.names.clear()
    assert line.queue_status.state_of(turn) == "loading"
    line.loaded.names.add("quick")
    assert line.queue_status.state_of(turn) == "reading"
    turn.answering = True
    assert line.queue_status.state_of(turn) == "answering"


def job(model: str) -> Ticket:
    return Ticket("job", "someone", model, "/api/chat", EpochSeconds(0.0), Monotonic(1e9))


def test_jobs_that_wait_are_in_nobodys_way() -> None:
    line = Line("quick", "quick")
    line.gate.enter(job("slow"))
    late = Ticket("late", "someone", "quick", "/api/chat", EpochSeconds(0.0))
    line.gate.enter(late)
    assert line.queue_status.position_of(line.tickets[1]) == QueuePosition(1, Range(10.0, 10.0))
    assert line.queue_status.position_of(late) == QueuePosition(2, Range(20.0, 20.0))
    assert [ticket.is_job for ticket, _ in line.queue_status.queue()] == [False, False]


def test_a_job_that_runs_is_waited_for_like_a_person() -> None:
    line = Line()
    line.gate.enter(job("slow"))
    waiting = Ticket("late", "someone", "quick", "/api/chat", EpochSeconds(0.0))
    line.gate.enter(waiting)
    assert line.queue_status.position_of(waiting) == QueuePosition(1, Range(60.0, 60.0))


def test_a_load_is_wanted_by_a_job_too_as_long_as_it_waits() -> None:
    line = Line("big")
    (turn,) = line.turns
    assert not line.queue_status.is_load_wanted(turn)
    line.gate.enter(job("other"))
    assert not line.queue_status.is_load_wanted(turn)
    wanting = line.gate.enter(job("BIG:latest"))
    assert line.queue_status.is_load_wanted(turn)
    wanting.addErrback(lambda _: None)
    wanting.cancel()
    assert not line.queue_status.is_load_wanted(turn)
