"""``foreman submit``: hand a job over, to find its answer later, or to wait for it."""

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

#: A body may be large, and the way to foreman slow; in seconds.
_TIMEOUT = 600.0
_WHEN = ParsedParam("WHEN", lambda text: to_rfc3339(parse_future(text, datetime.now().astimezone())))
_FILE = click.Path(allow_dash=True)


@frozen
class SubmitMode:
    """How to go on once the job is handed over."""

    waits: bool
    follows: bool
    as_json: bool


@define
class Submission:
    """The job that foreman has taken, as soon as it has."""

    job: Job | None = None


@click.command(
    "submit",
    cls=HelpfulCommand,
    short_help="Hand a job over, to find its answer later.",
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
        SUCCESS: "it was handed over; with --wait or --follow: it succeeded",
        FAILED: "foreman does not answer, or does not take it",
        NOT_FOUND: "Ollama does not have the model, or the job was removed",
    },
)
@click.argument("prompt", required=False)
@click.option(
    "--file",
    "files",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A text to ask about, or - for standard input; "
    "several times for several, which for --embed are inputs of their own.",
)
@click.option("--model", help="Which one; foreman models lists them.")
@click.option("--system", metavar="TEXT", help="What the model is told beforehand.")
@click.option(
    "--image",
    "images",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A picture to look at; several times for several.",
)
@click.option("--schema", metavar="FILE|JSON", help="The JSON schema that the answer is to have, or json for any JSON.")
@click.option(
    "--option",
    "options",
    type=ParsedParam("KEY=VALUE", parse_option),
    multiple=True,
    metavar="KEY=VALUE",
    help="One of Ollama's options, such as temperature=0; several times for several.",
)
@click.option("--embed", is_flag=True, help="Embeddings instead of a chat.")
@click.option("--payload", type=_FILE, metavar="FILE", help="The whole request as JSON, or - for standard input.")
@click.option("--endpoint", metavar="PATH", help="Where --payload goes, such as /v1/chat/completions.")
@click.option(
    "--priority", type=click.IntRange(0, 9), metavar="0-9", help="0 is most urgent, 9 least; 5 where nothing is said."
)
@click.option("--at", "run_at", type=_WHEN, metavar="WHEN", help="Not before this.")
@click.option("--deadline", type=_WHEN, metavar="WHEN", help="Of no use after this: then it is given up.")
@click.option(
    "--max-attempts", type=click.IntRange(1, 100), metavar="N", help="So many tries; 5 where nothing is said."
)
@click.option(
    "--meta",
    "metadata",
    type=ParsedParam("KEY=VALUE", key_value),
    multiple=True,
    metavar="KEY=VALUE",
    help="Something to find it by; several times for several.",
)
@click.option(
    "--key",
    metavar="TEXT",
    help="Hand it over once only: with the same key again it is the job of the first time. The rest must be the same, "
    "too; a delay such as 10m is another moment each time.",
)
@click.option("--wait", "waits", is_flag=True, help="Wait until it has ended, and print the answer.")
@click.option("--follow", "follows", is_flag=True, help="Print the answer as it comes.")
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
    """Hand PROMPT over as a job: it waits for its turn at foreman, which keeps it and its answer on disk.

    Without a PROMPT or --file it is standard input, unless that is a terminal. Without --wait and --follow the id is
    printed, and foreman jobs does the rest. Ctrl-C while waiting leaves the job alone.

    WHEN is 22:30, 2026-11-28, '2026-11-28 22:30', one of RFC 3339, or from now on: 10m, 2h, 1d.
    """
    if follows and as_json:
        raise click.UsageError("--follow prints words as they come, and --json the job: one of them")
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
            return "whether the job was taken is not known; foreman jobs tells"
        back = "wait" if as_json else "follow"  # the one prints the job, the other its answer
        return f"the job goes on; come back with: {command_for(back, [str(submission.job['id'])], context)}"

    job = run_client(
        "submit",
        url,
        lambda foreman: submit_job(foreman, body, mode, submission),
        patience=None,
        interrupted=interrupted,
    )
    if as_json:
        click.echo(json.dumps(job, indent=2))
    elif not (waits or follows):
        _print_next_steps(job, context)
    sys.exit(status_of_job(job) if waits or follows else SUCCESS)


async def submit_job(foreman: ForemanClient, body: bytes, mode: SubmitMode, submission: Submission) -> Job:
    """Hand a job over, and go on as it was wished; the job as it then is.

    :raises asking.Unanswered: if foreman does not take it, or no longer knows it.
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
                foreman, id_, shown, step=INTERACTIVE_WAIT if sys.stderr.isatty() else UNATTENDED_WAIT
            )
        if not mode.as_json:
            await print_result(foreman, job)
    return job


async def _post_job(foreman: ForemanClient, body: bytes) -> Job:
    from foreman.cli.client.jobs import job_from, refusal

    try:
        answer = await foreman.fetch("POST", "/jobs", body, patience=_TIMEOUT)
    except Unreachable as problem:
        # foreman answered a moment ago: the body may have arrived, and only the answer not.
        summary = (
            f"{problem}; whether the job was taken is not known: look with foreman jobs, or repeat it with a --key"
        )
        raise Unreachable(problem.status, summary) from None
    if answer.status not in {200, 201}:
        raise refusal(foreman, answer, "foreman does not take it")
    job = job_from(foreman, answer)
    if answer.status == 200 or answer.header("Idempotency-Replayed") == "true":
        click.echo("foreman submit: this key has its job already, which is not handed over again", err=True)
    return job


def _print_next_steps(job: Mapping[str, Any], context: click.Context) -> None:
    id_ = str(job.get("id"))
    if not stdout_is_terminal():
        click.echo(id_)
        return
    click.echo(f"{id_}\n{summary(job, datetime.now(UTC))}\n")
    does = {"wait": "waits for it", "follow": "prints the answer as it comes", "get": "prints the answer"}
    lines = {command_for(what, [id_], context): effect for what, effect in does.items()}
    width = max(map(len, lines))
    for line, effect in lines.items():
        click.echo(f"  {line:{width}}  # {effect}")
