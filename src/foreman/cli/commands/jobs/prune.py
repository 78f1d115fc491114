"""``foreman jobs prune``: delete all jobs that have ended, by state and age."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from foreman.cli.client.errors import RequestFailed
from foreman.cli.ui.common_options import json_option, url_option
from foreman.cli.ui.exit_status import CLIENT_STATUSES, FAILED
from foreman.cli.ui.filter_options import StatesParam
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import ParsedParam
from foreman.cli.ui.times import local, parse_past, to_rfc3339

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient

_END_STATES = ("succeeded", "failed", "discarded", "cancelled", "ended")
#: Deleting many jobs takes long; in seconds.
_TIMEOUT = 3600.0


@click.command(
    "prune",
    cls=HelpfulCommand,
    short_help="Delete all jobs that have ended, by state and age.",
    examples=[
        "foreman jobs prune --older-than 7d",
        "foreman jobs prune --state failed,discarded --yes",
        "foreman jobs prune --older-than 2026-11-28 --yes --json",
    ],
    exit_statuses=CLIENT_STATUSES | {FAILED: "foreman does not answer, or reports an error; or you answered no"},
)
@click.option(
    "--state",
    "states",
    type=StatesParam(_END_STATES),
    default="ended",
    show_default=True,
    help="Only jobs in this state, or in several, separated by commas.",
)
@click.option(
    "--older-than",
    "before",
    type=ParsedParam("TIME", lambda text: parse_past(text, datetime.now().astimezone())),
    help="Only jobs that ended before TIME.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal.")
@url_option
@json_option
def command(states: tuple[str, ...], before: datetime | None, url: str, *, yes: bool, as_json: bool) -> None:
    """Delete all jobs that have ended, with their answers and other artifacts. With an admin token this deletes the jobs of
    all owners, otherwise only your own.

    A TIME is an age such as 7d, a time such as 22:30, 2026-11-28 or '2026-11-28 22:30', or one in the format of RFC 3339.
    Ctrl-C stops the deletion; jobs that were deleted by then stay deleted.
    """
    asked = {"state": ",".join(states)} | ({"ended_before": to_rfc3339(before)} if before else {})
    if not yes:
        _confirm(states, before)
    from foreman.cli.client.client import run_client

    stopped = "stopped; jobs that were deleted by then stay deleted"
    answer = run_client(
        "jobs prune", url, lambda foreman: prune(foreman, asked), time_limit=None, interrupted=lambda: stopped
    )
    if as_json:
        click.echo(json.dumps(answer))
    else:
        count = answer["deleted"]
        click.echo(f"{count} {'job was' if count == 1 else 'jobs were'} deleted")


def _confirm(states: tuple[str, ...], before: datetime | None) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("there is no terminal to ask for confirmation; use --yes to delete the jobs without it")
    which = "jobs" if "ended" in states else f"{' or '.join(states)} jobs"
    if before:
        which += f" that ended before {local(before):%Y-%m-%d %H:%M}"
    elif "ended" in states:
        which += " that have ended"
    if not click.confirm(f"Delete all {which}, with their answers?", err=True):
        raise SystemExit(FAILED)


async def prune(foreman: ForemanClient, asked: dict[str, str]) -> dict[str, Any]:
    """Delete the jobs; return what foreman answers.

    :raises RequestFailed: if the request fails.
    """
    from foreman.cli.client.jobs import refusal

    await foreman.health()
    answer = await foreman.fetch("DELETE", f"/jobs?{urlencode(asked)}", time_limit=_TIMEOUT)
    body = answer.body
    if answer.status == 200 and isinstance(body, dict) and isinstance(body.get("deleted"), int):
        return body
    problem = refusal(foreman, answer, "the jobs were not deleted")
    # A 404 cannot mean a missing job here.
    raise RequestFailed(FAILED, str(problem))
