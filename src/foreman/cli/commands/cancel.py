"""``foreman cancel``: take a request out of the line, or break it off, at a running foreman."""

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

#: An id in full: a ULID.
_WHOLE = re.compile(r"[0-9A-Za-z]{26}")


@click.command(
    "cancel",
    cls=HelpfulCommand,
    short_help="Cancel a request that waits or runs.",
    examples=["foreman cancel YPS1XE", "foreman cancel 01M85QHVFK3YAWY26YPS1XES2H"],
    exit_statuses=CLIENT_STATUSES | {NOT_FOUND: "there is no such request (any more), or it is somebody else's"},
)
@click.argument("id_", type=IdParam(changes=True), metavar="ID")
@url_option
def command(id_: str, url: str) -> None:
    """Cancel the request ID, whether it waits or runs: its caller gets an error, and the turn passes on.

    ID is what foreman ps shows, or the whole id as in the log. Who has an admin's token may cancel every request, others
    their own.
    """
    from foreman.cli.client.client import run_client

    click.echo(run_client("cancel", url, lambda foreman: cancel(foreman, id_)))


async def cancel(foreman: ForemanClient, wanted: str) -> str:
    """Cancel the request whose id is ``wanted``, or ends with it; what to say of it.

    :raises asking.Unanswered: if it is not cancelled.
    """
    await foreman.health()
    whole, shown = (wanted.upper(), "") if _WHOLE.fullmatch(wanted) else await _find(foreman, wanted)
    status, body = await foreman.ask("DELETE", f"/queue/{quote(whole, safe='')}")
    if status == 404:
        raise RequestFailed(NOT_FOUND, f"{whole} neither waits nor runs (any more), or is somebody else's")
    if not 200 <= status < 300:
        raise RequestFailed(FAILED, f"{whole} is not cancelled ({status}{error_detail(body)})")
    return f"{whole} is cancelled{shown}"


async def _find(foreman: ForemanClient, end: str) -> tuple[str, str]:
    """The whole id, and what is known of the request."""
    queue = await foreman.queue()
    rows = [*objects(queue.get("running")), *objects(queue.get("waiting"))]
    found = [row for row in rows if str(row.get("id")).upper().endswith(end.upper())]
    if not found:
        raise RequestFailed(NOT_FOUND, f"no request that waits or runs has an id that ends with {end}; see foreman ps")
    if len(found) > 1:
        ids = ", ".join(plain(row.get("id")) for row in found)
        raise RequestFailed(NOT_FOUND, f"{len(found)} requests have an id that ends with {end}: {ids}")
    (row,) = found
    state = row.get("state") or "waiting"
    return str(row["id"]), plain(f": {row.get('caller')}, {row.get('model')}, {row.get('route')}, {state}")
