"""``foreman jobs retry``: queue jobs again that ended without success."""

from __future__ import annotations

import sys

import click

from foreman.cli.commands.jobs.bulk import change_jobs
from foreman.cli.ui.common_options import IdParam, url_option
from foreman.cli.ui.exit_status import FAILED, JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand


@click.command(
    "retry",
    cls=HelpfulCommand,
    short_help="Retry jobs that ended without success.",
    examples=["foreman jobs retry 1XES2H", "foreman jobs retry 1XES2H 7D2E8R"],
    exit_statuses=JOB_STATUSES | {FAILED: "foreman does not answer, or the state of a job does not allow it"},
)
@click.argument("ids", type=IdParam(changes=True), metavar="ID...", nargs=-1, required=True)
@url_option
def command(ids: tuple[str, ...], url: str) -> None:
    """Queue each job ID again that failed, was discarded or was cancelled. Its attempts are counted anew."""
    sys.exit(change_jobs("jobs retry", url, ids, "retry", "queued again"))
