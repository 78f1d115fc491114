"""``foreman jobs follow``: print the answer of a job as it streams in."""

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
    short_help="Print the answer of a job as it streams in.",
    examples=["foreman jobs follow 1XES2H"],
    exit_statuses=WAIT_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@url_option
def command(id_: str, url: str) -> None:
    """Print the answer of the job ID from its beginning, as it streams in. A lost connection is resumed.

    If an attempt fails and another begins, a message on standard error says so; scripts should use foreman jobs wait and
    get instead. Answers without a stream (/v1, embeddings) are printed once the job has ended.
    """
    from foreman.cli.client.client import run_client

    hint = f"the job continues; to return to it: {command_for('follow', [id_])}"
    job = run_client(
        "jobs follow", url, lambda foreman: follow(foreman, id_), time_limit=None, interrupted=lambda: hint
    )
    sys.exit(status_of_job(job))


async def follow(foreman: ForemanClient, given: str) -> Job:
    """Follow a job to its end.

    :param given: the id of the job, or the end of it.
    :raises RequestFailed: if there is no such job.
    """
    from foreman.cli.client.job_answers import follow_to_answer
    from foreman.cli.client.jobs import resolve_id

    await foreman.health()
    return await follow_to_answer(foreman, await resolve_id(foreman, given))
