"""``foreman jobs show``: show the details of a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from foreman.cli.ui.common_options import IdParam, json_option, url_option
from foreman.cli.ui.console import console
from foreman.cli.ui.exit_status import JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient
    from foreman.cli.client.jobs import Job


@click.command(
    "show",
    cls=HelpfulCommand,
    short_help="Show the details of a job.",
    examples=["foreman jobs show 1XES2H", "foreman jobs show 1XES2H --json | jq .usage"],
    exit_statuses=JOB_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@url_option
@json_option
def command(id_: str, url: str, *, as_json: bool) -> None:
    """Show the details of the job ID: its state, times, error, usage and artifacts."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import show_job

    job = run_client("jobs show", url, lambda foreman: fetch(foreman, id_), time_limit=None)
    if as_json:
        click.echo(json.dumps(job, indent=2))
    else:
        show_job(job, console(), datetime.now(UTC))


async def fetch(foreman: ForemanClient, given: str) -> Job:
    """Fetch a job.

    :param given: the id of the job, or the end of it.
    :raises RequestFailed: if there is no such job.
    """
    from foreman.cli.client.jobs import fetch_job, resolve_id

    await foreman.health()
    return await fetch_job(foreman, await resolve_id(foreman, given))
