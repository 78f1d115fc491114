"""``foreman jobs show``: all that is known of a job."""

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
    short_help="Show all that is known of a job.",
    examples=["foreman jobs show 1XES2H", "foreman jobs show 1XES2H --json | jq .usage"],
    exit_statuses=JOB_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@url_option
@json_option
def command(id_: str, url: str, *, as_json: bool) -> None:
    """Show all that is known of the job ID: its state, its times, what went wrong, what is kept with it."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import show_job

    job = run_client("jobs show", url, lambda foreman: fetch(foreman, id_), patience=None)
    if as_json:
        click.echo(json.dumps(job, indent=2))
    else:
        show_job(job, console(), datetime.now(UTC))


async def fetch(foreman: ForemanClient, wanted: str) -> Job:
    """The job that ``wanted`` stands for.

    :raises asking.Unanswered: if there is none.
    """
    from foreman.cli.client.jobs import fetch_job, resolve_id

    await foreman.health()
    return await fetch_job(foreman, await resolve_id(foreman, wanted))
