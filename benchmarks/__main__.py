"""``python -m benchmarks``: measure foreman, a direct connection, nginx and the naive proxy, in shuffled rounds."""

from __future__ import annotations

import json
import os
import platform
import random
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from benchmarks import programs, report, subjects
from benchmarks.bench import FULL, QUICK, Bench, DoesNotApply
from benchmarks.experiments import EXPERIMENTS
from benchmarks.machine import OtherLoad
from benchmarks.processes import DidNotStart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Experiment
    from benchmarks.subjects import Running, Subject

NO_COMPILER = "no C compiler (cc, gcc, clang): nothing is measured, since a target in Python would measure itself"


class Run:
    """One run: its subjects, its experiments, and the results."""

    def __init__(self, bench: Bench, experiments: Sequence[Experiment], console: Console) -> None:
        self.bench = bench
        self.experiments = experiments
        self.results = report.Results()
        self.other_load: list[float] = []
        self._console = console

    def start(self, stack: ExitStack, chosen_subjects: Sequence[Subject]) -> list[Running]:
        """Start every subject that is installed; leave out those that do not start."""
        started = []
        for subject in chosen_subjects:
            if not subject.missing:
                with suppress(DoesNotApply):
                    started.append(self._start(stack, subject))
        return started

    def _start(self, stack: ExitStack, subject: Subject) -> Running:
        try:
            running = stack.enter_context(subjects.running(subject, self.bench.target.port))
        except (DidNotStart, OSError) as failure:
            self.bench.problems.append(f"{subject.name}: did not start: {failure}")
            raise DoesNotApply("did not start") from failure
        self.bench.warm_up(running)
        return running

    def round(self, started: Sequence[Running], shuffled: random.Random, number: int) -> None:
        """Measure everything once, with the subjects of each experiment in a new order."""
        watch = OtherLoad()
        for experiment in self.experiments:
            for subject in shuffled.sample(started, len(started)):
                name = subject.subject.name
                self._console.print(f"round {number}: {experiment.name}, {name}", style="dim", highlight=False)
                try:
                    self.results.add(experiment, name, number, self._sample(experiment, subject))
                except DoesNotApply as reason:
                    self.results.has_none(experiment, name, str(reason))
        share = watch.share()
        if share is not None:
            self.other_load.append(share)

    def _sample(self, experiment: Experiment, subject: Running) -> dict[str, float]:
        if not experiment.fresh or subject.pid is None:
            return experiment.sample(self.bench, subject)
        with ExitStack() as stack:
            fresh = self._start(stack, subject.subject)
            return experiment.sample(self.bench, fresh)


def _chosen(only: Sequence[str]) -> list[Experiment]:
    """The experiments whose name begins with one of ``only``; without any, those that run by default."""
    if not only:
        return [experiment for experiment in EXPERIMENTS if not experiment.by_name]
    chosen = [experiment for experiment in EXPERIMENTS if experiment.name.startswith(tuple(only))]
    if not chosen:
        raise click.BadParameter(
            f"there are: {', '.join(experiment.name for experiment in EXPERIMENTS)}", param_hint="--only"
        )
    return chosen


def _chosen_subjects(names: Sequence[str], also: Sequence[str]) -> list[Subject]:
    every = [*subjects.known(), *map(subjects.from_option, also)]
    unknown = set(names) - {subject.name for subject in every}
    if unknown:
        raise click.BadParameter(f"there are: {', '.join(subject.name for subject in every)}", param_hint="--subject")
    return [subject for subject in every if not names or subject.name in names or subject.name == "direct"]


def _print_conditions(console: Console, run: Run, chosen_subjects: Sequence[Subject], load: float) -> None:
    console.print(
        f"{report.machine()}, Python {platform.python_version()}; load {load:.1f}, then {os.getloadavg()[0]:.1f}"
    )
    report.print_other_load(console, run.other_load, "trust only the CPU times and the smallest latencies")
    for subject in chosen_subjects:
        if subject.missing:
            console.print(f"skipped: {subject.name} ({subject.missing})", style="yellow")
    report.print_problems(console, run.bench.problems)


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Small samples, two rounds, under a minute: a smoke test, no measurement.")
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Only experiments whose name begins with NAME (repeatable). waiters: 2,000 queued clients.",
)
@click.option("--subject", "names", multiple=True, metavar="NAME", help="Only this subject, and direct (repeatable).")
@click.option(
    "--also", multiple=True, metavar="NAME=COMMAND", help="Another subject; {port} and {target} are replaced."
)
@click.option("--rounds", type=click.IntRange(1), help="The number of rounds; 5, or 2 with --quick.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the order of the subjects.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write every value to this file."
)
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    names: tuple[str, ...],
    also: tuple[str, ...],
    rounds: int | None,
    seed: int,
    json_file: Path | None,
) -> None:
    """Run the benchmarks; exit status 1 after any problem, 2 when nothing can be measured."""
    chosen_subjects, experiments = _chosen_subjects(names, also), _chosen(only)
    rounds = rounds or (2 if quick else 5)
    cc = programs.compiler()
    if cc is None:
        raise click.UsageError(NO_COMPILER)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console, load, shuffled = Console(), os.getloadavg()[0], random.Random(seed)
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        client = programs.build("client", folder, cc)
        target = programs.Target.start(programs.build("target", folder, cc))
        stack.callback(target.stop)
        run = Run(Bench(target, client, QUICK if quick else FULL), experiments, progress)
        started = run.start(stack, chosen_subjects)
        for number in range(rounds):
            run.round(started, shuffled, number + 1)
    measured = [subject.subject.name for subject in started]
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(report.table(run.results, experiments, measured))
    _print_conditions(console, run, chosen_subjects, load)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(run.results, experiments, measured), indent=1))
    if run.bench.problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
