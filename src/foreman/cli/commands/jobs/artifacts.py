"""``foreman jobs artifacts``: list the artifacts of a job."""

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
    short_help="List the artifacts of a job.",
    examples=["foreman jobs artifacts 1XES2H", "foreman jobs get 1XES2H error"],
    exit_statuses=JOB_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@url_option
@json_option
def command(id_: str, url: str, *, as_json: bool) -> None:
    """List the artifacts of the job ID: its response, stream and error, and those that clients have added."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import show_artifacts

    found = run_client("jobs artifacts", url, lambda foreman: fetch_artifacts(foreman, id_), time_limit=None)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif rows := objects(found["artifacts"]):
        show_artifacts(rows, console(), datetime.now(UTC))
    else:
        console().print(Text("the job has no artifacts yet", style="dim"))


async def fetch_artifacts(foreman: ForemanClient, given: str) -> dict[str, Any]:
    """Fetch the artifacts of a job, as foreman lists them.

    :param given: the id of the job, or the end of it.
    :raises RequestFailed: if there is no such job, or the request fails.
    """
    from foreman.cli.client.jobs import job_path, no_such_job, refusal, resolve_id

    await foreman.health()
    id_ = await resolve_id(foreman, given)
    answer = await foreman.fetch("GET", job_path(id_, "artifacts"))
    if answer.status != 200:
        raise no_such_job(foreman, answer, id_)
    if not isinstance(answer.body, dict) or not isinstance(answer.body.get("artifacts"), list):
        raise refusal(foreman, answer, f"{foreman.url} did not return a list of artifacts")
    return answer.body
