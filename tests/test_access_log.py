"""A line for each request, and no more than a line, whatever others wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from foreman.proxy.access_record import RequestRecord
from foreman.web.server.access_log import MAX_REFUSALS, REFUSALS_PERIOD, AccessLog


def record(status: int, now: float) -> RequestRecord:
    return RequestRecord("id", "caller", "/", "foreman", now, status=status, is_early_refusal=status >= 400)


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


def write(**given: Any) -> None:
    log = AccessLog(Clock())
    log.request_finished(
        RequestRecord(**{"id": "1", "caller": "a", "route": "/", "lane": "gate", "started_at": 0.0, **given})
    )
    log.flush()


@pytest.mark.parametrize("member", ["caller", "route", "model", "detail"])
def test_nothing_that_others_wrote_makes_a_second_line_or_a_colour(logged: Sequence[LogEvent], member: str) -> None:
    write(**{member: "one\ntwo\x1b[31m"})
    (event,) = logged
    assert event["_line"].isprintable()


@pytest.mark.parametrize("member", ["route", "model", "detail"])
def test_what_others_wrote_is_repeated_in_part(logged: Sequence[LogEvent], member: str) -> None:
    write(**{member: "\xff/" * 30_000})
    (event,) = logged
    assert len(repr(event)) < 6000


def left_out(events: Sequence[LogEvent]) -> list[int]:
    return [event["count"] for event in events if "more requests were refused" in (event.get("log_format") or "")]


def lines(events: Sequence[LogEvent]) -> int:
    return sum("_line" in event for event in events)


def test_of_thousands_of_refusals_only_some_have_a_line_and_the_others_are_counted(logged: Sequence[LogEvent]) -> None:
    clock = Clock()
    log = AccessLog(clock)
    for _ in range(5000):
        log.request_finished(record(408, clock.seconds()))
    log.request_finished(record(200, clock.seconds()))
    for _ in range(MAX_REFUSALS):
        clock.advance(0.01)
    assert lines(logged) == MAX_REFUSALS + 1
    clock.advance(REFUSALS_PERIOD)
    log.request_finished(record(408, clock.seconds()))
    clock.advance(1)
    assert left_out(logged) == [5000 - MAX_REFUSALS]
    assert lines(logged) == MAX_REFUSALS + 2
    assert clock.getDelayedCalls() == []


def test_what_was_left_out_is_said_at_the_end_at_the_latest(logged: Sequence[LogEvent]) -> None:
    log = AccessLog(Clock())
    for _ in range(MAX_REFUSALS + 3):
        log.request_finished(record(408, 0.0))
    log.flush()
    assert left_out(logged) == [3]
    assert lines(logged) == MAX_REFUSALS
