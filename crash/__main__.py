"""Attack the jobs of foreman, and check what is left: ``python -m crash`` (README.md says how to read it)."""

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

from crash.power_cut import Power
from crash.report import Attack, Control, show
from crash.runner import Siege, Totals, nursery
from crash.target import Target
from crash.zombies import Zombies

#: The safeguards that ``mutations.py`` takes out; it is not imported here, since it changes what it imports.
SABOTAGES = ("ack-before-commit", "sync-normal", "no-fence", "no-rescue-fence")
#: How often each is done where nothing else is said, and how many cycles each control gets to be found in.
CYCLES, POWER_CUTS, AT_SYSCALLS, ZOMBIES, CONTROL = 200, 50, 30, 10, 150
#: After how many cycles the history is checked: of a control soon, to tell when it was found.
EPOCH, CONTROL_EPOCH = 50, 5
#: What a control has left unfinished is not waited for as long; seconds.
CONTROL_PATIENCE = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the attacks that were asked for; the exit status."""
    asked = _parser().parse_args(arguments)
    seed = secrets.randbelow(10**9) if asked.seed is None else asked.seed
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"seed {seed}", highlight=False)
    run = _Run(seed, lambda text: console.print(text, markup=False, highlight=False))
    only = any((asked.cycles, asked.power_cut, asked.at_syscall, asked.zombies, asked.control))
    attacks, controls = [], []
    if asked.cycles or not only:
        attacks.append(Attack("kill -9", run.kills(asked.cycles or CYCLES)))
    if asked.power_cut or not only:
        attacks += run.power_cuts(asked.power_cut or POWER_CUTS)
    if asked.at_syscall or not only:
        attacks += run.at_syscalls(asked.at_syscall or AT_SYSCALLS)
    if asked.zombies or not only:
        attacks.append(Attack("zombies", run.zombies(asked.zombies or ZOMBIES)))
    names = asked.control or [] if only and not asked.controls else SABOTAGES
    for name in names:
        control = run.control(name, asked.control_cycles)
        if control is not None:
            controls.append(control)
    show(console, attacks, controls)
    whole = not any(attack.totals.findings for attack in attacks) and all(control.found for control in controls)
    return 0 if whole else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m crash", description=__doc__)
    add = parser.add_argument
    add("--cycles", type=int, metavar="N", help=f"kill -9 so many times ({CYCLES} when nothing is asked for)")
    add("--power-cut", type=int, nargs="?", const=POWER_CUTS, metavar="N", help="cut the power so many times")
    add("--at-syscall", type=int, nargs="?", const=AT_SYSCALLS, metavar="N", help="kill at chosen system calls")
    add("--zombies", type=int, nargs="?", const=ZOMBIES, metavar="N", help="wake up so many foremen that were replaced")
    add("--control", action="append", choices=SABOTAGES, help="a foreman without this safeguard, which must be found")
    add("--controls", action="store_true", help="all of them")
    add("--control-cycles", type=int, default=CONTROL, metavar="N", help="within so many cycles (%(default)s)")
    add("--seed", type=int, help="make the choices of an earlier run again; when things happen is up to the machine")
    return parser


class _Run:
    """Attacks, each in a folder of its own, which stays where something was found."""

    def __init__(self, seed: int, tell: Callable[[str], None]) -> None:
        self._seed, self._tell = seed, tell

    def kills(self, cycles: int) -> Totals:
        return self._attack("kill -9", lambda siege: siege.run(cycles))

    def power_cuts(self, cycles: int) -> list[Attack]:
        if self._cannot_cut():
            return []
        return [Attack("power cuts", self._attack("power cuts", lambda siege: siege.run(cycles), cuts=True))]

    def at_syscalls(self, cycles: int) -> list[Attack]:
        if shutil.which("strace") is None:
            self._tell("kills at system calls are skipped: there is no strace here")
            return []

        def attack(siege: Siege) -> Totals:
            siege.at_syscall = True
            return siege.run(cycles)

        return [Attack("at system calls", self._attack("at system calls", attack))]

    def zombies(self, rounds: int) -> Totals:
        return self._attack("zombies", lambda siege: Zombies(siege).run(rounds))

    def control(self, name: str, cycles: int) -> Control | None:
        cuts = name == "sync-normal"
        if cuts and self._cannot_cut():
            return None

        def attack(siege: Siege) -> Totals:
            siege.epoch, siege.patience = CONTROL_EPOCH, CONTROL_PATIENCE
            if name == "no-fence":
                return Zombies(siege).run(cycles, until_found=True)
            return siege.run(cycles, until_found=True)

        return Control(name, self._attack(f"control {name}", attack, sabotage=name, cuts=cuts))

    def _cannot_cut(self) -> bool:
        if sys.platform == "linux" and compiler() is not None:
            return False
        self._tell("power cuts are skipped: they need Linux and a C compiler")
        return True

    def _attack(
        self, name: str, attack: Callable[[Siege], Totals], *, sabotage: str | None = None, cuts: bool = False
    ) -> Totals:
        folder = Path(tempfile.mkdtemp(prefix="crash-"))
        power = Power.of(folder / "foreman.db", str(compiler())) if cuts else None
        preload = None if power is None else power.preload
        with Target() as target, nursery(folder, target, sabotage, preload) as daemons:
            siege = Siege(daemons, target, random.Random(f"{self._seed} {name}"), epoch=EPOCH, power=power)
            siege.tell = lambda text: self._tell(f"{name}: {text}")
            totals = attack(siege)
        if power is not None:
            totals.counts["bytes that a cut undid"] = power.undone
        if totals.findings and sabotage is None:
            self._tell(f"{name}: what was found, and the log, are in {folder}")
        else:
            shutil.rmtree(folder)
        return totals


if __name__ == "__main__":
    sys.exit(main())
