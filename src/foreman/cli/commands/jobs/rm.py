"""``foreman jobs rm``: remove jobs with all that belongs to them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from foreman.cli.client.errors import Unanswered
from foreman.cli.commands.jobs.bulk import each
from foreman.cli.ui.common_options import Id, url_option
from foreman.cli.ui.exit_status import FAILED, FINDING_ENDS
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import Foreman


@click.command(
    "rm",
    cls=HelpfulCommand,
    short_help="Remove jobs with all that belongs to them.",
    examples=["foreman jobs rm 1XES2H", "foreman jobs rm --force 1XES2H 7D2E8R"],
    ends=FINDING_ENDS | {FAILED: "foreman does not answer, or a job has not ended yet"},
)
@click.argument("ids", type=Id(changes=True), metavar="ID...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Cancel it first where it has not ended yet.")
@url_option
def command(ids: tuple[str, ...], url: str, *, force: bool) -> None:
    """Remove each job ID that has ended, with its answer and all that is kept with it."""
    from foreman.cli.client.client import answer_of

    sys.exit(
        answer_of(
            "jobs rm",
            url,
            lambda foreman: each("jobs rm", foreman, ids, lambda foreman, id_: remove(foreman, id_, force=force)),
            patience=None,
        )
    )


async def remove(foreman: Foreman, id_: str, *, force: bool) -> str:
    """Remove one job; what to say of it.

    :raises Unanswered: if it is not removed.
    """
    from foreman.cli.client.jobs import no_such_job, path_of, refused

    answer = await foreman.fetch("DELETE", path_of(id_))
    if answer.status == 409 and force:
        # It may end by itself in between, which is as good.
        await foreman.fetch("POST", path_of(id_, "cancel"), body=b"")
        answer = await foreman.fetch("DELETE", path_of(id_))
    if answer.status == 404:
        raise no_such_job(foreman, answer, id_)
    if answer.status == 409 and not force:
        raise Unanswered(FAILED, f"{id_} has not ended yet; --force cancels it first")
    if answer.status != 204:
        raise refused(foreman, answer, f"{id_} is not removed")
    return f"{id_} is removed"
