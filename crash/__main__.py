"""Crash foreman again and again, and check its jobs: ``python -m crash`` (README.md explains the output)."""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.programs import compiler
from rich.console import Console

from crash.power_cut import PowerCuts
from crash.report import Attack, Control, show
from crash.runner import Runner, Totals, fork_server
from crash.target import Target
from crash.zombies import Zombies

#: The safeguards that ``mutations.py`` can remove; it is not imported here, since it changes the modules it imports.
MUTATIONS = ("ack-before-commit", "sync-normal", "no-fence", "no-rescue-fence")
#: The default number of cycles of each attack, and within how many cycles a control must be found.
CYCLES, POWER_CUTS, AT_SYSCALLS, ZOMBIES, CONTROL = 200, 50, 30, 10, 150
#: The history is checked after so many cycles: sooner for a control, so that the report can say when it was found.
EPOCH, CONTROL_EPOCH = 50, 5
#: How long a control may take to finish its jobs at the end of an epoch, in seconds: shorter than in the attacks.
CONTROL_PATIENCE = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the chosen attacks; return the exit status."""
    options = _parser().parse_args(arguments)
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"seed {seed}", highlight=False)
    run = _Run(seed, lambda text: console.print(text, markup=False, highlight=False))
    only = any((options.cycles, options.power_cut, options.at_syscall, options.zombies, options.control))
    attacks, controls = [], []
    if options.cycles or not only:
        attacks.append(Attack("kill -9", run.kills(options.cycles or CYCLES)))
    if options.power_cut or not only:
        attacks += run.power_cuts(options.power_cut or POWER_CUTS)
    if options.at_syscall or not only:
        attacks += run.at_syscalls(options.at_syscall or AT_SYSCALLS)
    if options.zombies or not only:
        attacks.append(Attack("zombies", run.zombies(options.zombies or ZOMBIES)))
    names = options.control or [] if only and not options.controls else MUTATIONS
    for name in names:
        control = run.control(name, options.control_cycles)
        if control is not None:
            controls.append(control)
    show(console, attacks, controls)
    whole = not any(attack.totals.findings for attack in attacks) and all(control.found for control in controls)
    return 0 if whole else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m crash", description=__doc__)
    add = parser.add_argument
    add("--cycles", type=int, metavar="N", help=f"kill -9 N times (default: {CYCLES}, when no attack is chosen)")
    add("--power-cut", type=int, nargs="?", const=POWER_CUTS, metavar="N", help="cut the power N times")
    add(
        "--at-syscall", type=int, nargs="?", const=AT_SYSCALLS, metavar="N", help="kill N times at a chosen system call"
    )
    add(
        "--zombies",
        type=int,
        nargs="?",
        const=ZOMBIES,
        metavar="N",
        help="resume N stopped daemons after another one has taken over",
    )
    add(
        "--control",
        action="append",
        choices=MUTATIONS,
        help="run a foreman without this safeguard, which must be found (repeatable)",
    )
    add("--controls", action="store_true", help="run all controls")
    add(
        "--control-cycles",
        type=int,
        default=CONTROL,
        metavar="N",
        help="within how many cycles a control must be found (default: %(default)s)",
    )
    add("--seed", type=int, help="repeat the choices of an earlier run; the timing still depends on the machine")
    return parser


class _Run:
    """Makes attacks, each in its own folder, which is kept when there are findings."""

    def __init__(self, seed: int, progress: Callable[[str], None]) -> None:
        self._seed, self._progress = seed, progress

    def kills(self, cycles: int) -> Totals:
        return self._attack("kill -9", lambda runner: runner.run(cycles))

    def power_cuts(self, cycles: int) -> list[Attack]:
        if self._cannot_cut():
            return []
        return [Attack("power cuts", self._attack("power cuts", lambda runner: runner.run(cycles), cuts=True))]

    def at_syscalls(self, cycles: int) -> list[Attack]:
        if shutil.which("strace") is None:
            self._progress("kills at system calls are skipped: strace is not installed")
            return []

        def attack(runner: Runner) -> Totals:
            runner.at_syscall = True
            return runner.run(cycles)

        return [Attack("at system calls", self._attack("at system calls", attack))]

    def zombies(self, rounds: int) -> Totals:
        return self._attack("zombies", lambda runner: Zombies(runner).run(rounds))

    def control(self, name: str, cycles: int) -> Control | None:
        cuts = name == "sync-normal"
        if cuts and self._cannot_cut():
            return None

        def attack(runner: Runner) -> Totals:
            runner.epoch, runner.patience = CONTROL_EPOCH, CONTROL_PATIENCE
            if name == "no-fence":
                return Zombies(runner).run(cycles, until_found=True)
            return runner.run(cycles, until_found=True)

        return Control(name, self._attack(f"control {name}", attack, mutation=name, cuts=cuts))

    def _cannot_cut(self) -> bool:
        if sys.platform == "linux" and compiler() is not None:
            return False
        self._progress("power cuts are skipped: they need Linux and a C compiler")
        return True

    def _attack(
        self, name: str, attack: Callable[[Runner], Totals], *, mutation: str | None = None, cuts: bool = False
    ) -> Totals:
        folder = Path(tempfile.mkdtemp(prefix="crash-"))
        power_cuts = PowerCuts.of(folder / "foreman.db", str(compiler())) if cuts else None
        preload = None if power_cuts is None else power_cuts.preload
        with Target() as target, fork_server(folder, target, mutation, preload) as daemons:
            runner = Runner(daemons, target, random.Random(f"{self._seed} {name}"), epoch=EPOCH, power_cuts=power_cuts)
            runner.progress = lambda text: self._progress(f"{name}: {text}")
            totals = attack(runner)
        if power_cuts is not None:
            totals.counts["bytes undone by power cuts"] = power_cuts.undone
        if totals.findings and mutation is None:
            self._progress(f"{name}: the databases with findings and the log are in {folder}")
        else:
            shutil.rmtree(folder)
        return totals


if __name__ == "__main__":
    sys.exit(main())
