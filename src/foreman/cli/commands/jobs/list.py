"""``foreman jobs list``, and ``foreman jobs`` alone: the newest jobs, or those that are asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from foreman.cli.client.errors import RequestFailed
from foreman.cli.ui.console import console
from foreman.cli.ui.exit_status import CLIENT_STATUSES, FAILED
from foreman.cli.ui.filter_options import JobFilters, filter_options
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient
    from foreman.cli.client.jobs import Job

#: As many jobs are listed at once: they are all kept in memory until they are printed.
_MAX_JOBS = 1_000_000


@click.command(
    "list",
    cls=HelpfulCommand,
    short_help="List jobs, the newest first; what foreman jobs alone does.",
    examples=["foreman jobs list --state queued --model llama3.2:3b", "foreman jobs list --since 1d --all --json"],
    exit_statuses=CLIENT_STATUSES,
)
@filter_options
def command(url: str, *, as_json: bool, **filters: Any) -> None:
    """List jobs, the newest first.

    AGE is since it was handed over; TIME how long it has waited, runs, ran, or when it is to run.
    """
    run(url, JobFilters(**filters), as_json=as_json)


def run(url: str, filters: JobFilters, *, as_json: bool) -> None:
    """Ask, and print."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import show_list

    jobs, more = run_client("jobs", url, lambda foreman: fetch_jobs(foreman, filters), patience=None)
    if as_json:
        click.echo(json.dumps({"jobs": jobs, "next": more}, indent=2))
        return
    paper = console()
    if not jobs:
        some = filters != JobFilters()
        hint = "no job is like that" if some else "there are no jobs; hand one over with: foreman submit"
        paper.print(Text(hint, style="dim"), soft_wrap=not paper.is_terminal)
        return
    show_list(jobs, paper, datetime.now(UTC))
    if more:
        paper.print(
            Text(f"the newest {len(jobs)}; there are more: --limit, --all", style="dim"),
            soft_wrap=not paper.is_terminal,
        )


async def fetch_jobs(foreman: ForemanClient, filters: JobFilters) -> tuple[list[Job], str | None]:
    """The jobs, and where more of them are.

    :raises asking.Unanswered: if foreman does not tell.
    """
    from foreman.cli.client.jobs import fetch_page

    await foreman.health()
    found: list[Job] = []
    path: str | None = filters.path()
    seen: set[object] = set()
    while path is not None:
        jobs, path = await fetch_page(foreman, path)
        fresh = {job.get("id") for job in jobs} - seen
        if path is not None and not fresh:
            raise RequestFailed(FAILED, f"{foreman.url} lists the same jobs again: is it foreman?")
        seen |= fresh
        found += jobs
        if len(found) > _MAX_JOBS:
            raise RequestFailed(
                FAILED, f"there are more than {_MAX_JOBS:,} jobs: choose fewer with --since, --state or --limit"
            )
        if not filters.everything and len(found) >= filters.limit:
            # A page may be larger than what is left; what is cut off is found behind the last one shown.
            path = path if len(found) == filters.limit else f"{filters.path()}&before={found[filters.limit - 1]['id']}"
            return found[: filters.limit], path
    return found, None
