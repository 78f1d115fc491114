"""``foreman jobs``: list jobs, wait for them, fetch their answers, and change or delete them."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

import click
from click.core import ParameterSource

from foreman.cli.ui.exit_status import CLIENT_STATUSES
from foreman.cli.ui.filter_options import JobFilters, filter_options
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.lazy_group import LazyGroup

#: Each is the ``command`` of the module of the same name here.
COMMANDS = {
    "list": "List jobs, the newest first (the default command).",
    "show": "Show the details of a job.",
    "wait": "Wait until jobs have ended.",
    "follow": "Print the answer of a job as it streams in.",
    "logs": "Show the events of a job.",
    "get": "Print the answer of a job, or another artifact.",
    "artifacts": "List the artifacts of a job.",
    "cancel": "Cancel jobs.",
    "retry": "Retry jobs that ended without success.",
    "rm": "Delete jobs with their artifacts.",
    "prune": "Delete all jobs that have ended, by state and age.",
}


class _Jobs(HelpfulCommand, LazyGroup):
    """The group of the commands for jobs."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        likely = bool(args) and bool(get_close_matches(args[0], self.helps))
        if args and args[0] not in self.helps and not likely and re.fullmatch(r"[0-9A-Za-z]{4,26}", args[0]):
            name = args[0]
            ctx.fail(f"there is no command {name!r}; to show the job with this id: foreman jobs show {name}")
        return super().resolve_command(ctx, args)


@click.group(
    "jobs",
    cls=_Jobs,
    package=__name__,
    helps=COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    short_help="List jobs, wait for them, fetch their answers.",
    examples=[
        "foreman jobs                              # the newest jobs",
        "foreman jobs --state active",
        "foreman jobs --state failed,discarded --since 1d --all",
        "foreman jobs --meta run=nightly --json | jq -r '.jobs[].id'",
        "foreman jobs wait 1XES2H                  # the end of an id, as listed",
        "foreman jobs get 1XES2H > answer.txt",
        "foreman jobs retry 1XES2H",
    ],
    exit_statuses=CLIENT_STATUSES,
)
@filter_options
@click.pass_context
def command(ctx: click.Context, /, url: str, *, as_json: bool, **filters: Any) -> None:
    """List jobs, the newest first, or run one of the commands below.

    An ID is the id that the list shows, or the full id. Jobs are submitted with foreman submit. With an admin token you
    see all jobs, with any other token only your own.

    A TIME is a time such as 22:30, 2026-11-28 or '2026-11-28 22:30', one in the format of RFC 3339, or an age: 10m, 2h, 1d.
    """
    if ctx.invoked_subcommand is None:
        from foreman.cli.commands.jobs.list import run

        run(url, JobFilters(**filters), as_json=as_json)
        return
    misplaced = [name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    if misplaced:
        raise click.UsageError(
            f"the options of a command go after its name: foreman jobs {ctx.invoked_subcommand} …", ctx
        )
