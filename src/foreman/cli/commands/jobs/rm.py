"""``foreman jobs rm``: delete jobs with their artifacts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from foreman.cli.client.errors import RequestFailed
from foreman.cli.commands.jobs.bulk import for_each_job
from foreman.cli.ui.common_options import IdParam, url_option
from foreman.cli.ui.exit_status import FAILED, JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient


@click.command(
    "rm",
    cls=HelpfulCommand,
    short_help="Delete jobs with their artifacts.",
    examples=["foreman jobs rm 1XES2H", "foreman jobs rm --force 1XES2H 7D2E8R"],
    exit_statuses=JOB_STATUSES | {FAILED: "foreman does not answer, or a job has not ended yet"},
)
@click.argument("ids", type=IdParam(changes=True), metavar="ID...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Cancel a job first if it has not ended yet.")
@url_option
def command(ids: tuple[str, ...], url: str, *, force: bool) -> None:
    """Delete each job ID that has ended, with its answer and other artifacts."""
    from foreman.cli.client.client import run_client

    sys.exit(
        run_client(
            "jobs rm",
            url,
            lambda foreman: for_each_job(
                "jobs rm", foreman, ids, lambda foreman, id_: delete(foreman, id_, force=force)
            ),
            time_limit=None,
        )
    )


async def delete(foreman: ForemanClient, id_: str, *, force: bool) -> str:
    """Delete one job; return the message about it.

    :raises RequestFailed: if it is not deleted.
    """
    from foreman.cli.client.jobs import job_path, no_such_job, refusal

    answer = await foreman.fetch("DELETE", job_path(id_))
    if answer.status == 409 and force:
        # It may have ended meanwhile, so the answer does not matter.
        await foreman.fetch("POST", job_path(id_, "cancel"), body=b"")
        answer = await foreman.fetch("DELETE", job_path(id_))
    if answer.status == 404:
        raise no_such_job(foreman, answer, id_)
    if answer.status == 409 and not force:
        raise RequestFailed(FAILED, f"{id_} has not ended yet; --force cancels it first")
    if answer.status != 204:
        raise refusal(foreman, answer, f"{id_} was not deleted")
    return f"{id_} was deleted"
