"""``foreman jobs logs``: show the events of a job."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from foreman.cli.ui.common_options import IdParam, json_option, url_option
from foreman.cli.ui.console import console
from foreman.cli.ui.exit_status import JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.next_steps import command_for

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient


@click.command(
    "logs",
    cls=HelpfulCommand,
    short_help="Show the events of a job.",
    examples=["foreman jobs logs 1XES2H", "foreman jobs logs -f 1XES2H"],
    exit_statuses=JOB_STATUSES | {130: "stopped by ctrl-C"},
)
@click.argument("id_", type=IdParam(), metavar="ID")
@click.option("-f", "--follow", "follows", is_flag=True, help="Wait for new events until the job has ended.")
@url_option
@json_option
def command(id_: str, url: str, *, follows: bool, as_json: bool) -> None:
    """Show the events of the job ID, one per line; with --json one JSON object per line."""
    from foreman.cli.client.client import run_client
    from foreman.cli.ui.job_view import event_line

    output = console()

    def show(event: dict[str, Any]) -> None:
        if as_json:
            click.echo(json.dumps(event))
        else:
            output.print(event_line(event), soft_wrap=True)

    hint = f"the job continues; to return to it: {command_for('logs', [id_])} -f" if follows else ""
    run_client(
        "jobs logs",
        url,
        lambda foreman: read(foreman, id_, show, follows=follows),
        time_limit=None,
        interrupted=lambda: hint,
    )


async def read(foreman: ForemanClient, given: str, show: Callable[[dict[str, Any]], None], *, follows: bool) -> None:
    """Pass each event of a job to ``show``, once.

    :param given: the id of the job, or the end of it.
    :raises RequestFailed: if there is no such job (any more), or foreman is unreachable for too long.
    """
    from foreman.cli.client.client import Response
    from foreman.cli.client.jobs import job_path, no_such_job, resolve_id
    from foreman.cli.client.polling import Retrier
    from foreman.cli.client.stream_reader import SILENCE_TIMEOUT
    from foreman.cli.ui.progress import Progress

    await foreman.health()
    id_ = await resolve_id(foreman, given)
    last: list[int] = []
    retrier = Retrier(foreman, Progress())

    def receive(line: bytes) -> None:
        event = _event(line)
        if event is None or (last and event["id"] <= last[-1]):
            return
        retrier.reset()
        last[:] = [event["id"]]
        show(event)

    async def request_events() -> Response | None:
        parameters = {} if follows else {"follow": "0"}
        query = urlencode(parameters | ({"after": str(last[-1])} if last else {}))
        path = job_path(id_, "events") + (f"?{query}" if query else "")
        return await foreman.stream_lines(path, receive, accept="application/x-ndjson", silence=SILENCE_TIMEOUT)

    answer = await retrier.run(request_events)
    if answer is not None:
        raise no_such_job(foreman, answer, id_)


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("id"), int) else None
