"""How long a chat usually takes."""

from __future__ import annotations

import pytest

from foreman.scheduling.estimates import MAX_ANSWERS, MAX_MODELS, MIN_ANSWERS, Estimates, Range, Timing


def chat(tokens: int, rate: float = 10.0, load: float = 0.0) -> Timing:
    return Timing(
        seconds=load + 1.0 + tokens / rate,
        load=load,
        prompt_tokens=20,
        prompt_seconds=1.0,
        tokens=tokens,
        token_seconds=tokens / rate,
    )


def test_nothing_is_said_of_a_model_that_is_hardly_known() -> None:
    estimates = Estimates()
    assert estimates.answer_time("m", loaded=True) is None
    for _ in range(MIN_ANSWERS - 1):
        estimates.record("m", chat(100))
    assert estimates.answer_time("m", loaded=True) is None
    assert estimates.load_time("m") is None


def test_the_usual_answer_is_its_prompt_and_its_tokens_at_the_usual_rate() -> None:
    estimates = Estimates()
    for tokens in (100, 200, 300, 400, 500):
        estimates.record("m", chat(tokens))
    assert estimates.answer_time("m", loaded=True) == Range(1.0 + 20.0, 1.0 + 40.0)


def test_a_model_that_is_not_loaded_takes_its_load_time_more() -> None:
    estimates = Estimates()
    for _ in range(5):
        estimates.record("m", chat(100))
    assert estimates.answer_time("m", loaded=False) is None
    estimates.record("m", chat(100, load=30.0))
    estimates.record("m", chat(100, load=0.2))
    assert estimates.load_time("m") == 30.0
    assert estimates.answer_time("m", loaded=False) == Range(41.0, 41.0)


def test_without_counts_the_durations_themselves_tell() -> None:
    estimates = Estimates()
    for seconds in (10.0, 20.0, 30.0):
        estimates.record("m", Timing(seconds))
    assert estimates.answer_time("m", loaded=True) == Range(15.0, 25.0)


def test_old_answers_are_forgotten() -> None:
    estimates = Estimates()
    for _ in range(5):
        estimates.record("m", Timing(1000.0))
    for _ in range(MAX_ANSWERS):
        estimates.record("m", Timing(1.0))
    assert estimates.answer_time("m", loaded=True) == Range(1.0, 1.0)


def test_only_so_many_models_are_remembered() -> None:
    estimates = Estimates()
    for number in range(MAX_MODELS + 1):
        for _ in range(MIN_ANSWERS):
            estimates.record(str(number), Timing(1.0))
    assert estimates.answer_time("0", loaded=True) is None
    assert estimates.answer_time(str(MAX_MODELS), loaded=True) == Range(1.0, 1.0)


@pytest.mark.parametrize("load", [None, 0.0, 0.4])
def test_what_is_no_real_load_does_not_count_as_one(load: float | None) -> None:
    estimates = Estimates()
    estimates.record("m", Timing(5.0, load=load))
    assert estimates.load_time("m") is None
