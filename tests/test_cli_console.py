"""Sizes and times as people say them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from foreman.cli.ui import console
from foreman.cli.ui.console import width_of
from foreman.cli.ui.standard_streams import echo_stderr

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000_000, "1 MB"),
        (9_982_443, "10.0 MB"),
        (19_999_999, "19 MB"),
        (2_019_393_189, "2.0 GB"),
        (42_000_000_000, "42 GB"),
        (None, ""),
        ("big", ""),
    ],
)
def test_sizes_look_as_in_ollamas_own_ps(count: object, text: str) -> None:
    assert console.human_size(count) == text


@pytest.mark.parametrize(
    ("size", "in_gpu", "text"),
    [(100, 100, "100% GPU"), (100, 0, "100% CPU"), (100, 52, "48%/52% CPU/GPU"), (0, 0, "100% CPU"), (100, None, "")],
)
def test_the_processor_looks_as_in_ollamas_own_ps(size: object, in_gpu: object, text: str) -> None:
    assert console.processor(size, in_gpu) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (3.24, "3.2 s"), (59, "59 s"), (250, "4 min 10 s"), (7500, "2 h 5 min"), (None, "")],
)
def test_how_long_something_has_lasted(seconds: object, text: str) -> None:
    assert console.duration(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0, 0, "about 0 s"),
        (20.0, 45.4, "20-45 s"),
        (40, 40.3, "about 40 s"),
        (50, 150, "1-2 min"),
        (5400, 9000, "2 h"),
        (None, 3, ""),
    ],
)
def test_how_long_something_may_take(low: object, high: object, text: str) -> None:
    assert console.duration_range(low, high).removeprefix("about ") == text.removeprefix("about ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "stopping"), (1, "in 1 second"), (59, "in 59 seconds"), (299, "in 5 minutes"), (86400 * 3, "in 3 days")],
)
def test_when_a_model_goes(seconds: float, text: str) -> None:
    assert console.expiry((NOW + timedelta(seconds=seconds)).isoformat(), NOW) == text


@pytest.mark.parametrize(
    ("expires_at", "text"), [("0001-01-01T00:00:00Z", "stopping"), ("soon", ""), ("2026-11-24T12:00:00", "")]
)
def test_a_time_that_cannot_be_read_is_not_shown(expires_at: str, text: str) -> None:
    assert console.expiry(expires_at, NOW) == text


@pytest.mark.parametrize(
    ("columns", "width"),
    [("80", 80), ("140", 140), ("0", 200), ("1", 20), ("wide", 200), ("9" * 9, 1000), ("9" * 5000, 200)],
)
def test_a_width_that_cannot_be_is_not_taken(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width_of(io.StringIO()) == width


@pytest.mark.parametrize("columns", [80, 140])
def test_a_sentence_breaks_between_words_in_a_terminal_and_stays_one_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    sentence = "foreman ps: " + "a word of a sentence that goes on, " * 8 + "--with-a-long-option-at-its-end"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    for paper in (Terminal(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", paper)
        echo_stderr(sentence)
        text = paper.getvalue()
        assert text.split() == sentence.split()
        if paper.isatty():
            assert max(map(len, text.splitlines())) <= columns
        else:
            assert text == f"{sentence}\n"


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan"), 1e300])
def test_a_number_that_nothing_has_is_not_shown(number: float) -> None:
    assert console.human_size(number) == ""
    assert console.duration(number) == ""
    assert isinstance(console.processor(number, 1), str)
    assert isinstance(console.processor(1, number), str)
