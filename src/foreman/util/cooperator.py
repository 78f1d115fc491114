"""Slices of work taking turns on the reactor."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, TaskFinished

from foreman.util.slices import Slices

Result = TypeVar("Result")


def cooperator(clock: IReactorTime) -> Cooperator:
    """A cooperator that does one slice of one of its tasks in each turn of the reactor."""
    return Cooperator(lambda: lambda: True, lambda turn: clock.callLater(0, turn))


#: Of an input up to ``SMALL`` bytes the first slice is done at once; ``LARGE`` stands for any that is larger.
SMALL = 64 * 1024
LARGE = SMALL + 1


async def in_turns(turns: Cooperator, slices: Slices[Result], size: int) -> Result:
    """The result of ``slices``, in later turns of the reactor; what is left of them is dropped when this is cancelled.

    :param size: of what is worked on, in bytes. Of a small one the first slice, most often all there is, is done at once;
        many large ones that come in one turn of the reactor would otherwise do a slice each in it.
    """
    if size <= SMALL:
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
