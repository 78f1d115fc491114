"""``foreman jobs get``: a job's answer, or another of its artifacts."""

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
    short_help="Print a job's answer, or another of its artifacts.",
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
@click.option("--text/--raw", "as_text", default=None, help="Just the words of an answer, or all of it, byte for byte.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it to FILE."
)
@url_option
def command(id_: str, name: str, url: str, output: Path | None, *, as_text: bool | None) -> None:
    """Print the artifact NAME of the job ID: response where none is named, otherwise stream, error, partial, or one of
    yours; foreman jobs artifacts lists them.

    An answer is printed as its words, as foreman submit --wait prints it; with --raw as it is, byte for byte. What has no
    words, and every other artifact, is printed as it is.
    """
    from foreman.cli.client.client import run_client

    async def get(foreman: ForemanClient) -> None:
        to_person = output is None and stdout_is_terminal()
        chosen = False if as_text is None and name != "response" else as_text
        write(await fetch(foreman, id_, name), output, as_text=chosen, to_person=to_person)

    run_client("jobs get", url, get, patience=None)


def write(answer: Response, output: Path | None, *, as_text: bool | None, to_person: bool) -> None:
    """Write an artifact to a file, or print it.

    :param as_text: None for words only where there are some.
    :raises asking.Unanswered: if there are no words, or it cannot be written.
    """
    from foreman.cli.client.job_answers import print_bytes, print_text

    words = None if as_text is False else answer_text(answer.body)
    if words is None and as_text:
        raise RequestFailed(FAILED, "it has no words to print; print all of it with --raw")
    if output is not None:
        try:
            output.write_bytes(answer.content if words is None else encode_utf8(with_newline(words)))
        except OSError as problem:
            raise RequestFailed(FAILED, f"{output} cannot be written: {problem.strerror}") from None
    elif words is not None:
        print_text(words, terminal=to_person)
    else:
        print_bytes(answer, terminal=to_person)


async def fetch(foreman: ForemanClient, wanted: str, name: str) -> Response:
    """One artifact of the job that ``wanted`` stands for.

    :raises asking.Unanswered: if there is none.
    """
    from foreman.cli.client.job_answers import fetch_artifact
    from foreman.cli.client.jobs import resolve_id

    await foreman.health()
    return await fetch_artifact(foreman, await resolve_id(foreman, wanted), name)
