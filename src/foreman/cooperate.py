"""Slices of work taking turns on the reactor."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, TaskFinished

from foreman.slices import Slices

Result = TypeVar("Result")


def cooperator(clock: IReactorTime) -> Cooperator:
    """A cooperator that does one slice of one of its tasks in each turn of the reactor."""
    return Cooperator(lambda: lambda: True, lambda turn: clock.callLater(0, turn))


async def in_turns(turns: Cooperator, slices: Slices[Result]) -> Result:
    """The result of ``slices``: of one that is all there is at once, of more in later turns of the reactor.

    What is left of them is dropped when this is cancelled.
    """
    try:
        next(slices)
    except StopIteration as finished:
        result: Result = finished.value
        return result
    results: list[Result] = []

    def work() -> Slices[None]:
        results.append((yield from slices))

    task = turns.cooperate(work())
    try:
        await task.whenDone()
    finally:
        with suppress(TaskFinished):
            task.stop()
        slices.close()
    return results[0]
