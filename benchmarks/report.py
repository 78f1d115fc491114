"""The results as a table and as JSON, and the conditions of a run."""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from itertools import zip_longest
from math import inf, isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

from attrs import Factory, define
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Experiment, Row, Samples

#: The subjects to which ratios are taken, and the one that has to meet the aims.
REFERENCES, OURS = ("nginx", "naive"), "foreman"
#: The share of the CPU that other programs may use before a run is doubtful.
MAX_OTHER_LOAD = 0.15


@define(eq=False)
class Results:
    """Samples by row, subject and round; or the reason why there are none."""

    samples: dict[tuple[str, str], dict[int, float]] = Factory(dict)
    reasons: dict[tuple[str, str], str] = Factory(dict)

    def add(self, experiment: Experiment, subject: str, number: int, samples: Samples) -> None:
        """Add the samples of round ``number``."""
        for row in experiment.rows:
            if row.key in samples:
                self.samples.setdefault((row.key, subject), {})[number] = samples[row.key]

    def has_none(self, experiment: Experiment, subject: str, reason: str) -> None:
        """Record why a subject has no sample."""
        for row in experiment.rows:
            self.reasons[row.key, subject] = reason

    def values(self, row: Row, subject: str) -> list[float]:
        """The figure of each round, less that of a direct connection in the same round where the row says so."""
        found = self.samples.get((row.key, subject), {})
        if not row.over_direct or subject == "direct":
            return list(found.values())
        direct = self.samples.get((row.key, "direct"), {})
        return [value - direct[number] for number, value in found.items() if number in direct]

    def ratio(self, row: Row, subject: str, reference: str) -> float | None:
        """The median as a multiple of the reference's; None when one of them is missing or infinite."""
        ours, theirs = self.values(row, subject), self.values(row, reference)
        if not ours or not theirs or median(theirs) <= 0 or not isfinite(median(theirs)) or not isfinite(median(ours)):
            return None
        return median(ours) / median(theirs)

    def verdict(self, row: Row, subject: str) -> str:
        """Whether ``subject`` meets each aim of the row, in words."""
        values = self.values(row, subject)
        words = []
        for aim in row.aims:
            value = self.ratio(row, subject, aim.times) if aim.times else median(values) if values else None
            words.append("unknown" if value is None else "met" if aim.met(value) else "missed")
        return ", ".join(words)


def _figure(row: Row, value: float) -> str:
    return row.never if value == inf else f"{value:,.{row.digits}f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} ×" if value < 10 else f"{value:,.0f} ×"


def table(results: Results, experiments: Sequence[Experiment], subjects: Sequence[str]) -> Table:
    """One line for each figure and subject; the aims stand under the figure's title."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("figure", no_wrap=True)
    drawn.add_column("of")
    for name in ("median", "min–max", *(f"to {name}" for name in REFERENCES)):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("aim")
    for row in (row for experiment in experiments for row in experiment.rows):
        left = [row.title, "aim " + ", ".join(aim.words(row.unit) for aim in row.aims) if row.aims else ""]
        for title, subject in zip_longest(left, subjects, fillvalue=""):
            cells = _cells(results, row, subject) if subject else ()
            drawn.add_row(title, subject, *cells, results.verdict(row, subject) if subject == OURS else "")
        drawn.add_section()
    return drawn


def _cells(results: Results, row: Row, subject: str) -> Iterator[str]:
    values, itself = results.values(row, subject), row.over_direct and subject == "direct"
    if not values:
        yield from ("–", results.reasons.get((row.key, subject), ""), "", "")
        return
    middle = median(values)
    yield f"{_figure(row, middle)} {row.unit if isfinite(middle) else ''}".rstrip()
    yield f"{_figure(row, min(values))}–{_figure(row, max(values))}"
    for reference in REFERENCES:
        yield "" if itself or subject == reference else _ratio(results.ratio(row, subject, reference))


def as_json(results: Results, experiments: Sequence[Experiment], subjects: Sequence[str]) -> list[dict[str, Any]]:
    """The same for scripts: every value of every round; null is an infinite figure."""
    return [
        {
            "figure": row.key,
            "title": row.title,
            "unit": row.unit,
            "subject": subject,
            "values": [value if isfinite(value) else None for value in results.values(row, subject)],
            "ratios": {name: results.ratio(row, subject, name) for name in REFERENCES},
            "aims": [aim.words(row.unit) for aim in row.aims],
            "verdict": results.verdict(row, subject) if subject == OURS else None,
            "reason": results.reasons.get((row.key, subject)),
        }
        for experiment in experiments
        for row in experiment.rows
        for subject in subjects
    ]


def machine() -> str:
    """The system, its processor and how many cores are available."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {cores} cores"


def print_other_load(console: Console, shares: Sequence[float], advice: str) -> None:
    """Print the CPU share of other programs, and ``advice`` where it makes the run doubtful."""
    if not shares:
        console.print("CPU share of other programs: cannot be measured here")
        return
    console.print(f"CPU share of other programs: {median(shares):.0%}, at most {max(shares):.0%}")
    if max(shares) > MAX_OTHER_LOAD:
        console.print(f"above {MAX_OTHER_LOAD:.0%}: {advice}", style="bold yellow")


def print_problems(console: Console, problems: Sequence[str]) -> None:
    """Print each problem once, with how often it occurred."""
    for problem, times in Counter(problems).items():
        console.print(f"wrong, {times} times: {problem}", style="bold red")
