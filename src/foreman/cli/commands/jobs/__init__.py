"""``foreman jobs``: list jobs, wait for them, fetch their answers, and what else can be done with them."""

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
    "list": "List jobs, the newest first; what foreman jobs alone does.",
    "show": "Show all that is known of a job.",
    "wait": "Wait until jobs have ended.",
    "follow": "Print a job's answer as it comes.",
    "logs": "Show what has happened to a job.",
    "get": "Print a job's answer, or another of its artifacts.",
    "artifacts": "List what is kept with a job.",
    "cancel": "Cancel jobs.",
    "retry": "Let jobs that ended without success try again.",
    "rm": "Remove jobs with all that belongs to them.",
    "prune": "Remove many jobs that have ended.",
}


class _Jobs(HelpfulCommand, LazyGroup):
    """The group of what can be done with jobs."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        likely = bool(args) and bool(get_close_matches(args[0], self.helps))
        if args and args[0] not in self.helps and not likely and re.fullmatch(r"[0-9A-Za-z]{4,26}", args[0]):
            name = args[0]
            ctx.fail(f"there is no command {name!r}; of a job with this id tells: foreman jobs show {name}")
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
        "foreman jobs                              # the newest",
        "foreman jobs --state active",
        "foreman jobs --state failed,discarded --since 1d --all",
        "foreman jobs --meta run=nightly --json | jq -r '.jobs[].id'",
        "foreman jobs wait 1XES2H                  # the end of an id, as shown",
        "foreman jobs get 1XES2H > answer.txt",
        "foreman jobs retry 1XES2H",
    ],
    exit_statuses=CLIENT_STATUSES,
)
@filter_options
@click.pass_context
def command(ctx: click.Context, /, url: str, *, as_json: bool, **filters: Any) -> None:
    """List jobs, the newest first; with a COMMAND do something else with them.

    An ID is what the list shows, or the whole id. A job is handed over with foreman submit. Whoever has an admin's token
    sees all jobs, others their own.

    A TIME is 22:30, 2026-11-28, '2026-11-28 22:30', one of RFC 3339, or how long ago: 10m, 2h, 1d.
    """
    if ctx.invoked_subcommand is None:
        from foreman.cli.commands.jobs.list import run

        run(url, JobFilters(**filters), as_json=as_json)
        return
    typed = [name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE]
    if typed:
        raise click.UsageError(
            f"the options of a command stand behind it: foreman jobs {ctx.invoked_subcommand} …", ctx
        )
