"""The table of the figures of jobs: the rows with their aims, and the results."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from attrs import Factory, define
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.bench import Aim, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.jobs_stats import Samples

#: The order in which they run.
EXPERIMENTS = ("store", "bytes", "post", "chat", "claim", "looks", "start")

_FLAT, _PAGE, _STALL = (Aim(5),), (Aim(10),), (Aim(10),)


def _times(key: str, title: str, aims: tuple[Aim, ...] = ()) -> tuple[Row, Row]:
    return Row(f"{key} p50", f"{title}, p50", "ms", (), 2), Row(f"{key} p99", f"{title}, p99", "ms", aims, 2)


def _stalls(key: str, title: str, aims: tuple[Aim, ...] = _STALL) -> tuple[Row, Row]:
    title = f"reactor late, {title}"
    return Row(f"{key} p99", f"{title}, p99", "ms", aims, 2), Row(f"{key} max", f"{title}, max", "ms", (), 1)


ROWS = (
    Row("plain", "plain sqlite3, a commit each", "jobs/s"),
    *_times("plain", "plain sqlite3, each"),
    Row("store 1", "store, one after the other", "jobs/s"),
    Row("store 1 cpu", "… CPU for each", "µs"),
    Row("store 1 ratio", "… to plain sqlite3", "×", (), 2),
    *_times("store 1", "store, one after the other"),
    Row("store 64", "store, 64 at once", "jobs/s", (Aim(3000, direction="≥"),)),
    Row("store 64 cpu", "… CPU for each", "µs"),
    Row("store 64 ratio", "… to plain sqlite3", "×", (), 2),
    *_times("store 64", "store, 64 at once"),
    Row("store 256", "store, 256 at once", "jobs/s"),
    Row("store 256 cpu", "… CPU for each", "µs"),
    Row("store 256 ratio", "… to plain sqlite3", "×", (), 2),
    *_times("store 256", "store, 256 at once"),
    *_stalls("stall, idle", "store, idle", ()),
    *_stalls("stall, store flat out", "store, flat out"),
    Row("disk", "disk for each job, without its answer", "bytes", (Aim(1600),)),
    Row("log, enqueue", "log for each job submitted, 64 at once", "bytes"),
    Row("log, claim and success", "log for each job claimed and ended, singly", "bytes"),
    Row("post 1", "POST /jobs, one after the other", "jobs/s"),
    Row("post 1 cpu", "… CPU for each", "µs"),
    *_times("post 1", "POST /jobs, one after the other"),
    Row("post 64", "POST /jobs, 64 at once", "jobs/s"),
    Row("post 64 cpu", "… CPU for each", "µs"),
    *_times("post 64", "POST /jobs, 64 at once"),
    Row("post 256", "POST /jobs, 256 at once", "jobs/s"),
    Row("post 256 cpu", "… CPU for each", "µs"),
    *_times("post 256", "POST /jobs, 256 at once"),
    Row("post arrays", "POST /jobs, arrays of 100, 4 at once", "jobs/s"),
    *_times("post arrays", "POST /jobs, an array of 100"),
    Row("post at 500/s rate", "POST /jobs, aiming at 500/s", "jobs/s"),
    *_times("post at 500/s", "POST /jobs, at 500/s", (Aim(20),)),
    *_stalls("stall, idle daemon", "daemon, idle", ()),
    *_stalls("stall, 500/s", "500 POST /jobs a second"),
    *_stalls("stall, posts flat out", "POST /jobs flat out"),
    *_stalls("stall, arrays flat out", "arrays flat out"),
    *_times("chat alone", "chat's first token, no jobs"),
    *_times("chat beside jobs", "chat's first token, beside jobs"),
    Row("chat ratio", "… to that without jobs, p50", "×", (), 2),
    Row("jobs beside", "jobs that ran meanwhile", "jobs/s"),
    *(
        row
        for rows in (1000, 10_000, 100_000, 1_000_000)
        for row in _times(f"claim {rows}", f"claim, {rows:,} queued", _FLAT)
    ),
    *(
        row
        for name in (
            "first page", "middle page", "page of a state", "page of active jobs", "page of a model",
            "page of an owner", "page of a state and a model", "page of metadata", "get", "get, far back in the queue",
            "get, next in the queue", "counts", "GET first page", "GET middle page", "GET page of a state", "GET job",
        )
        for row in _times(name, name, _PAGE)
    ),
    Row("start, log", "log that a crash left", "MB"),
    Row("start after a crash", "start to the first answer", "s", (Aim(2),), 2),
)  # fmt: skip


@define(eq=False)
class Results:
    """Every value of every round, by figure."""

    values: dict[str, list[float]] = Factory(dict)

    def add(self, samples: Samples) -> None:
        """Add the samples of one experiment in one round."""
        for key, value in samples.items():
            self.values.setdefault(key, []).append(value)


def table(results: Results) -> Table:
    """One line for each figure that was measured."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("figure", no_wrap=True)
    for name in ("median", "min–max", "aim"):
        drawn.add_column(name, justify="right", no_wrap=True)
    drawn.add_column("")
    for row in ROWS:
        if row.key in results.values:
            drawn.add_row(row.title, *_cells(row, results.values[row.key]))
    return drawn


def _cells(row: Row, values: list[float]) -> Iterator[str]:
    middle, digits = median(values), row.digits
    yield f"{middle:,.{digits}f} {row.unit}"
    yield f"{min(values):,.{digits}f}–{max(values):,.{digits}f}"
    yield ", ".join(aim.words(row.unit) for aim in row.aims)
    yield ", ".join("met" if aim.met(middle) else "missed" for aim in row.aims)
