"""A line for each request, and no more than a line, whatever others wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from foreman.record import Record
from foreman.web.accesslog import AccessLog


@pytest.fixture
def lines() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


def write(**given: Any) -> None:
    log = AccessLog(Clock())
    log.write(Record(**{"id": "1", "caller": "a", "route": "/", "lane": "gate", "begun_at": 0.0, **given}))
    log.flush()


@pytest.mark.parametrize("member", ["caller", "route", "model", "detail"])
def test_nothing_that_others_wrote_makes_a_second_line_or_a_colour(lines: Sequence[LogEvent], member: str) -> None:
    write(**{member: "one\ntwo\x1b[31m"})
    (event,) = lines
    assert event["_line"].isprintable()


@pytest.mark.parametrize("member", ["route", "model", "detail"])
def test_what_others_wrote_is_repeated_in_part(lines: Sequence[LogEvent], member: str) -> None:
    write(**{member: "\xff/" * 30_000})
    (event,) = lines
    assert len(repr(event)) < 6000
