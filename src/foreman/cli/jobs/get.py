"""``foreman jobs get``: a job's answer, or another of its artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from foreman.cli.asking import Unanswered, url_option
from foreman.cli.explained import FAILED, Explained
from foreman.cli.jobs.ends import FINDING_ENDS
from foreman.cli.jobs.words import at_terminal, prose, text_of

if TYPE_CHECKING:
    from foreman.cli.remote import Answer, Foreman


@click.command(
    "get",
    cls=Explained,
    short_help="Print a job's answer, or another of its artifacts.",
    examples=[
        "foreman jobs get 1XES2H                   # in a terminal just the words",
        "foreman jobs get 1XES2H --text > poem.txt",
        "foreman jobs get 1XES2H | jq .eval_count",
        "foreman jobs get 1XES2H error",
        "foreman jobs get 1XES2H stream --output stream.ndjson",
    ],
    ends=FINDING_ENDS,
)
@click.argument("id_", metavar="ID")
@click.argument("name", default="response")
@click.option("--text/--raw", "as_text", default=None, help="Just the words of an answer, or all of it, byte for byte.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it to FILE."
)
@url_option
def command(id_: str, name: str, url: str, output: Path | None, *, as_text: bool | None) -> None:
    """Print the artifact NAME of the job ID: response where none is named, otherwise stream, error, partial, or one of
    yours; foreman jobs artifacts lists them.

    In a terminal an answer is printed as its words, elsewhere as it is.
    """
    from foreman.cli.remote import answer_of

    async def get(foreman: Foreman) -> None:
        to_person = output is None and at_terminal()
        write(await find(foreman, id_, name), output, as_text=as_text, to_person=to_person)

    answer_of("jobs get", url, get, patience=None)


def write(answer: Answer, output: Path | None, *, as_text: bool | None, to_person: bool) -> None:
    """Write an artifact to a file, or print it.

    :param as_text: None for words only where a person reads them and there are some.
    :raises asking.Unanswered: if there are no words, or it cannot be written.
    """
    from foreman.cli.jobs.answers import print_bytes

    words = None if as_text is False or (as_text is None and not to_person) else text_of(answer.body)
    if words is None and as_text:
        raise Unanswered(FAILED, "it has no words to print; print all of it with --raw")
    if output is not None:
        try:
            output.write_bytes(answer.content if words is None else f"{words}\n".encode())
        except OSError as problem:
            raise Unanswered(FAILED, f"{output} cannot be written: {problem.strerror}") from None
    elif words is not None:
        click.echo(prose(words) if to_person else words)
    else:
        print_bytes(answer, terminal=to_person)


async def find(foreman: Foreman, wanted: str, name: str) -> Answer:
    """One artifact of the job that ``wanted`` stands for.

    :raises asking.Unanswered: if there is none.
    """
    from foreman.cli.jobs.answers import artifact
    from foreman.cli.jobs.api import whole_id

    await foreman.health()
    return await artifact(foreman, await whole_id(foreman, wanted), name)
