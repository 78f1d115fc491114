"""Work that is done in slices, so that a large piece of it keeps nobody waiting."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")
#: Each ``next`` does one slice, a few milliseconds at most; the generator returns the result.
Slices = Generator[None, None, Result]


def at_once(slices: Slices[Result]) -> Result:
    """The result of ``slices``, without a pause."""
    while True:
        try:
            next(slices)
        except StopIteration as finished:
            result: Result = finished.value
            return result
