"""Fetch what a job has answered, and print it as its reader likes it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from foreman.cli.client.client import Answer, Foreman
from foreman.cli.client.errors import Unanswered
from foreman.cli.client.jobs import Job, no_such_job, path_of, refused
from foreman.cli.client.stream_reader import Words, follow
from foreman.cli.ui.console import objects, plain
from foreman.cli.ui.exit_status import FAILED, NOT_FOUND
from foreman.cli.ui.job_text import at_terminal, embeddings_of, end_of, lines_of, prose, sentence, text_of, utf8

#: A whole artifact may take so long, in seconds, and be so large, in bytes: SQLite keeps none that is larger.
_PATIENCE, _LARGEST = 600.0, 1_000_000_000


async def artifact(foreman: Foreman, id_: str, name: str) -> Answer:
    """One artifact, whole.

    :raises Unanswered: if the job has none of this name, or foreman does not tell.
    """
    path = path_of(id_, "artifacts", name)
    answer = await foreman.fetch("GET", path, headers={"Accept": "*/*"}, patience=_PATIENCE, limit=_LARGEST)
    if answer.status == 200:
        return answer
    if answer.status != 404:
        raise refused(foreman, answer, f"{name} of {id_} is not to be had")
    # Which of both is not there: the artifact, or the job?
    found = await foreman.fetch("GET", path_of(id_))
    if found.status != 200 or not isinstance(found.body, dict):
        raise no_such_job(foreman, found, id_)
    job = found.body
    names = ", ".join(plain(row.get("name")) for row in objects(job.get("artifacts"))) or "none yet"
    raise Unanswered(
        NOT_FOUND, f"{sentence(job, datetime.now(UTC))}; it has no artifact {plain(name)}; there are: {names}"
    )


async def print_answer(foreman: Foreman, job: Job) -> None:
    """Print what a job that succeeded has answered: its words where it has some, otherwise the answer as it is.

    :raises Unanswered: if foreman does not tell.
    """
    answer = await artifact(foreman, str(job["id"]), "response")
    terminal = at_terminal()
    words = text_of(answer.body)
    if words is not None:
        print_words(words, terminal=terminal)
    elif terminal and (number := embeddings_of(answer.body)):
        click.echo(f"{number}; print them with: foreman jobs get {end_of(job)} | cat")
    else:
        print_bytes(answer, terminal=terminal)


def print_words(words: str, *, terminal: bool) -> None:
    """Print the words of an answer: in a terminal what it can print, elsewhere all of them, in UTF-8."""
    click.echo(prose(lines_of(words)) if terminal else utf8(lines_of(words)), nl=False)


def print_bytes(answer: Answer, *, terminal: bool) -> None:
    """Print an artifact as it is.

    :raises Unanswered: if it is no text, and a terminal would have to show it.
    """
    if not terminal:
        sys.stdout.buffer.write(answer.content)
        sys.stdout.buffer.flush()
        return
    try:
        text = answer.content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise Unanswered(
            FAILED, f"it is no text ({plain(answer.header('Content-Type'))}); write it to a file: --output"
        )
    # A person reads JSON best with a line for each field; numbers in their hundreds of a vector do not.
    if isinstance(answer.body, dict) and not embeddings_of(answer.body):
        text = json.dumps(answer.body, indent=2, ensure_ascii=False)
    click.echo(prose(text.removesuffix("\n")))


async def tell_end(foreman: Foreman, job: Job) -> None:
    """Print the answer of a job that succeeded; say of another how it stands.

    :raises Unanswered: if the answer is not to be had.
    """
    if job.get("state") == "succeeded":
        await print_answer(foreman, job)
    else:
        click.echo(f"foreman: {sentence(job, datetime.now(UTC))}", err=True)


async def follow_to_answer(foreman: Foreman, id_: str) -> Job:
    """Print the answer of a job as it comes, to the end; the job, ended.

    :raises Unanswered: if there is none, or foreman is away for too long.
    """
    words = Words()
    job = await follow(foreman, id_, words)
    if not (words.written and job.get("state") == "succeeded"):
        await tell_end(foreman, job)
    return job
