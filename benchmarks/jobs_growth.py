"""Whether a daemon grows: samples of its files, memory and descriptors, and the straight line that fits them best."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from attrs import fields, frozen
from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.jobs_fill import log_of
from benchmarks.machine import PROC

if TYPE_CHECKING:
    from collections.abc import Sequence

#: By how much the fitted line may rise from its beginning to its end, as a share of the median.
GROWTH = 0.10
#: The share of the time that is ignored at the beginning.
SETTLED = 1 / 3


@frozen
class Sample:
    """One sample.

    :ivar at: seconds since the beginning. The others are in MB, except the number of descriptors.
    """

    at: float
    database: float
    log: float
    memory: float
    descriptors: float

    def words(self) -> str:
        """As one line."""
        return f"{self.database:.1f} MB, log {self.log:.1f} MB, memory {self.memory:.1f} MB, {self.descriptors:.0f} descriptors"


@frozen
class Measure:
    """One figure after the settling time; ``rise`` is that of the fitted line from beginning to end."""

    name: str
    at_first: float
    middle: float
    least: float
    most: float
    a_minute: float
    rise: float

    @property
    def flat(self) -> bool:
        """Whether it does not grow; a decreasing figure is flat, too."""
        return self.rise <= GROWTH * self.middle


def take_sample(pid: int, database: Path, at: float) -> Sample:
    """Take a sample of a daemon.

    :raises OSError: it has ended.
    """
    status = (PROC / str(pid) / "status").read_text("ascii")
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    descriptors = sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
    sizes = [path.stat().st_size / 1e6 for path in (database, log_of(database))]
    return Sample(at, sizes[0], sizes[1], resident / 1e3, descriptors)


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the values over ``at``, by least squares."""
    middle_at, middle = fmean(at), fmean(values)
    width = sum((x - middle_at) ** 2 for x in at)
    return sum((x - middle_at) * (y - middle) for x, y in zip(at, values, strict=True)) / width if width else 0.0


def measures(samples: Sequence[Sample]) -> list[Measure]:
    """Every figure after the first third of the time; none without samples."""
    if not samples:
        return []
    settled = [sample for sample in samples if sample.at >= SETTLED * samples[-1].at]
    at, found = [sample.at for sample in settled], []
    for name in (field.name for field in fields(Sample)[1:]):
        values = [getattr(sample, name) for sample in settled]
        rising = slope(at, values)
        found.append(
            Measure(
                name,
                getattr(samples[0], name),
                median(values),
                min(values),
                max(values),
                60 * rising,
                rising * (at[-1] - at[0]),
            )
        )
    return found


def table(found: Sequence[Measure]) -> Table:
    """One line for each figure."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("after the first third", "at first", "median", "min–max", "max/min", "a minute", ""):
        drawn.add_column(name, justify="right" if name else "left", no_wrap=True)
    titles = {"database": "database, MB", "log": "log, MB", "memory": "memory, MB", "descriptors": "descriptors"}
    for measure in found:
        drawn.add_row(
            titles[measure.name],
            f"{measure.at_first:.1f}",
            f"{measure.middle:.1f}",
            f"{measure.least:.1f}–{measure.most:.1f}",
            f"{measure.most / measure.least:.2f}" if measure.least else "–",
            f"{measure.a_minute:+.2f}",
            "flat" if measure.flat else "grows",
        )
    return drawn
