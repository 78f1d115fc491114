"""What all experiments share: the target and the client program, the sizes, aims and rows, and the problems found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import Factory, define, frozen

from benchmarks.programs import Answer, Ask, Clients, Record, Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.subjects import Running

#: Seconds after which a chat whose client has left counts as one that never ends.
PATIENCE = 5.0


class DoesNotApply(Exception):
    """A figure has no meaning for a subject, or cannot be measured here; the text says why."""


@frozen
class Aim:
    """``limit`` at most (or at least), as it is or as a multiple of another subject's figure in the same run."""

    limit: float
    times: str = ""
    direction: Literal["≤", "≥"] = "≤"

    def words(self, unit: str) -> str:
        """As printed in the table, for a figure in ``unit``."""
        return f"{self.direction} {self.limit:g} " + (f"× {self.times}" if self.times else unit)

    def met(self, value: float) -> bool:
        """Whether ``value`` (already divided, where it is a multiple) is good enough."""
        return value <= self.limit if self.direction == "≤" else value >= self.limit


@frozen
class Row:
    """One figure of the table. ``digits`` after the point; ``over_direct``: the figure of a direct connection is subtracted.

    ``never`` is printed for an infinite figure.
    """

    key: str
    title: str
    unit: str
    aims: tuple[Aim, ...] = ()
    digits: int = 0
    over_direct: bool = False
    never: str = "never"


@frozen(kw_only=True)
class Sizes:
    """The size of one sample of each kind; windows in seconds."""

    first_tokens: int = 100
    window_1ms: float = 1.0
    window_20ms: float = 2.0
    bursts: int = 3
    leavers: int = 3
    flat_out: int = 50_000
    memory_waiters: int = 1000
    waiters: int = 2000


FULL = Sizes()
QUICK = Sizes(
    first_tokens=20,
    window_1ms=0.3,
    window_20ms=0.6,
    bursts=1,
    leavers=1,
    flat_out=5000,
    memory_waiters=200,
    waiters=300,
)


@define(eq=False)
class Bench:
    """The target and the client program of this run. ``problems`` collects whatever makes a run invalid."""

    target: Target
    client: Path
    sizes: Sizes
    problems: list[str] = Factory(list)

    def clients(self, subject: Running, plan: Iterable[Ask], seconds: int = 30) -> Clients:
        """Start clients of ``subject``."""
        return Clients.start(self.client, subject.port, plan, seconds)

    def ask(self, subject: Running, plan: Iterable[Ask]) -> dict[int, Answer]:
        """Execute a plan to its end; the answers by id, as in ``checked``."""
        asks = list(plan)
        return self.checked(
            subject, self.clients(subject, asks).answers(), {ask.id for ask in asks if ask.leave != "-"}
        )

    def checked(self, subject: Running, answers: dict[int, Answer], leaving: Iterable[int] = ()) -> dict[int, Answer]:
        """The same answers, if each is complete, or was left by its client where its id is in ``leaving``.

        :raises DoesNotApply: some are not, which is recorded as a problem.
        """
        expected = dict.fromkeys(answers, "whole") | dict.fromkeys(leaving, "left")
        odd = [answer for answer in answers.values() if answer.outcome != expected[answer.id]]
        for answer in odd:
            self.problem(subject, f"a chat was {answer.outcome} (status {answer.status}) and not {expected[answer.id]}")
        if odd:
            raise DoesNotApply("went wrong")
        return answers

    def warm_up(self, subject: Running) -> None:
        """Let a subject that has just started answer some chats, so that nothing is measured cold."""
        self.ask(subject, [Ask(lines=20, wait_us=2_000) for _ in range(20)])

    def problem(self, subject: Running, text: str) -> None:
        """Record what must not happen in a valid run."""
        self.problems.append(f"{subject.subject.name}: {text}")

    def seen(self) -> int:
        """How many chats the target has seen so far: the ``since`` of ``Target.records``."""
        return self.target.progress()[0]

    def lines_reach(self, number: int) -> None:
        """Return when the target has sent ``number`` lines, or after ``PATIENCE``."""
        deadline = time.monotonic() + PATIENCE
        while self.target.progress()[1] < number and time.monotonic() < deadline:
            time.sleep(0.01)

    def record(self, since: int, chat: int) -> Record | None:
        """The target's record of one chat, once that has ended; None when it never arrived."""
        deadline = time.monotonic() + PATIENCE
        while True:
            record = self.target.records(since).get(chat)
            if record is None or record.over or time.monotonic() > deadline:
                return record
            time.sleep(0.02)


Samples = dict[str, float]


@frozen
class Experiment:
    """Rows that are measured together. ``fresh``: in a process of its own; ``by_name``: only when asked for."""

    name: str
    rows: tuple[Row, ...]
    sample: Callable[[Bench, Running], Samples]
    fresh: bool = False
    by_name: bool = False
