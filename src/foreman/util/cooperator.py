"""Run work in slices, one slice in each turn of the reactor, beside other work."""

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


#: Of an input of up to ``SMALL`` bytes, the first slice is done at once; ``LARGE`` stands for any larger size.
SMALL = 64 * 1024
LARGE = SMALL + 1


async def run_in_slices(runner: Cooperator, slices: Slices[Result], size: int) -> Result:
    """Run ``slices`` in later turns of the reactor, and return their result; a cancellation drops the remaining ones.

    :param size: of the input, in bytes. Of a small one, the first slice is done at once: most often that is all. Large ones
        that arrive in one turn of the reactor would each do a slice in it.
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

    task = runner.cooperate(work())
    try:
        await task.whenDone()
    finally:
        with suppress(TaskFinished):
            task.stop()
        slices.close()
    return results[0]
