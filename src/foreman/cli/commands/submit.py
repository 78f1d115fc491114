"""``foreman submit``: submit a job, and fetch its answer later or wait for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from attrs import define, frozen

from foreman.cli.client.errors import Unreachable
from foreman.cli.client.job_request import job_body, parse_option
from foreman.cli.commands.prompt_input import PromptInput
from foreman.cli.ui.common_options import json_option, url_option
from foreman.cli.ui.exit_status import FAILED, NOT_ENDED, NOT_FOUND, SUCCESS, WAIT_STATUSES, status_of_job
from foreman.cli.ui.filter_options import key_value
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.job_text import stdout_is_terminal, summary
from foreman.cli.ui.next_steps import command_for
from foreman.cli.ui.setting_options import ParsedParam
from foreman.cli.ui.times import parse_future, to_rfc3339

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient
    from foreman.cli.client.jobs import Job

#: A body may be large and the network slow; in seconds.
_TIMEOUT = 600.0
_WHEN = ParsedParam("WHEN", lambda text: to_rfc3339(parse_future(text, datetime.now().astimezone())))
_FILE = click.Path(allow_dash=True)


@frozen
class SubmitMode:
    """What to do once the job is submitted."""

    waits: bool
    follows: bool
    as_json: bool


@define
class Submission:
    """The job, once foreman has accepted it."""

    job: Job | None = None


@click.command(
    "submit",
    cls=HelpfulCommand,
    short_help="Submit a job, and fetch its answer later.",
    examples=[
        'foreman submit "Write a poem about a queue" --model llama3.2:3b',
        "foreman submit --model qwen3:8b --file report.txt --at 22:30 --meta run=1",
        'foreman submit --model llava:7b --image cat.jpg "What is this?" --wait',
        'git diff | foreman submit --model qwen3:8b --system "Review this." --follow',
        "foreman submit --model nomic-embed-text --embed --file a.txt --file b.txt",
        "foreman submit --endpoint /v1/responses --payload request.json --deadline 2h",
        "id=$(foreman submit --model llama3.2:3b Hello); foreman jobs wait $id",
    ],
    exit_statuses={status: meaning for status, meaning in WAIT_STATUSES.items() if status != NOT_ENDED}
    | {
        SUCCESS: "the job was accepted; with --wait or --follow: it succeeded",
        FAILED: "foreman does not answer, or does not accept the job",
        NOT_FOUND: "Ollama does not have the model, or the job was deleted",
    },
)
@click.argument("prompt", required=False)
@click.option(
    "--file",
    "files",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A text file to add to the prompt, or - for standard input; may be repeated. "
    "With --embed each file is an input of its own.",
)
@click.option("--model", help="The model; foreman models lists them.")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option(
    "--image",
    "images",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="An image to add to the prompt; may be repeated.",
)
@click.option("--schema", metavar="FILE|JSON", help="The JSON schema of the answer, or json for any JSON.")
@click.option(
    "--option",
    "options",
    type=ParsedParam("KEY=VALUE", parse_option),
    multiple=True,
    metavar="KEY=VALUE",
    help="One of Ollama's options, such as temperature=0; may be repeated.",
)
@click.option("--embed", is_flag=True, help="Request embeddings instead of a chat.")
@click.option("--payload", type=_FILE, metavar="FILE", help="The whole request as JSON, or - for standard input.")
@click.option("--endpoint", metavar="PATH", help="The endpoint for --payload, such as /v1/chat/completions.")
@click.option(
    "--priority", type=click.IntRange(0, 9), metavar="0-9", help="From 0, the most urgent, to 9.  [default: 5]"
)
@click.option("--at", "run_at", type=_WHEN, metavar="WHEN", help="Do not run the job before WHEN.")
@click.option("--deadline", type=_WHEN, metavar="WHEN", help="Discard the job if it has not succeeded by WHEN.")
@click.option(
    "--max-attempts", type=click.IntRange(1, 100), metavar="N", help="How often the job may be tried.  [default: 5]"
)
@click.option(
    "--meta",
    "metadata",
    type=ParsedParam("KEY=VALUE", key_value),
    multiple=True,
    metavar="KEY=VALUE",
    help="Metadata by which jobs can be filtered; may be repeated.",
)
@click.option(
    "--key",
    metavar="TEXT",
    help="Idempotency key: the same key again returns the first job instead of a new one. All else must be the same, "
    "too; note that a delay such as 10m means another time on each call.",
)
@click.option("--wait", "waits", is_flag=True, help="Wait until the job has ended, and print its answer.")
@click.option("--follow", "follows", is_flag=True, help="Print the answer as it streams in.")
@url_option
@json_option
def command(
    url: str,
    run_at: str | None,
    deadline: str | None,
    priority: int | None,
    max_attempts: int | None,
    metadata: tuple[tuple[str, str], ...],
    key: str | None,
    *,
    waits: bool,
    follows: bool,
    as_json: bool,
    **prompt_options: Any,
) -> None:
    """Submit PROMPT as a job. foreman queues it, and keeps the job and its answer on disk.

    Without PROMPT and --file the prompt is read from standard input, unless that is a terminal. Without --wait and
    --follow the id of the job is printed, for use with foreman jobs. Ctrl-C while waiting does not cancel the job.

    WHEN is a time such as 22:30, 2026-11-28 or '2026-11-28 22:30', one in the format of RFC 3339, or a delay: 10m, 2h, 1d.
    """
    if follows and as_json:
        raise click.UsageError("--follow and --json cannot be used together: one prints the answer, the other the job")
    endpoint, payload = PromptInput(**prompt_options).request()
    fields: dict[str, Any] = {
        "priority": priority,
        "run_at": run_at,
        "deadline": deadline,
        "max_attempts": max_attempts,
        "metadata": dict(metadata) or None,
        "idempotency_key": key,
    }
    from foreman.cli.client.client import run_client

    body, mode, submission = job_body(endpoint, payload, fields), SubmitMode(waits, follows, as_json), Submission()
    context = click.get_current_context()

    def interrupted() -> str:
        if submission.job is None:
            return "it is not known whether the job was accepted; see foreman jobs"
        back = "wait" if as_json else "follow"  # wait prints the job, follow its answer
        return f"the job continues; to return to it: {command_for(back, [str(submission.job['id'])], context)}"

    job = run_client(
        "submit",
        url,
        lambda foreman: submit_job(foreman, body, mode, submission),
        time_limit=None,
        interrupted=interrupted,
    )
    if as_json:
        click.echo(json.dumps(job, indent=2))
    elif not (waits or follows):
        _print_next_steps(job, context)
    sys.exit(status_of_job(job) if waits or follows else SUCCESS)


async def submit_job(foreman: ForemanClient, body: bytes, mode: SubmitMode, submission: Submission) -> Job:
    """Submit a job, then wait for it or follow it according to ``mode``; return the job in its last known state.

    :raises RequestFailed: if foreman does not accept it, or it was deleted meanwhile.
    """
    from foreman.cli.client.job_answers import follow_to_answer, print_result
    from foreman.cli.client.polling import INTERACTIVE_WAIT, UNATTENDED_WAIT, wait_for_job
    from foreman.cli.ui.progress import progress

    await foreman.health()
    submission.job = job = await _post_job(foreman, body)
    id_ = str(job["id"])
    if mode.follows:
        return await follow_to_answer(foreman, id_)
    if mode.waits:
        with progress() as shown:
            job = await wait_for_job(
                foreman, id_, shown, max_hold=INTERACTIVE_WAIT if sys.stderr.isatty() else UNATTENDED_WAIT
            )
        if not mode.as_json:
            await print_result(foreman, job)
    return job


async def _post_job(foreman: ForemanClient, body: bytes) -> Job:
    from foreman.cli.client.jobs import job_from, refusal

    try:
        answer = await foreman.fetch("POST", "/jobs", body, time_limit=_TIMEOUT)
    except Unreachable as problem:
        # foreman answered a moment ago: the body may have arrived, and only the response was lost.
        message = f"{problem}; it is not known whether the job was accepted: see foreman jobs, or submit it again with a --key"
        raise Unreachable(problem.exit_status, message) from None
    if answer.status not in {200, 201}:
        raise refusal(foreman, answer, "foreman does not accept the job")
    job = job_from(foreman, answer)
    if answer.status == 200 or answer.header("Idempotency-Replayed") == "true":
        click.echo("foreman submit: there is already a job with this key; no new one was submitted", err=True)
    return job


def _print_next_steps(job: Mapping[str, Any], context: click.Context) -> None:
    id_ = str(job.get("id"))
    if not stdout_is_terminal():
        click.echo(id_)
        return
    click.echo(f"{id_}\n{summary(job, datetime.now(UTC))}\n")
    does = {"wait": "wait for it", "follow": "print the answer as it streams in", "get": "print the answer"}
    lines = {command_for(what, [id_], context): effect for what, effect in does.items()}
    width = max(map(len, lines))
    for line, effect in lines.items():
        click.echo(f"  {line:{width}}  # {effect}")
