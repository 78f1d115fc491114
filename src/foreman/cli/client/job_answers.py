"""Fetch what a job has answered, and print it as its reader likes it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from foreman.cli.client.client import ForemanClient, Response
from foreman.cli.client.errors import RequestFailed
from foreman.cli.client.jobs import Job, job_path, no_such_job, refusal
from foreman.cli.client.stream_reader import AnswerPrinter, follow_job
from foreman.cli.ui.console import objects, plain
from foreman.cli.ui.exit_status import FAILED, NOT_FOUND
from foreman.cli.ui.job_text import (
    answer_text,
    embeddings_summary,
    encode_utf8,
    printable,
    short_id,
    stdout_is_terminal,
    summary,
    with_newline,
)

#: A whole artifact may take so long, in seconds, and be so large, in bytes: SQLite keeps none that is larger.
_TIMEOUT, _MAX_ARTIFACT = 600.0, 1_000_000_000


async def fetch_artifact(foreman: ForemanClient, id_: str, name: str) -> Response:
    """One artifact, whole.

    :raises Unanswered: if the job has none of this name, or foreman does not tell.
    """
    path = job_path(id_, "artifacts", name)
    answer = await foreman.fetch("GET", path, headers={"Accept": "*/*"}, patience=_TIMEOUT, limit=_MAX_ARTIFACT)
    if answer.status == 200:
        return answer
    if answer.status != 404:
        raise refusal(foreman, answer, f"{name} of {id_} is not to be had")
    # Which of both is not there: the artifact, or the job?
    found = await foreman.fetch("GET", job_path(id_))
    if found.status != 200 or not isinstance(found.body, dict):
        raise no_such_job(foreman, found, id_)
    job = found.body
    names = ", ".join(plain(row.get("name")) for row in objects(job.get("artifacts"))) or "none yet"
    raise RequestFailed(
        NOT_FOUND, f"{summary(job, datetime.now(UTC))}; it has no artifact {plain(name)}; there are: {names}"
    )


async def print_answer(foreman: ForemanClient, job: Job) -> None:
    """Print what a job that succeeded has answered: its words where it has some, otherwise the answer as it is.

    :raises Unanswered: if foreman does not tell.
    """
    answer = await fetch_artifact(foreman, str(job["id"]), "response")
    terminal = stdout_is_terminal()
    words = answer_text(answer.body)
    if words is not None:
        print_text(words, terminal=terminal)
    elif terminal and (number := embeddings_summary(answer.body)):
        click.echo(f"{number}; print them with: foreman jobs get {short_id(job)} | cat")
    else:
        print_bytes(answer, terminal=terminal)


def print_text(words: str, *, terminal: bool) -> None:
    """Print the words of an answer: in a terminal what it can print, elsewhere all of them, in UTF-8."""
    click.echo(printable(with_newline(words)) if terminal else encode_utf8(with_newline(words)), nl=False)


def print_bytes(answer: Response, *, terminal: bool) -> None:
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
        raise RequestFailed(
            FAILED, f"it is no text ({plain(answer.header('Content-Type'))}); write it to a file: --output"
        )
    # A person reads JSON best with a line for each field; numbers in their hundreds of a vector do not.
    if isinstance(answer.body, dict) and not embeddings_summary(answer.body):
        text = json.dumps(answer.body, indent=2, ensure_ascii=False)
    click.echo(printable(text.removesuffix("\n")))


async def print_result(foreman: ForemanClient, job: Job) -> None:
    """Print the answer of a job that succeeded; say of another how it stands.

    :raises Unanswered: if the answer is not to be had.
    """
    if job.get("state") == "succeeded":
        await print_answer(foreman, job)
    else:
        click.echo(f"foreman: {summary(job, datetime.now(UTC))}", err=True)


async def follow_to_answer(foreman: ForemanClient, id_: str) -> Job:
    """Print the answer of a job as it comes, to the end; the job, ended.

    :raises Unanswered: if there is none, or foreman is away for too long.
    """
    words = AnswerPrinter()
    job = await follow_job(foreman, id_, words)
    if not (words.written and job.get("state") == "succeeded"):
        await print_result(foreman, job)
    return job
