"""``foreman jobs wait``: wait until jobs have ended, and tell by the exit status how."""

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
    help="Not longer than this, such as 30s or 2h.",
)
@url_option
@json_option
def command(ids: tuple[str, ...], url: str, timeout: float | None, *, as_json: bool) -> None:
    """Wait until each job ID has ended, and say how; also while foreman is started anew in between.

    Of several jobs the highest exit status counts. Ctrl-C leaves them alone.
    """
    from foreman.cli.client.client import run_client

    back = f"no longer waiting; the jobs go on. To wait again: {command_for_many('wait', ids)}"
    jobs = run_client(
        "jobs wait", url, lambda foreman: wait(foreman, ids, timeout), patience=None, interrupted=lambda: back
    )
    if as_json:
        click.echo(json.dumps({"jobs": jobs}, indent=2))
    else:
        for job in jobs:
            click.echo(summary(job, datetime.now(UTC)))
    sys.exit(highest(map(status_of_job, jobs)))


async def wait(foreman: ForemanClient, wanted: tuple[str, ...], longest: float | None) -> list[Job]:
    """The jobs that are ``wanted``, ended, or as they are after ``longest`` seconds.

    :raises asking.Unanswered: if there is none of that id, or foreman is away for too long.
    """
    from foreman.cli.client.jobs import resolve_ids
    from foreman.cli.client.polling import INTERACTIVE_WAIT, UNATTENDED_WAIT, wait_for_jobs
    from foreman.cli.ui.progress import progress

    await foreman.health()
    ids = await resolve_ids(foreman, wanted)
    with progress() as shown:
        step = INTERACTIVE_WAIT if sys.stderr.isatty() else UNATTENDED_WAIT
        return await wait_for_jobs(foreman, ids, shown, step=step, longest=longest)
