"""Where jobs stand, for a person who waits for them: on the terminal beside the output, gone when it is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from attrs import define, field
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from foreman.cli.ui.console import width_of
from foreman.cli.ui.job_text import STATE_STYLES, error_text, short_id, timing

#: As many jobs have a line of their own.
_LINES = 8


@define(eq=False)
class Progress:
    """What is known of the jobs that are waited for.

    :ivar away: why foreman does not answer just now; empty while it does.
    """

    jobs: dict[str, Mapping[str, Any]] = field(factory=dict)
    away: str = ""
    _spinner: Spinner = field(factory=lambda: Spinner("dots"))
    _live: Live | None = None

    def saw(self, job: Mapping[str, Any]) -> None:
        """Remember how a job stands; foreman answers, then."""
        self.away = ""
        self.jobs[str(job.get("id"))] = job
        if self._live is not None:
            self._live.refresh()

    def ended(self, job: Mapping[str, Any]) -> None:
        """Wait for this one no longer."""
        self.away = ""
        self.jobs.pop(str(job.get("id")), None)

    @property
    def is_open(self) -> bool:
        """Whether somebody still sees it."""
        return self._live is not None

    def close(self) -> None:
        """Clear the terminal for what comes now."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = datetime.now(UTC)
        lines = [_line(job, now) for job in list(self.jobs.values())[:_LINES]]
        if len(self.jobs) > _LINES:
            lines.append(Text(f"and {len(self.jobs) - _LINES} more", style="dim"))
        if self.away:
            lines.append(Text(f"foreman does not answer, and is asked again: {self.away}", style="yellow"))
        for line in lines:
            # A line that goes on in the next one would be left behind where it is drawn anew.
            line.truncate(options.max_width - 2, overflow="ellipsis")
        if lines:
            self._spinner.update(text=lines[0])
            yield self._spinner
        yield from (Text.assemble("  ", line) for line in lines[1:])


@contextmanager
def progress() -> Iterator[Progress]:
    """Show it while the block runs; nothing where nobody looks."""
    shown = Progress()
    if not sys.stderr.isatty():
        yield shown
        return
    with Live(
        shown,
        console=Console(stderr=True, width=width_of(sys.stderr), highlight=False),
        transient=True,
        refresh_per_second=8,
    ) as live:
        shown._live = live  # noqa: SLF001 - its own
        yield shown


def _line(job: Mapping[str, Any], now: datetime) -> Text:
    state = str(job.get("state"))
    parts = [f"place {job['position']}"] if isinstance(job.get("position"), int) else []
    parts += filter(None, (timing(job, now), error_text(job)))
    line = Text.assemble(short_id(job), " ", (state if state in STATE_STYLES else "?", STATE_STYLES.get(state, "")))
    line.append("".join(f", {part}" for part in parts))
    return line
