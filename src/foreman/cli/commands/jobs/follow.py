"""``foreman jobs follow``: print a job's answer as it comes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from foreman.cli.ui.common_options import IdParam, url_option
from foreman.cli.ui.exit_status import WAIT_STATUSES, status_of_job
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.next_steps import command_for

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient
    from foreman.cli.client.jobs import Job


@click.command(
    "follow",
    cls=HelpfulCommand,
    short_help="Print a job's answer as it comes.",
    examples=["foreman jobs follow 1XES2H"],
    exit_statuses=WAIT_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@url_option
def command(id_: str, url: str) -> None:
    """Print the words of the job ID as they come, from the first on; where the connection breaks, it goes on behind.

    Where a try fails and another begins, that is said on standard error; a script is better off with foreman jobs wait
    and get. What does not answer in lines (/v1, embeddings) is printed once it is there.
    """
    from foreman.cli.client.client import run_client

    back = f"the job goes on; come back with: {command_for('follow', [id_])}"
    job = run_client("jobs follow", url, lambda foreman: follow(foreman, id_), patience=None, interrupted=lambda: back)
    sys.exit(status_of_job(job))


async def follow(foreman: ForemanClient, wanted: str) -> Job:
    """Follow the job that ``wanted`` stands for to its end.

    :raises asking.Unanswered: if there is none.
    """
    from foreman.cli.client.job_answers import follow_to_answer
    from foreman.cli.client.jobs import resolve_id

    await foreman.health()
    return await follow_to_answer(foreman, await resolve_id(foreman, wanted))
