"""``python -m benchmarks.jobs``: what jobs cost, in rounds, with the aims; ``… soak``: a soak test."""

from __future__ import annotations

import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import Factory, define, frozen
from rich.console import Console

from benchmarks import jobs_fill, jobs_http, jobs_soak, jobs_table, programs, report
from benchmarks.jobs_http import Ground, WentWrong
from benchmarks.jobs_table import EXPERIMENTS, Results
from benchmarks.machine import OtherLoad
from benchmarks.processes import ROOT, DidNotStart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.jobs_stats import Samples


@frozen(kw_only=True)
class Sizes:
    """The size of one sample of each kind."""

    enqueues: int = 8000
    plain: int = 1000
    claims: int = 400
    looks: int = 300
    posts: int = 4000
    chats: int = 250
    bytes: int = 2000
    queued: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    large: int = 1_000_000
    log: int = 256 * 1024 * 1024


QUICK = Sizes(
    enqueues=200,
    plain=50,
    claims=20,
    looks=10,
    posts=100,
    chats=30,
    bytes=50,
    queued=(1000,),
    large=3000,
    log=2_000_000,
)


@define(eq=False)
class Run:
    """One run: the large databases are made when they are first needed."""

    ground: Ground
    sizes: Sizes
    results: Results = Factory(Results)
    other_load: list[float] = Factory(list)
    problems: list[str] = Factory(list)
    _made: dict[str, Path] = Factory(dict)

    def round(self, names: Sequence[str], show: Callable[[str], None]) -> None:
        """Measure everything once."""
        for name in names:
            show(name)
            watch = OtherLoad()
            try:
                self.results.add(self._measure(name))
            except (WentWrong, DidNotStart, subprocess.SubprocessError, OSError) as problem:
                self.problems.append(f"{name}: {problem}")
            share = watch.share()
            if share is not None:
                self.other_load.append(share)

    def _measure(self, name: str) -> Samples:
        sizes, ground = self.sizes, self.ground
        match name:
            case "store":
                # The rival runs just before and just after, so that other load affects both alike.
                before = self._child("rival", sizes.plain)
                found = self._child("enqueues", sizes.enqueues)
                after = self._child("rival", sizes.plain)
                rival = {key: (value + after[key]) / 2 for key, value in before.items()}
                return rival | found | {f"store {n} ratio": found[f"store {n}"] / rival["plain"] for n in (1, 64, 256)}
            case "bytes":
                return self._child("sizes", sizes.bytes)
            case "claim":
                return {
                    f"claim {rows} {key.removeprefix('claim ')}": value
                    for rows in sizes.queued
                    for key, value in self._child("claims", sizes.claims, self.database(rows)).items()
                }
            case "looks":
                return self._child("looks", sizes.looks, self.database(sizes.large, mixed=True)) | jobs_http.looks(
                    ground, sizes.looks, self.database(sizes.large, mixed=True)
                )
            case "post":
                return jobs_http.enqueues(ground, sizes.posts)
            case "chat":
                return jobs_http.chats(ground, sizes.chats)
            case _:
                return jobs_http.start(ground, self.database(sizes.large, mixed=True), sizes.log)

    def database(self, rows: int, *, mixed: bool = False) -> Path:
        """A database with so many jobs: all of them queued, or only the last tenth."""
        name = f"{rows}-{'mixed' if mixed else 'queued'}"
        if name not in self._made:
            self._made[name] = self.ground.folder / f"{name}.db"
            jobs_fill.fill(self._made[name], rows, rows * 9 // 10 if mixed else 0)
        return self._made[name]

    def _child(self, name: str, count: int, database: Path | None = None) -> Samples:
        with tempfile.TemporaryDirectory(dir=self.ground.folder) as folder:
            path = database or Path(folder) / "jobs.db"
            command = [sys.executable, "-m", "benchmarks.jobs_store", name, str(path), str(count)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600)
        found: Samples = json.loads(done.stdout)
        return found


def _show_progress(console: Console, number: int, name: str) -> None:
    console.print(f"round {number}: {name}", style="dim")


def _print_conditions(console: Console, run: Run, load: float) -> None:
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    console.print(f"{report.machine()}, {versions}; load {load:.1f}")
    report.print_other_load(console, run.other_load, "trust the ratios and bytes, and of the times only the smallest")
    report.print_problems(console, run.problems)


@click.group(invoke_without_command=True, help=__doc__)
@click.option("--quick", is_flag=True, help="Tiny sizes, one round: a smoke test, no measurement.")
@click.option("--only", multiple=True, metavar="NAME", help=f"Only this (repeatable): {', '.join(EXPERIMENTS)}.")
@click.option("--rounds", type=click.IntRange(1), help="The number of rounds; 3, or 1 with --quick.")
@click.option("--rows", type=click.IntRange(100), help="How many jobs a large store has; default: a million.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="For the databases; default: a temporary folder."
)
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write every value to this file."
)
@click.pass_context
def main(
    context: click.Context,
    *,
    quick: bool,
    only: tuple[str, ...],
    rounds: int | None,
    rows: int | None,
    folder: Path | None,
    json_file: Path | None,
) -> None:
    """Run the benchmarks; exit status 1 after any problem, 2 when nothing can be measured."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if context.invoked_subcommand is not None:
        return
    if unknown := set(only) - set(EXPERIMENTS):
        raise click.BadParameter(f"{', '.join(unknown)}; there are: {', '.join(EXPERIMENTS)}", param_hint="--only")
    cc = programs.compiler()
    if cc is None:
        raise click.UsageError(
            "no C compiler (cc, gcc, clang): nothing is measured, since a client in Python would measure itself"
        )
    sizes = QUICK if quick else Sizes()
    if rows is not None:
        sizes = Sizes(queued=tuple(n for n in (*sizes.queued, rows) if n <= rows), large=rows)
    console, load = Console(), os.getloadavg()[0]
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-jobs-", dir=folder)))
        client = programs.build("client", place, cc)
        target = programs.Target.start(programs.build("target", place, cc))
        stack.callback(target.stop)
        run = Run(Ground(target, client, place), sizes)
        for number in range(rounds or (1 if quick else 3)):
            run.round(
                [name for name in EXPERIMENTS if not only or name in only],
                partial(_show_progress, progress, number + 1),
            )
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(jobs_table.table(run.results))
    _print_conditions(console, run, load)
    if json_file is not None:
        json_file.write_text(json.dumps(run.results.values, indent=1))
    if run.problems:
        sys.exit(1)


main.add_command(jobs_soak.command)

if __name__ == "__main__":
    main()
