"""The results of the attacks as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from attrs import frozen
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from crash.check import KINDS
from crash.runner import Totals

#: How many findings of an attack are printed; the others are only counted.
MAX_EXAMPLES = 10


@frozen
class Attack:
    """The result of one attack on the unchanged foreman."""

    name: str
    totals: Totals


@frozen
class Control:
    """The result of one attack on a foreman without a safeguard, which must be found."""

    name: str
    totals: Totals

    @property
    def found(self) -> bool:
        """Whether there are findings, as there must be."""
        return bool(self.totals.findings)

    def sentence(self) -> str:
        """The result in a sentence."""
        if not self.found:
            return f"control {self.name}: NOT FOUND in {self.totals.cycles} cycles"
        kinds = ", ".join(kind for kind in KINDS if kind in kinds_of(self.totals))
        return f"control {self.name}: found after {self.totals.cycles} cycles ({kinds})"


def kinds_of(totals: Totals) -> Counter[str]:
    """The number of findings of each kind."""
    return Counter(kind for kind, _ in totals.findings)


def show(console: Console, attacks: Sequence[Attack], controls: Sequence[Control]) -> None:
    """Print the table, some of the findings, and the controls."""
    if attacks:
        console.print(table(attacks), soft_wrap=True)
    for attack in attacks:
        for kind, text in attack.totals.findings[:MAX_EXAMPLES]:
            console.print(f"{attack.name}: {kind}: {text}", markup=False, soft_wrap=True)
    for control in controls:
        console.print(control.sentence(), markup=False, highlight=False)


def table(attacks: Sequence[Attack]) -> Table:
    """One column for each attack; the rows that must be 0 come last."""
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("")
    for attack in attacks:
        drawn.add_column(attack.name, justify="right", no_wrap=True)
    all_totals = [attack.totals for attack in attacks]

    def row(title: str, *cells: str) -> None:
        drawn.add_row(title, *cells)

    row("cycles", *(f"{totals.cycles:,}" for totals in all_totals))
    row("seconds", *(f"{totals.seconds:,.0f}" for totals in all_totals))
    row("start to listening, ms: median (max)", *(_starts(totals) for totals in all_totals))
    for moment in dict.fromkeys(moment for totals in all_totals for moment, _ in totals.kills.most_common()):
        row(f"ended: {moment}", *(f"{totals.kills[moment]:,}" for totals in all_totals))
    for name in dict.fromkeys(name for totals in all_totals for name in totals.counts):
        row(name, *(f"{totals.counts[name]:,}" for totals in all_totals))
    drawn.add_section()
    for kind, meaning in KINDS.items():
        row(f"{kind}: {meaning}", *(f"{kinds_of(totals)[kind]:,}" for totals in all_totals))
    return drawn


def _starts(totals: Totals) -> str:
    if not totals.starts:
        return "–"
    return f"{1000 * median(totals.starts):,.0f} ({1000 * max(totals.starts):,.0f})"
