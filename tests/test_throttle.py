"""The brake on guessing tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import LogEvent, capturedLogs

from foreman.auth.throttle import FREE_GUESSES, MAX_ADDRESSES, MAX_WAIT, SECONDS_PER_GUESS, GuessThrottle
from support.in_memory_foreman import in_memory_foreman
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
    assert [throttle.count_guess("a", 0) for _ in range(FREE_GUESSES)] == [0] * FREE_GUESSES
    assert [throttle.count_guess("a", 0) for _ in range(3)] == [
        SECONDS_PER_GUESS,
        2 * SECONDS_PER_GUESS,
        3 * SECONDS_PER_GUESS,
    ]
    assert max(throttle.count_guess("a", 0) for _ in range(1000)) == MAX_WAIT
    assert throttle.count_guess("b", 0) == 0


def test_who_waits_may_try_again_and_who_stays_away_is_forgiven() -> None:
    throttle = GuessThrottle()
    for _ in range(FREE_GUESSES + 1):
        wait = throttle.count_guess("a", 100)
    assert throttle.count_guess("a", 100 + wait + SECONDS_PER_GUESS) == 0
    for _ in range(1000):
        throttle.count_guess("a", 200)
    assert throttle.count_guess("a", 200 + MAX_WAIT + SECONDS_PER_GUESS) == 0
    assert [throttle.count_guess("a", 2000) for _ in range(FREE_GUESSES)] == [0] * FREE_GUESSES


def test_the_addresses_that_it_remembers_are_bounded() -> None:
    throttle = GuessThrottle()
    for _ in range(FREE_GUESSES + 1):
        throttle.count_guess("a", 0)
    for number in range(2 * MAX_ADDRESSES):
        throttle.count_guess(f"other {number}", 0)
        if number < MAX_ADDRESSES:
            assert throttle.count_guess("a", 0)
    assert len(throttle._guesses) == MAX_ADDRESSES
    assert throttle.count_guess("a", 0) == 0


def test_who_guesses_is_told_to_wait_and_a_known_token_is_still_accepted(logged: list[LogEvent]) -> None:
    with in_memory_foreman(auth_token=TOKEN) as step:
        answers = [step.ask_once(asking(f"guess-number-{number}")) for number in range(FREE_GUESSES + 20)]
        assert [answer.status for answer in answers] == [401] * FREE_GUESSES + [429] * 20
        assert answers[FREE_GUESSES].header("Retry-After") == "6"
        assert answers[FREE_GUESSES].header("Connection") == "close"
        assert "not known" in json.loads(answers[FREE_GUESSES].body)["error"]
        assert step.ask_once(asking(TOKEN)).status == 200
        step.wait(60)
    told = [event for event in logged if "refused with 429" in (event.get("log_format") or "")]
    assert len(told) == 1
    lines = [event for event in logged if str(event.get("log_namespace")).endswith("AccessLog")]
    assert len(lines) == FREE_GUESSES + 1


def test_who_sends_no_token_is_not_guessing() -> None:
    with in_memory_foreman(auth_token=TOKEN) as step:
        assert {step.ask_once(request("GET", "/api/tags")).status for _ in range(3 * FREE_GUESSES)} == {401}
