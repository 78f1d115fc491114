"""Do something with each of several jobs, and tell of each what became of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from foreman.cli.client.errors import RequestFailed, Unreachable
from foreman.cli.ui.exit_status import NOT_ALLOWED, highest
from foreman.cli.ui.standard_streams import echo_stderr

if TYPE_CHECKING:
    from foreman.cli.client.client import ForemanClient


def change_jobs(command: str, url: str, wanted: Sequence[str], what: str, done: str) -> int:
    """Ask the foreman at ``url`` for a change of each job, by ``post_action``; the exit status."""
    from foreman.cli.client.client import run_client

    return run_client(
        command,
        url,
        lambda foreman: for_each_job(
            command, foreman, wanted, lambda foreman, id_: post_action(foreman, id_, what, done)
        ),
        patience=None,
    )


async def for_each_job(
    command: str,
    foreman: ForemanClient,
    wanted: Sequence[str],
    change: Callable[[ForemanClient, str], Coroutine[Any, Any, str]],
) -> int:
    """Do ``change`` with each job, and print what it says; the exit status.

    One that cannot be changed does not keep the others from it.

    :raises asking.Unanswered: if one of them stands for none, or for several: then nothing is changed.
    """
    from foreman.cli.client.jobs import resolve_ids

    await foreman.health()
    statuses = []
    for id_ in await resolve_ids(foreman, wanted):
        try:
            click.echo(await change(foreman, id_))
        except RequestFailed as problem:
            if isinstance(problem, Unreachable) or problem.status == NOT_ALLOWED:
                raise
            echo_stderr(f"foreman {command}: {problem}")
            statuses.append(problem.status)
    return highest(statuses)


async def post_action(foreman: ForemanClient, id_: str, what: str, done: str) -> str:
    """Ask for a change; what to say of it.

    :param what: the change, as its path is called; :param done: what the job then is.
    :raises asking.Unanswered: if it is refused.
    """
    from foreman.cli.client.jobs import job_path, no_such_job, refusal

    answer = await foreman.fetch("POST", job_path(id_, what), body=b"")
    if answer.status == 404:
        raise no_such_job(foreman, answer, id_)
    if answer.status != 200:
        raise refusal(foreman, answer, f"{id_} is not {done}")
    return f"{id_} is {done}"
