"""Work in slices, so that a large piece of it does not block the reactor."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

Result = TypeVar("Result")
#: Each ``next`` does one slice, a few milliseconds at most; the generator returns the result.
Slices = Generator[None, None, Result]


def at_once(slices: Slices[Result]) -> Result:
    """Run ``slices`` without a pause, and return their result."""
    while True:
        try:
            next(slices)
        except StopIteration as finished:
            result: Result = finished.value
            return result
