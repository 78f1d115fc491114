"""``foreman jobs artifacts``: what is kept with a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from foreman.cli.ui.common_options import IdParam, json_option, url_option
from foreman.cli.ui.console import console, objects
from foreman.cli.ui.exit_status import JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient


@click.command(
    "artifacts",
    cls=HelpfulCommand,
    short_help="List what is kept with a job.",
    examples=["foreman jobs artifacts 1XES2H", "foreman jobs get 1XES2H error"],
    exit_statuses=JOB_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@url_option
@json_option
def command(id_: str, url: str, *, as_json: bool) -> None:
    """List what is kept with the job ID: its response, the stream, an error, and what others have put there."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import show_artifacts

    found = run_client("jobs artifacts", url, lambda foreman: fetch_artifacts(foreman, id_), patience=None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif rows := objects(found["artifacts"]):
        show_artifacts(rows, console(), datetime.now(UTC))
    else:
        console().print(Text("nothing is kept with it yet", style="dim"))


async def fetch_artifacts(foreman: ForemanClient, wanted: str) -> dict[str, Any]:
    """The artifacts of the job that ``wanted`` stands for, as foreman lists them.

    :raises asking.Unanswered: if there is no such job, or foreman does not tell.
    """
    from foreman.cli.client.jobs import job_path, no_such_job, refusal, resolve_id

    await foreman.health()
    id_ = await resolve_id(foreman, wanted)
    answer = await foreman.fetch("GET", job_path(id_, "artifacts"))
    if answer.status != 200:
        raise no_such_job(foreman, answer, id_)
    if not isinstance(answer.body, dict) or not isinstance(answer.body.get("artifacts"), list):
        raise refusal(foreman, answer, f"{foreman.url} does not list artifacts")
    return answer.body
