"""``foreman jobs prune``: remove many jobs that have ended, by their states and how long ago that was."""

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
#: Many take long, a few at a time; in seconds.
_TIMEOUT = 3600.0


@click.command(
    "prune",
    cls=HelpfulCommand,
    short_help="Remove many jobs that have ended.",
    examples=[
        "foreman jobs prune --older-than 7d",
        "foreman jobs prune --state failed,discarded --yes",
        "foreman jobs prune --older-than 2026-11-28 --yes --json",
    ],
    exit_statuses=CLIENT_STATUSES | {FAILED: "foreman does not answer, or cannot; or the answer was no"},
)
@click.option(
    "--state",
    "states",
    type=StatesParam(_END_STATES),
    default="ended",
    show_default=True,
    help="Those that ended so, or in several ways with commas.",
)
@click.option(
    "--older-than",
    "before",
    type=ParsedParam("TIME", lambda text: parse_past(text, datetime.now().astimezone())),
    help="Only those that ended before this TIME.",
)
@click.option("--yes", is_flag=True, help="Do not ask; needed where no terminal can be asked.")
@url_option
@json_option
def command(states: tuple[str, ...], before: datetime | None, url: str, *, yes: bool, as_json: bool) -> None:
    """Remove jobs that have ended, with their answers and all that is kept with them; with an admin's token everybody's.

    A TIME is 7d, 22:30, 2026-11-28, '2026-11-28 22:30', or one of RFC 3339. Ctrl-C stops it; what is gone by then is gone.
    """
    asked = {"state": ",".join(states)} | ({"ended_before": to_rfc3339(before)} if before else {})
    if not yes:
        _confirm(states, before)
    from foreman.cli.client.client import run_client

    stopped = "stopped; what was removed by then is gone"
    answer = run_client(
        "jobs prune", url, lambda foreman: prune(foreman, asked), patience=None, interrupted=lambda: stopped
    )
    if as_json:
        click.echo(json.dumps(answer))
    else:
        count = answer["deleted"]
        click.echo(f"{count} {'job is' if count == 1 else 'jobs are'} removed")


def _confirm(states: tuple[str, ...], before: datetime | None) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            "there is no terminal to confirm the removal in; add --yes to remove the jobs without a question"
        )
    what = "have ended" if "ended" in states else f"are {' or '.join(states)}"
    when = f" since before {local(before):%Y-%m-%d %H:%M}" if before else ""
    if not click.confirm(f"Remove all jobs that {what}{when}, with their answers?", err=True):
        raise SystemExit(FAILED)


async def prune(foreman: ForemanClient, asked: dict[str, str]) -> dict[str, Any]:
    """Have them removed; what foreman says of it.

    :raises asking.Unanswered: if it does not.
    """
    from foreman.cli.client.jobs import refusal

    await foreman.health()
    answer = await foreman.fetch("DELETE", f"/jobs?{urlencode(asked)}", patience=_TIMEOUT)
    body = answer.body
    if answer.status == 200 and isinstance(body, dict) and isinstance(body.get("deleted"), int):
        return body
    problem = refusal(foreman, answer, "the jobs are not removed")
    # There is no job that could be missing here.
    raise RequestFailed(FAILED, str(problem))
