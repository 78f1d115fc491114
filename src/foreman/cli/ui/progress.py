"""A transient display on standard error of the jobs that a command waits for."""

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

#: How many jobs are shown, one per line.
_LINES = 8


@define(eq=False)
class Progress:
    """The jobs that are waited for, as they are displayed.

    :ivar outage: why foreman cannot be reached at the moment; empty while it answers.
    """

    jobs: dict[str, Mapping[str, Any]] = field(factory=dict)
    outage: str = ""
    _spinner: Spinner = field(factory=lambda: Spinner("dots"))
    _live: Live | None = None

    def update(self, job: Mapping[str, Any]) -> None:
        """Show the current state of a job, and that foreman answers."""
        self.outage = ""
        self.jobs[str(job.get("id"))] = job
        if self._live is not None:
            self._live.refresh()

    def remove(self, job: Mapping[str, Any]) -> None:
        """Remove a job that is no longer waited for."""
        self.outage = ""
        self.jobs.pop(str(job.get("id")), None)

    @property
    def is_visible(self) -> bool:
        """Whether it is displayed."""
        return self._live is not None

    def close(self) -> None:
        """Clear the display, before other output."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = datetime.now(UTC)
        lines = [_line(job, now) for job in list(self.jobs.values())[:_LINES]]
        if len(self.jobs) > _LINES:
            lines.append(Text(f"and {len(self.jobs) - _LINES} more", style="dim"))
        if self.outage:
            lines.append(Text(f"foreman does not answer, retrying: {self.outage}", style="yellow"))
        for line in lines:
            # A wrapped line would leave a rest on the screen when it is redrawn.
            line.truncate(options.max_width - 2, overflow="ellipsis")
        if lines:
            self._spinner.update(text=lines[0])
            yield self._spinner
        yield from (Text.assemble("  ", line) for line in lines[1:])


@contextmanager
def progress() -> Iterator[Progress]:
    """Display the progress while the block runs; nothing is shown if standard error is not a terminal."""
    display = Progress()
    if not sys.stderr.isatty():
        yield display
        return
    with Live(
        display,
        console=Console(stderr=True, width=width_of(sys.stderr), highlight=False),
        transient=True,
        refresh_per_second=8,
    ) as live:
        display._live = live  # noqa: SLF001 - its own
        yield display


def _line(job: Mapping[str, Any], now: datetime) -> Text:
    state = str(job.get("state"))
    parts = [f"position {job['position']}"] if isinstance(job.get("position"), int) else []
    parts += filter(None, (timing(job, now), error_text(job)))
    line = Text.assemble(short_id(job), " ", (state if state in STATE_STYLES else "?", STATE_STYLES.get(state, "")))
    line.append("".join(f", {part}" for part in parts))
    return line
