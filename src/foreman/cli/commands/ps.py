"""``foreman ps``: ask a running foreman who has the turn, who waits, and what is loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from foreman.cli.ui.common_options import json_option, url_option
from foreman.cli.ui.console import console
from foreman.cli.ui.exit_status import CLIENT_STATUSES
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.ps_view import Snapshot, show

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient


@click.command(
    "ps",
    cls=HelpfulCommand,
    short_help="Show who has the turn, who waits, and what is loaded.",
    examples=[
        "foreman ps",
        "watch foreman ps",
        "foreman ps --url http://gpu-box:8080",
        "foreman ps --json | jq '.queue.waiting | length'",
    ],
    exit_statuses=CLIENT_STATUSES,
)
@url_option
@json_option
def command(url: str, *, as_json: bool) -> None:
    """Show who has the turn, who waits in which order, and which models are loaded.

    TURN IN is when a turn usually comes, by what each model took lately; it is left out while too little is known. An ID
    is for foreman cancel, a JOB for foreman jobs.
    """
    from foreman.cli.client.client import run_client

    seen = run_client("ps", url, fetch_snapshot)
    if as_json:
        value = {"url": seen.url, "health": seen.health, "queue": seen.queue, "models": seen.models}
        click.echo(json.dumps(value, indent=2))
    else:
        show(seen, console(), datetime.now(UTC))


async def fetch_snapshot(foreman: ForemanClient) -> Snapshot:
    """What a foreman says of itself.

    :raises asking.Unanswered: if it says nothing, or nothing that foreman would say.
    """
    health = await foreman.health()
    queue = await foreman.queue()
    _, ps = await foreman.ask("GET", "/api/ps")
    models = ps.get("models") if isinstance(ps, dict) else None
    return Snapshot(foreman.url, health, queue, models if isinstance(models, list) else None)
