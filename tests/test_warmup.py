"""The embedding model is loaded at the start and whenever the target is back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, capturedLogs, formatEvent

from conftest import LoggedFailures
from foreman import errors
from foreman.target.warmup import Warmer


@define
class FakeTarget:
    """Loads a model when it is told to."""

    asked: list[Any] = field(factory=list)
    loading: list[Deferred[Any]] = field(factory=list)
    given_up: int = 0

    async def embed(self, payload: Any) -> Any:
        self.asked.append(payload)
        self.loading.append(Deferred())
        try:
            return await self.loading[-1]
        except CancelledError:
            self.given_up += 1
            raise


@define
class Log:
    """What was logged."""

    events: Sequence[LogEvent]

    @property
    def lines(self) -> list[str]:
        return [f"{event['log_level'].name}: {formatEvent(event)}" for event in self.events]


@pytest.fixture
def log() -> Iterator[Log]:
    with capturedLogs() as events:
        yield Log(events)


@pytest.fixture
def target() -> FakeTarget:
    return FakeTarget()


@pytest.fixture
def warmer(target: FakeTarget) -> Warmer:
    return Warmer(target, "nomic-embed-text")  # type: ignore[arg-type]


REFUSED = errors.ConnectionError("refused", "nobody there")


def test_the_model_is_loaded_to_stay(warmer: Warmer, target: FakeTarget, log: Log) -> None:
    warmer.warm()
    assert target.asked == [{"model": "nomic-embed-text", "keep_alive": -1}]
    target.loading[0].callback({})
    assert log.lines[-1] == "info: nomic-embed-text is loaded"


def test_without_a_model_there_is_nothing_to_do(target: FakeTarget) -> None:
    warmer = Warmer(target, None)  # type: ignore[arg-type]
    warmer.warm()
    warmer.stop()
    assert target.asked == []


def test_the_model_is_loaded_again_each_time_the_target_is_back(warmer: Warmer, target: FakeTarget) -> None:
    warmer.warm()
    target.loading[0].callback({})
    warmer.warm()
    target.loading[1].errback(REFUSED)
    warmer.warm()
    assert len(target.asked) == 3
    target.loading[2].callback({})


def test_a_loading_that_is_under_way_is_not_begun_twice(warmer: Warmer, target: FakeTarget) -> None:
    warmer.warm()
    warmer.warm()
    target.loading[0].callback({})
    assert len(target.asked) == 1


def test_a_loading_that_fails_after_the_target_came_back_is_begun_once_more(warmer: Warmer, target: FakeTarget) -> None:
    warmer.warm()
    warmer.warm()
    target.loading[0].errback(errors.ConnectionError("reset", "that was the old one"))
    assert len(target.asked) == 2
    target.loading[1].errback(REFUSED)
    assert len(target.asked) == 2


@pytest.mark.parametrize(
    "problem", [REFUSED, errors.HTTPError(404, 'model "nomic-embed-text" not found, try pulling it first')]
)
def test_a_failure_is_one_line(warmer: Warmer, target: FakeTarget, log: Log, problem: Exception) -> None:
    warmer.warm()
    target.loading[0].errback(problem)
    assert log.lines[1:] == [f"warn: nomic-embed-text could not be loaded: {problem}"]


def test_what_nobody_foresaw_is_logged_whole(
    warmer: Warmer, target: FakeTarget, logged_failures: LoggedFailures
) -> None:
    warmer.warm()
    target.loading[0].errback(ZeroDivisionError())
    assert len(logged_failures.take(ZeroDivisionError)) == 1
    warmer.warm()
    assert len(target.asked) == 2
    target.loading[1].callback({})


def test_stopping_gives_a_loading_up_without_a_word(warmer: Warmer, target: FakeTarget, log: Log) -> None:
    warmer.warm()
    said = log.lines
    warmer.stop()
    assert target.given_up == 1
    assert log.lines == said
    warmer.stop()


def test_what_somebody_else_answers_is_no_loading_and_makes_the_inventory_ask(target: FakeTarget, log: Log) -> None:
    answer_check: list[None] = []
    warmer = Warmer(target, "nomic-embed-text", lambda: answer_check.append(None))  # type: ignore[arg-type]
    warmer.warm()
    target.loading[0].callback({"status": "please sign in"})
    assert log.lines[-1].startswith("warn: nomic-embed-text could not be loaded")
    assert len(answer_check) == 1
    warmer.warm()
    target.loading[1].callback({"model": "nomic-embed-text", "embeddings": []})
    assert log.lines[-1] == "info: nomic-embed-text is loaded"
    assert len(answer_check) == 1
