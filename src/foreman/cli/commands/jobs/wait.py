"""``foreman jobs wait``: wait until jobs have ended, and tell by the exit status how."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from foreman.cli.ui.common_options import Id, json_option, url_option
from foreman.cli.ui.exit_status import WAITING_ENDS, highest, status_of
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.job_text import sentence
from foreman.cli.ui.next_steps import command_for_many
from foreman.cli.ui.setting_options import Written
from foreman.config.parsers import seconds

if TYPE_CHECKING:
    from foreman.cli.client.client import Foreman
    from foreman.cli.client.jobs import Job


@click.command(
    "wait",
    cls=HelpfulCommand,
    short_help="Wait until jobs have ended.",
    examples=[
        "foreman jobs wait 1XES2H && foreman jobs get 1XES2H",
        "foreman jobs wait 1XES2H 7D2E8R --timeout 10m",
    ],
    ends=WAITING_ENDS,
)
@click.argument("ids", type=Id(), metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout", type=Written("DURATION", seconds), metavar="DURATION", help="Not longer than this, such as 30s or 2h."
)
@url_option
@json_option
def command(ids: tuple[str, ...], url: str, timeout: float | None, *, as_json: bool) -> None:
    """Wait until each job ID has ended, and say how; also while foreman is started anew in between.

    Of several jobs the highest exit status counts. Ctrl-C leaves them alone.
    """
    from foreman.cli.client.client import answer_of

    back = f"no longer waiting; the jobs go on. To wait again: {command_for_many('wait', ids)}"
    jobs = answer_of(
        "jobs wait", url, lambda foreman: wait(foreman, ids, timeout), patience=None, interrupted=lambda: back
    )
    if as_json:
        click.echo(json.dumps({"jobs": jobs}, indent=2))
    else:
        for job in jobs:
            click.echo(sentence(job, datetime.now(UTC)))
    sys.exit(highest(map(status_of, jobs)))


async def wait(foreman: Foreman, wanted: tuple[str, ...], longest: float | None) -> list[Job]:
    """The jobs that are ``wanted``, ended, or as they are after ``longest`` seconds.

    :raises asking.Unanswered: if there is none of that id, or foreman is away for too long.
    """
    from foreman.cli.client.jobs import whole_ids
    from foreman.cli.client.polling import ALONE, LOOKED_AT, until_all
    from foreman.cli.ui.progress import progress

    await foreman.health()
    ids = await whole_ids(foreman, wanted)
    with progress() as shown:
        step = LOOKED_AT if sys.stderr.isatty() else ALONE
        return await until_all(foreman, ids, shown, step=step, longest=longest)
