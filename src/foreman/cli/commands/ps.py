"""``foreman ps``: show the running and queued requests, and the loaded models."""

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
    short_help="Show running and queued requests and loaded models.",
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
    """Show the running requests, the queue in its order, and the loaded models.

    TURN IN is the estimated time until the request gets its turn, from recent requests to each model; it is empty while
    there are too few of them. Use an ID with foreman cancel, a JOB with foreman jobs.
    """
    from foreman.cli.client.client import run_client

    snapshot = run_client("ps", url, fetch_snapshot)
    if as_json:
        value = {"url": snapshot.url, "health": snapshot.health, "queue": snapshot.queue, "models": snapshot.models}
        click.echo(json.dumps(value, indent=2))
    else:
        show(snapshot, console(), datetime.now(UTC))


async def fetch_snapshot(foreman: ForemanClient) -> Snapshot:
    """Fetch the state of a foreman.

    :raises RequestFailed: if the request fails, or the server is not foreman.
    """
    health = await foreman.health()
    queue = await foreman.queue()
    _, ps = await foreman.request_json("GET", "/api/ps")
    models = ps.get("models") if isinstance(ps, dict) else None
    return Snapshot(foreman.url, health, queue, models if isinstance(models, list) else None)
