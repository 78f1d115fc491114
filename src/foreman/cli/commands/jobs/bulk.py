"""Change several jobs, one after the other, and print a message for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from foreman.cli.client.errors import RequestFailed, Unreachable
from foreman.cli.ui.exit_status import NOT_ALLOWED, highest
from foreman.cli.ui.standard_streams import echo_stderr

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient


def change_jobs(command: str, url: str, ids: Sequence[str], what: str, done: str) -> int:
    """Change each job at the foreman at ``url`` with ``post_action``; return the exit status."""
    from foreman.cli.client.client import run_client

    return run_client(
        command,
        url,
        lambda foreman: for_each_job(command, foreman, ids, lambda foreman, id_: post_action(foreman, id_, what, done)),
        time_limit=None,
    )


async def for_each_job(
    command: str,
    foreman: ForemanClient,
    ids: Sequence[str],
    change: Callable[[ForemanClient, str], Coroutine[Any, Any, str]],
) -> int:
    """Run ``change`` for each job and print its message; return the exit status.

    A job that cannot be changed does not stop the others from being changed.

    :raises RequestFailed: if an id matches no job, or several: then nothing is changed.
    """
    from foreman.cli.client.jobs import resolve_ids

    await foreman.health()
    statuses = []
    for id_ in await resolve_ids(foreman, ids):
        try:
            click.echo(await change(foreman, id_))
        except RequestFailed as problem:
            if isinstance(problem, Unreachable) or problem.exit_status == NOT_ALLOWED:
                raise
            echo_stderr(f"foreman {command}: {problem}")
            statuses.append(problem.exit_status)
    return highest(statuses)


async def post_action(foreman: ForemanClient, id_: str, what: str, done: str) -> str:
    """Change a job with a POST; return the message about it.

    :param what: the last segment of the path; :param done: the result, for the message.
    :raises RequestFailed: if it is refused.
    """
    from foreman.cli.client.jobs import job_path, no_such_job, refusal

    answer = await foreman.fetch("POST", job_path(id_, what), body=b"")
    if answer.status == 404:
        raise no_such_job(foreman, answer, id_)
    if answer.status != 200:
        raise refusal(foreman, answer, f"{id_} was not {done}")
    return f"{id_} was {done}"
