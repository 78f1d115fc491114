"""``foreman jobs get``: a job's answer, or another of its artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from foreman.cli.client.errors import Unanswered
from foreman.cli.ui.common_options import Id, url_option
from foreman.cli.ui.exit_status import FAILED, FINDING_ENDS
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.job_text import at_terminal, lines_of, text_of, utf8

if TYPE_CHECKING:
    from foreman.cli.client.client import Answer, Foreman


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
    ends=FINDING_ENDS,
)
@click.argument("id_", type=Id(), metavar="ID")
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
    from foreman.cli.client.client import answer_of

    async def get(foreman: Foreman) -> None:
        to_person = output is None and at_terminal()
        chosen = False if as_text is None and name != "response" else as_text
        write(await find(foreman, id_, name), output, as_text=chosen, to_person=to_person)

    answer_of("jobs get", url, get, patience=None)


def write(answer: Answer, output: Path | None, *, as_text: bool | None, to_person: bool) -> None:
    """Write an artifact to a file, or print it.

    :param as_text: None for words only where there are some.
    :raises asking.Unanswered: if there are no words, or it cannot be written.
    """
    from foreman.cli.client.job_answers import print_bytes, print_words

    words = None if as_text is False else text_of(answer.body)
    if words is None and as_text:
        raise Unanswered(FAILED, "it has no words to print; print all of it with --raw")
    if output is not None:
        try:
            output.write_bytes(answer.content if words is None else utf8(lines_of(words)))
        except OSError as problem:
            raise Unanswered(FAILED, f"{output} cannot be written: {problem.strerror}") from None
    elif words is not None:
        print_words(words, terminal=to_person)
    else:
        print_bytes(answer, terminal=to_person)


async def find(foreman: Foreman, wanted: str, name: str) -> Answer:
    """One artifact of the job that ``wanted`` stands for.

    :raises asking.Unanswered: if there is none.
    """
    from foreman.cli.client.job_answers import artifact
    from foreman.cli.client.jobs import whole_id

    await foreman.health()
    return await artifact(foreman, await whole_id(foreman, wanted), name)
