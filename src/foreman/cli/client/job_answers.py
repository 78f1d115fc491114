"""Fetch the answer of a job and print it: as text for a person, byte for byte for a program."""

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

#: Limits for fetching one artifact, in seconds and bytes: SQLite stores none that is larger.
_TIMEOUT, _MAX_ARTIFACT = 600.0, 1_000_000_000


async def fetch_artifact(foreman: ForemanClient, id_: str, name: str) -> Response:
    """Fetch one artifact.

    :raises RequestFailed: if the job has none of this name, or the request fails.
    """
    path = job_path(id_, "artifacts", name)
    answer = await foreman.fetch("GET", path, headers={"Accept": "*/*"}, time_limit=_TIMEOUT, limit=_MAX_ARTIFACT)
    if answer.status == 200:
        return answer
    if answer.status != 404:
        raise refusal(foreman, answer, f"the artifact {name} of {id_} cannot be fetched")
    # What is missing: the artifact, or the job?
    job_response = await foreman.fetch("GET", job_path(id_))
    if job_response.status != 200 or not isinstance(job_response.body, dict):
        raise no_such_job(foreman, job_response, id_)
    job = job_response.body
    names = ", ".join(plain(row.get("name")) for row in objects(job.get("artifacts"))) or "none yet"
    raise RequestFailed(
        NOT_FOUND, f"{summary(job, datetime.now(UTC))}; it has no artifact {plain(name)}; there are: {names}"
    )


async def print_answer(foreman: ForemanClient, job: Job) -> None:
    """Print the answer of a job that succeeded: its text if it has any, otherwise the answer as it is.

    :raises RequestFailed: if it cannot be fetched.
    """
    answer = await fetch_artifact(foreman, str(job["id"]), "response")
    terminal = stdout_is_terminal()
    text = answer_text(answer.body)
    if text is not None:
        print_text(text, terminal=terminal)
    elif terminal and (number := embeddings_summary(answer.body)):
        click.echo(f"{number}; print them with: foreman jobs get {short_id(job)} | cat")
    else:
        print_bytes(answer, terminal=terminal)


def print_text(text: str, *, terminal: bool) -> None:
    """Print the text of an answer: in a terminal its printable characters, elsewhere all of it, in UTF-8."""
    click.echo(printable(with_newline(text)) if terminal else encode_utf8(with_newline(text)), nl=False)


def print_bytes(answer: Response, *, terminal: bool) -> None:
    """Print an artifact as it is.

    :raises RequestFailed: if it is not text, and standard output is a terminal.
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
            FAILED,
            f"the artifact is not text ({plain(answer.header('Content-Type'))}); write it to a file with --output",
        )
    # JSON is indented for a person; an embedding would become hundreds of lines.
    if isinstance(answer.body, dict) and not embeddings_summary(answer.body):
        text = json.dumps(answer.body, indent=2, ensure_ascii=False)
    click.echo(printable(text.removesuffix("\n")))


async def print_result(foreman: ForemanClient, job: Job) -> None:
    """Print the answer of a job that succeeded, or the state of any other on standard error.

    :raises RequestFailed: if the answer cannot be fetched.
    """
    if job.get("state") == "succeeded":
        await print_answer(foreman, job)
    else:
        click.echo(f"foreman: {summary(job, datetime.now(UTC))}", err=True)


async def follow_to_answer(foreman: ForemanClient, id_: str) -> Job:
    """Print the answer of a job as it streams in; return the job once it has ended.

    :raises RequestFailed: if the job does not exist, or foreman is unreachable for too long.
    """
    printer = AnswerPrinter()
    job = await follow_job(foreman, id_, printer)
    if not (printer.written and job.get("state") == "succeeded"):
        await print_result(foreman, job)
    return job
