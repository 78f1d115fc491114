"""``foreman jobs wait``: wait until jobs have ended; the exit status says how."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from foreman.cli.ui.common_options import IdParam, json_option, url_option
from foreman.cli.ui.exit_status import WAIT_STATUSES, highest, status_of_job
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.job_text import summary
from foreman.cli.ui.next_steps import command_for_many
from foreman.cli.ui.setting_options import ParsedParam
from foreman.config.parsers import seconds

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient
    from foreman.cli.client.jobs import Job


@click.command(
    "wait",
    cls=HelpfulCommand,
    short_help="Wait until jobs have ended.",
    examples=[
        "foreman jobs wait 1XES2H && foreman jobs get 1XES2H",
        "foreman jobs wait 1XES2H 7D2E8R --timeout 10m",
    ],
    exit_statuses=WAIT_STATUSES,
)
@click.argument("ids", type=IdParam(), metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout",
    type=ParsedParam("DURATION", seconds),
    metavar="DURATION",
    help="Wait at most this long, such as 30s or 2h.",
)
@url_option
@json_option
def command(ids: tuple[str, ...], url: str, timeout: float | None, *, as_json: bool) -> None:
    """Wait until each job ID has ended, and print how it ended. Waiting survives restarts of foreman.

    With several jobs, the exit status is the highest of all. Ctrl-C does not cancel the jobs.
    """
    from foreman.cli.client.client import run_client

    hint = f"no longer waiting; the jobs continue. To wait again: {command_for_many('wait', ids)}"
    jobs = run_client(
        "jobs wait", url, lambda foreman: wait(foreman, ids, timeout), time_limit=None, interrupted=lambda: hint
    )
    if as_json:
        click.echo(json.dumps({"jobs": jobs}, indent=2))
    else:
        for job in jobs:
            click.echo(summary(job, datetime.now(UTC)))
    sys.exit(highest(map(status_of_job, jobs)))


async def wait(foreman: ForemanClient, given: tuple[str, ...], time_limit: float | None) -> list[Job]:
    """Wait for jobs; return them ended, or in their state after ``time_limit`` seconds.

    :param given: their ids, or the ends of them.
    :raises RequestFailed: if an id matches no job, or foreman is unreachable for too long.
    """
    from foreman.cli.client.jobs import resolve_ids
    from foreman.cli.client.polling import INTERACTIVE_WAIT, UNATTENDED_WAIT, wait_for_jobs
    from foreman.cli.ui.progress import progress

    await foreman.health()
    ids = await resolve_ids(foreman, given)
    with progress() as shown:
        max_hold = INTERACTIVE_WAIT if sys.stderr.isatty() else UNATTENDED_WAIT
        return await wait_for_jobs(foreman, ids, shown, max_hold=max_hold, time_limit=time_limit)
