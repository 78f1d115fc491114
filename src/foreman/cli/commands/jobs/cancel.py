"""``foreman jobs cancel``: cancel jobs."""

from __future__ import annotations

import sys

import click

from foreman.cli.commands.jobs.bulk import change_jobs
from foreman.cli.ui.common_options import IdParam, url_option
from foreman.cli.ui.exit_status import FAILED, JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand


@click.command(
    "cancel",
    cls=HelpfulCommand,
    short_help="Cancel jobs.",
    examples=["foreman jobs cancel 1XES2H", "foreman jobs cancel 1XES2H 7D2E8R"],
    exit_statuses=JOB_STATUSES | {FAILED: "foreman does not answer, or the state of a job does not allow it"},
)
@click.argument("ids", type=IdParam(changes=True), metavar="ID...", nargs=-1, required=True)
@url_option
def command(ids: tuple[str, ...], url: str) -> None:
    """Cancel each job ID, whether it is scheduled, queued or running."""
    sys.exit(change_jobs("jobs cancel", url, ids, "cancel", "cancelled"))
