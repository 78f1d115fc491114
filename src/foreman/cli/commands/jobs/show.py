"""``foreman jobs show``: all that is known of a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from foreman.cli.ui.common_options import Id, json_option, url_option
from foreman.cli.ui.console import console
from foreman.cli.ui.exit_status import FINDING_ENDS
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import Foreman
    from foreman.cli.client.jobs import Job


@click.command(
    "show",
    cls=HelpfulCommand,
    short_help="Show all that is known of a job.",
    examples=["foreman jobs show 1XES2H", "foreman jobs show 1XES2H --json | jq .usage"],
    ends=FINDING_ENDS,
)
@click.argument("id_", type=Id(), metavar="ID")
@url_option
@json_option
def command(id_: str, url: str, *, as_json: bool) -> None:
    """Show all that is known of the job ID: its state, its times, what went wrong, what is kept with it."""
    from foreman.cli.client.client import answer_of
    from foreman.cli.ui.job_view import show_job

    job = answer_of("jobs show", url, lambda foreman: look(foreman, id_), patience=None)
    if as_json:
        click.echo(json.dumps(job, indent=2))
    else:
        show_job(job, console(), datetime.now(UTC))


async def look(foreman: Foreman, wanted: str) -> Job:
    """The job that ``wanted`` stands for.

    :raises asking.Unanswered: if there is none.
    """
    from foreman.cli.client.jobs import job_of, whole_id

    await foreman.health()
    return await job_of(foreman, await whole_id(foreman, wanted))
