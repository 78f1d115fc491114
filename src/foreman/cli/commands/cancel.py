"""``foreman cancel``: cancel a queued or running request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from foreman.cli.client.errors import RequestFailed, error_detail
from foreman.cli.ui.common_options import IdParam, url_option
from foreman.cli.ui.console import objects, plain
from foreman.cli.ui.exit_status import CLIENT_STATUSES, FAILED, NOT_FOUND
from foreman.cli.ui.help import HelpfulCommand

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient

#: A full id: a ULID.
_WHOLE = re.compile(r"[0-9A-Za-z]{26}")


@click.command(
    "cancel",
    cls=HelpfulCommand,
    short_help="Cancel a queued or running request.",
    examples=["foreman cancel YPS1XE", "foreman cancel 01M85QHVFK3YAWY26YPS1XES2H"],
    exit_statuses=CLIENT_STATUSES | {NOT_FOUND: "there is no such request (any more), or it belongs to someone else"},
)
@click.argument("id_", type=IdParam(changes=True), metavar="ID")
@url_option
def command(id_: str, url: str) -> None:
    """Cancel the request ID, queued or running: its caller gets an error, and the next request gets the turn.

    ID is the id that foreman ps shows, or the full id from the log. With an admin token you can cancel every request, with
    any other token only your own.
    """
    from foreman.cli.client.client import run_client

    click.echo(run_client("cancel", url, lambda foreman: cancel(foreman, id_)))


async def cancel(foreman: ForemanClient, given: str) -> str:
    """Cancel one request; return the message about it.

    :param given: its full id, or the end of it.
    :raises RequestFailed: if it is not cancelled.
    """
    await foreman.health()
    full_id, description = (given.upper(), "") if _WHOLE.fullmatch(given) else await _find(foreman, given)
    status, body = await foreman.request_json("DELETE", f"/queue/{quote(full_id, safe='')}")
    if status == 404:
        raise RequestFailed(
            NOT_FOUND, f"{full_id} is neither queued nor running (any more), or belongs to someone else"
        )
    if not 200 <= status < 300:
        raise RequestFailed(FAILED, f"{full_id} was not cancelled ({status}{error_detail(body)})")
    return f"{full_id} was cancelled{description}"


async def _find(foreman: ForemanClient, suffix: str) -> tuple[str, str]:
    """The full id of the request, and a description of it."""
    queue = await foreman.queue()
    rows = [*objects(queue.get("running")), *objects(queue.get("waiting"))]
    matches = [row for row in rows if str(row.get("id")).upper().endswith(suffix.upper())]
    if not matches:
        raise RequestFailed(
            NOT_FOUND, f"no queued or running request has an id that ends with {suffix}; see foreman ps"
        )
    if len(matches) > 1:
        ids = ", ".join(plain(row.get("id")) for row in matches)
        raise RequestFailed(NOT_FOUND, f"{len(matches)} requests have an id that ends with {suffix}: {ids}")
    (row,) = matches
    state = row.get("state") or "queued"
    return str(row["id"]), plain(f": {row.get('caller')}, {row.get('model')}, {row.get('route')}, {state}")
