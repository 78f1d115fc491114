"""``foreman jobs get``: print the answer of a job, or another artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from foreman.cli.client.errors import RequestFailed
from foreman.cli.ui.common_options import IdParam, url_option
from foreman.cli.ui.exit_status import FAILED, JOB_STATUSES
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.job_text import answer_text, encode_utf8, stdout_is_terminal, with_newline

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient, Response


@click.command(
    "get",
    cls=HelpfulCommand,
    short_help="Print the answer of a job, or another artifact.",
    examples=[
        "foreman jobs get 1XES2H > poem.txt",
        "foreman jobs get 1XES2H --raw | jq .eval_count",
        "foreman jobs get 1XES2H error",
        "foreman jobs get 1XES2H stream --output stream.ndjson",
    ],
    exit_statuses=JOB_STATUSES,
)
@click.argument("id_", type=IdParam(), metavar="ID")
@click.argument("name", default="response")
@click.option(
    "--text/--raw", "as_text", default=None, help="Print only the text of the answer, or the whole response unchanged."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE instead of standard output.",
)
@url_option
def command(id_: str, name: str, url: str, output: Path | None, *, as_text: bool | None) -> None:
    """Print the artifact NAME of the job ID. NAME is response by default; others are stream, error, partial, and those that
    you have added. foreman jobs artifacts lists them.

    For a response only its text is printed, as by foreman submit --wait; with --raw it is printed unchanged. A response
    without text and every other artifact are printed unchanged.
    """
    from foreman.cli.client.client import run_client

    async def get(foreman: ForemanClient) -> None:
        to_person = output is None and stdout_is_terminal()
        chosen = False if as_text is None and name != "response" else as_text
        write(await fetch(foreman, id_, name), output, as_text=chosen, to_person=to_person)

    run_client("jobs get", url, get, time_limit=None)


def write(answer: Response, output: Path | None, *, as_text: bool | None, to_person: bool) -> None:
    """Write an artifact to a file, or print it.

    :param as_text: None for the text if there is any, otherwise the artifact unchanged.
    :raises RequestFailed: if it has no text although ``as_text`` is true, or it cannot be written.
    """
    from foreman.cli.client.job_answers import print_bytes, print_text

    words = None if as_text is False else answer_text(answer.body)
    if words is None and as_text:
        raise RequestFailed(FAILED, "it has no text; print it unchanged with --raw")
    if output is not None:
        try:
            output.write_bytes(answer.content if words is None else encode_utf8(with_newline(words)))
        except OSError as problem:
            raise RequestFailed(FAILED, f"{output} cannot be written: {problem.strerror}") from None
    elif words is not None:
        print_text(words, terminal=to_person)
    else:
        print_bytes(answer, terminal=to_person)


async def fetch(foreman: ForemanClient, given: str, name: str) -> Response:
    """Fetch one artifact of a job.

    :param given: the id of the job, or the end of it.
    :raises RequestFailed: if there is no such job or artifact.
    """
    from foreman.cli.client.job_answers import fetch_artifact
    from foreman.cli.client.jobs import resolve_id

    await foreman.health()
    return await fetch_artifact(foreman, await resolve_id(foreman, given), name)
