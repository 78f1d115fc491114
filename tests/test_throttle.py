"""The brake on guessing tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import LogEvent, capturedLogs

from foreman.auth.throttle import ADDRESSES, FREE, LONGEST, PAUSE, GuessThrottle
from support.in_memory_foreman import doorstep
from support.raw_http import request

TOKEN = "correct-horse-battery"


def asking(token: str, path: str = "/api/tags") -> bytes:
    return request("GET", path, b"", [("Authorization", f"Bearer {token}")])


@pytest.fixture
def logged() -> Any:
    with capturedLogs() as events:
        yield events


def test_a_few_mistakes_are_free_and_then_each_makes_the_wait_longer() -> None:
    throttle = GuessThrottle()
    assert [throttle.guessed("a", 0) for _ in range(FREE)] == [0] * FREE
    assert [throttle.guessed("a", 0) for _ in range(3)] == [PAUSE, 2 * PAUSE, 3 * PAUSE]
    assert max(throttle.guessed("a", 0) for _ in range(1000)) == LONGEST
    assert throttle.guessed("b", 0) == 0


def test_who_waits_may_try_again_and_who_stays_away_is_forgiven() -> None:
    throttle = GuessThrottle()
    for _ in range(FREE + 1):
        wait = throttle.guessed("a", 100)
    assert throttle.guessed("a", 100 + wait + PAUSE) == 0
    for _ in range(1000):
        throttle.guessed("a", 200)
    assert throttle.guessed("a", 200 + LONGEST + PAUSE) == 0
    assert [throttle.guessed("a", 2000) for _ in range(FREE)] == [0] * FREE


def test_the_addresses_that_it_remembers_are_bounded() -> None:
    throttle = GuessThrottle()
    for _ in range(FREE + 1):
        throttle.guessed("a", 0)
    for number in range(2 * ADDRESSES):
        throttle.guessed(f"other {number}", 0)
        if number < ADDRESSES:
            assert throttle.guessed("a", 0)
    assert len(throttle._guesses) == ADDRESSES
    assert throttle.guessed("a", 0) == 0


def test_who_guesses_is_told_to_wait_and_a_known_token_still_opens_the_door(logged: list[LogEvent]) -> None:
    with doorstep(auth_token=TOKEN) as step:
        answers = [step.ask_once(asking(f"guess-number-{number}")) for number in range(FREE + 20)]
        assert [answer.status for answer in answers] == [401] * FREE + [429] * 20
        assert answers[FREE].header("Retry-After") == "6"
        assert answers[FREE].header("Connection") == "close"
        assert "not known" in json.loads(answers[FREE].body)["error"]
        assert step.ask_once(asking(TOKEN)).status == 200
        step.wait(60)
    told = [event for event in logged if "told to wait" in (event.get("log_format") or "")]
    assert len(told) == 1
    lines = [event for event in logged if str(event.get("log_namespace")).endswith("AccessLog")]
    assert len(lines) == FREE + 1


def test_who_sends_no_token_is_not_guessing() -> None:
    with doorstep(auth_token=TOKEN) as step:
        assert {step.ask_once(request("GET", "/api/tags")).status for _ in range(3 * FREE)} == {401}
