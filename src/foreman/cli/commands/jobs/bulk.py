"""Do something with each of several jobs, and tell of each what became of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from foreman.cli.client.errors import Unanswered, Unreached
from foreman.cli.ui.exit_status import NOT_ALLOWED, highest
from foreman.cli.ui.standard_streams import say

if TYPE_CHECKING:
    from foreman.cli.client.client import Foreman


def change_each(command: str, url: str, wanted: Sequence[str], what: str, done: str) -> int:
    """Ask the foreman at ``url`` for a change of each job, by ``post``; the exit status."""
    from foreman.cli.client.client import answer_of

    return answer_of(
        command,
        url,
        lambda foreman: each(command, foreman, wanted, lambda foreman, id_: post(foreman, id_, what, done)),
        patience=None,
    )


async def each(
    command: str,
    foreman: Foreman,
    wanted: Sequence[str],
    change: Callable[[Foreman, str], Coroutine[Any, Any, str]],
) -> int:
    """Do ``change`` with each job, and print what it says; the exit status.

    One that cannot be changed does not keep the others from it.

    :raises asking.Unanswered: if one of them stands for none, or for several: then nothing is changed.
    """
    from foreman.cli.client.jobs import whole_ids

    await foreman.health()
    statuses = []
    for id_ in await whole_ids(foreman, wanted):
        try:
            click.echo(await change(foreman, id_))
        except Unanswered as problem:
            if isinstance(problem, Unreached) or problem.status == NOT_ALLOWED:
                raise
            say(f"foreman {command}: {problem}")
            statuses.append(problem.status)
    return highest(statuses)


async def post(foreman: Foreman, id_: str, what: str, done: str) -> str:
    """Ask for a change; what to say of it.

    :param what: the change, as its path is called; :param done: what the job then is.
    :raises asking.Unanswered: if it is refused.
    """
    from foreman.cli.client.jobs import no_such_job, path_of, refused

    answer = await foreman.fetch("POST", path_of(id_, what), body=b"")
    if answer.status == 404:
        raise no_such_job(foreman, answer, id_)
    if answer.status != 200:
        raise refused(foreman, answer, f"{id_} is not {done}")
    return f"{id_} is {done}"
