"""Command lines to continue with, for messages."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click
from click.core import ParameterSource

from foreman.cli.ui.ps_view import SHORT_ID_LENGTH

#: At most so many ids are printed in a command line.
_FEW = 8


def command_for_many(what: str, ids: Sequence[str], context: click.Context | None = None) -> str:
    """As ``command_for``; for many jobs the command that lists the jobs that have not ended."""
    if len(ids) <= _FEW:
        return command_for(what, ids, context)
    return f"{command_for('list', (), context)} --state active --all"


def command_for(what: str, ids: Sequence[str], context: click.Context | None = None) -> str:
    """The command line of ``foreman jobs`` for these jobs, with the --url of the current command.

    :param what: the name of the subcommand.
    """
    context = context or click.get_current_context()
    words = ["foreman", "jobs", what, *(id_[-SHORT_ID_LENGTH:] for id_ in ids)]
    if context.get_parameter_source("url") == ParameterSource.COMMANDLINE:
        words += ["--url", context.params["url"]]
    return shlex.join(words)
