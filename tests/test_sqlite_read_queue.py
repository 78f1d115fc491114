"""Whose look into the database is next, how many wait, and what becomes of the look of a caller who has left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from foreman.store.errors import TooManyReads, unavailable
from foreman.store.sqlite.read_queue import (
    MAX_FOR_CALLERS,
    MAX_WAIT,
    MAX_WAITING,
    MAX_WAITING_OF_ONE,
    READERS,
    Read,
    ReadQueue,
)


@define(eq=False)
class Pool:
    """Threads that the test plays.

    :ivar running: the looks that run, by what they were asked.
    """

    running: dict[str, tuple[Read, Deferred[Any]]] = field(factory=dict)
    begun: list[str] = field(factory=list)

    def runWithConnection(self, work: Callable[..., Any], look: Read, *_: Any) -> Deferred[Any]:
        name = look.arguments[0]
        running: Deferred[Any] = Deferred()
        self.running[name] = look, running
        self.begun.append(name)
        return running

    def end(self, name: str) -> None:
        _look, running = self.running.pop(name)
        running.callback(f"seen {name}")


@define(eq=False)
class Bench:
    """Looks, and what each was answered."""

    pool: Pool = field(factory=Pool)
    clock: Clock = field(factory=Clock)
    looks: ReadQueue = field(init=False)
    answers: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.looks = ReadQueue(self.pool, self.clock)  # type: ignore[arg-type]

    def ask(self, name: str, caller: str | None = None, *, patient: bool = False) -> Deferred[Any]:
        asked: Deferred[Any] = self.looks.read(lambda: None, [name], caller, patient=patient)

        def answered(answer: Any) -> None:
            self.answers[name] = getattr(answer, "value", answer)

        asked.addBoth(answered)
        return asked


def test_one_caller_with_many_looks_keeps_nobody_elses_waiting() -> None:
    bench = Bench()
    for number in range(20):
        bench.ask(f"a{number}", "alice")
    bench.ask("b0", "bob")
    assert bench.pool.begun == ["a0", "b0"]
    bench.ask("own")
    assert bench.pool.begun == ["a0", "b0", "own"]


def test_callers_take_turns_and_foreman_goes_first() -> None:
    bench = Bench()
    for number in range(3):
        for caller in "abc":
            bench.ask(f"{caller}{number}", caller)
    assert bench.pool.begun == ["a0", "b0"]
    owns = [f"own{number}" for number in range(READERS)]
    for own in owns:
        bench.ask(own)
    assert bench.pool.begun == ["a0", "b0", "own0"]
    while bench.pool.running:
        assert sum(name[0] in "abc" for name in bench.pool.running) <= MAX_FOR_CALLERS
        assert len(bench.pool.running) <= READERS
        bench.pool.end(next(iter(bench.pool.running)))
    begun = bench.pool.begun
    assert begun.index("own2") < begun.index("a1")
    assert begun.index("c0") < min(begun.index("a1"), begun.index("b1"))
    assert sorted(bench.answers) == sorted(begun)
    assert bench.answers["c2"] == "seen c2"


def test_too_many_looks_of_one_caller_and_of_all_are_sent_away() -> None:
    bench = Bench()
    for number in range(MAX_WAITING_OF_ONE + 5):
        bench.ask(f"a{number}", "alice")
    assert sum(isinstance(answer, TooManyReads) for answer in bench.answers.values()) == 4
    for number in range(MAX_WAITING):
        bench.ask(f"b{number}", f"other{number}")
    refused = [name for name, answer in bench.answers.items() if name[0] == "b" and isinstance(answer, TooManyReads)]
    assert refused
    bench.ask("patient", "alice", patient=True)
    assert "patient" not in bench.answers


def test_looks_that_are_never_sent_away_take_no_place_from_those_that_may_be() -> None:
    bench = Bench()
    for number in range(MAX_WAITING + 10):
        bench.ask(f"a{number}", "alice", patient=True)
    asked = [bench.ask(f"list{number}", "alice") for number in range(MAX_WAITING_OF_ONE + 1)]
    assert [name for name, answer in bench.answers.items() if isinstance(answer, TooManyReads)] == [
        f"list{MAX_WAITING_OF_ONE}"
    ]
    bench.ask("b0", "bob")
    bench.ask("c0", "carol")
    assert bench.pool.begun == ["a0", "b0"]
    assert "c0" not in bench.answers
    # Whoever leaves, and whose turn it is, makes room for the next one.
    asked[0].cancel()
    bench.ask("again", "alice")
    assert "again" not in bench.answers
    while bench.pool.running:
        bench.pool.end(next(iter(bench.pool.running)))
    assert bench.answers["again"] == "seen again"
    for number in range(MAX_WAITING_OF_ONE + 1):  # one of them runs
        bench.ask(f"later{number}", "alice")
    assert not any(
        isinstance(bench.answers.get(f"later{number}"), TooManyReads) for number in range(MAX_WAITING_OF_ONE + 1)
    )


def test_what_has_waited_for_too_long_is_sent_away_and_not_run() -> None:
    bench = Bench()
    bench.ask("a0", "alice")
    bench.ask("a1", "alice")
    bench.ask("a2", "alice", patient=True)
    bench.clock.advance(MAX_WAIT + 1)
    bench.pool.end("a0")
    assert isinstance(bench.answers["a1"], TooManyReads)
    assert bench.pool.begun == ["a0", "a2"]


def test_the_look_of_a_caller_who_has_left_is_not_run_and_one_that_runs_is_broken_off() -> None:
    bench = Bench()
    first, second = bench.ask("a0", "alice"), bench.ask("a1", "alice")
    own = [bench.ask(f"own{number}") for number in range(READERS)]
    for left in (second, own[-1], first):
        left.cancel()
    assert isinstance(bench.answers["a1"], CancelledError)
    look, _ = bench.pool.running["a0"]
    assert look.is_cancelled
    bench.ask("a2", "alice")
    bench.pool.end("a0")
    for name in ("own0", "own1", "a2"):
        bench.pool.end(name)
    assert bench.pool.begun == ["a0", "own0", "own1", "a2"]
    assert isinstance(bench.answers["a0"], CancelledError)
    assert bench.answers["a2"] == "seen a2"


def test_at_the_end_everybody_who_waits_or_comes_is_refused() -> None:
    bench = Bench()
    for number in range(4):
        bench.ask(f"a{number}", "alice")
        bench.ask(f"own{number}")
    bench.looks.close(unavailable("off", "foreman is stopping"))
    bench.ask("late")
    assert len(bench.answers) == 9 - READERS
    assert {str(answer) for answer in bench.answers.values()} == {"there is no job store (foreman is stopping)"}
