"""``foreman jobs list``, which is also ``foreman jobs`` alone: list the newest jobs, or those that match filters."""

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

#: The most jobs that are listed: all are kept in memory until they are printed.
_MAX_JOBS = 1_000_000


@click.command(
    "list",
    cls=HelpfulCommand,
    short_help="List jobs, the newest first (the default command).",
    examples=["foreman jobs list --state queued --model llama3.2:3b", "foreman jobs list --since 1d --all --json"],
    exit_statuses=CLIENT_STATUSES,
)
@filter_options
def command(url: str, *, as_json: bool, **filters: Any) -> None:
    """List jobs, the newest first.

    AGE is the time since a job was submitted. TIME is how long it has been queued or running, how long it ran, or when it
    is due.
    """
    run(url, JobFilters(**filters), as_json=as_json)


def run(url: str, filters: JobFilters, *, as_json: bool) -> None:
    """Fetch the jobs and print them."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import show_list

    jobs, next_page = run_client("jobs", url, lambda foreman: fetch_jobs(foreman, filters), time_limit=None)
    if as_json:
        click.echo(json.dumps({"jobs": jobs, "next": next_page}, indent=2))
        return
    output = console()
    if not jobs:
        filtered = filters != JobFilters()
        hint = "no job matches" if filtered else "there are no jobs; submit one with: foreman submit"
        output.print(Text(hint, style="dim"), soft_wrap=not output.is_terminal)
        return
    show_list(jobs, output, datetime.now(UTC))
    if next_page:
        output.print(
            Text(f"these are the newest {len(jobs)}; for more use --limit or --all", style="dim"),
            soft_wrap=not output.is_terminal,
        )


async def fetch_jobs(foreman: ForemanClient, filters: JobFilters) -> tuple[list[Job], str | None]:
    """Fetch the jobs; return them and the path of the next page.

    :raises RequestFailed: if the request fails.
    """
    from foreman.cli.client.jobs import fetch_page

    await foreman.health()
    listed: list[Job] = []
    path: str | None = filters.path()
    seen_ids: set[object] = set()
    while path is not None:
        jobs, path = await fetch_page(foreman, path)
        new_ids = {job.get("id") for job in jobs} - seen_ids
        if path is not None and not new_ids:
            raise RequestFailed(FAILED, f"{foreman.url} returned the same page twice; is it foreman?")
        seen_ids |= new_ids
        listed += jobs
        if len(listed) > _MAX_JOBS:
            raise RequestFailed(
                FAILED, f"there are more than {_MAX_JOBS:,} jobs; select fewer with --since, --state or --limit"
            )
        if not filters.all_pages and len(listed) >= filters.limit:
            # The page may be larger than needed: the next page then begins after the last job that is listed.
            path = (
                path if len(listed) == filters.limit else f"{filters.path()}&before={listed[filters.limit - 1]['id']}"
            )
            return listed[: filters.limit], path
    return listed, None
