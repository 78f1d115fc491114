"""What to type next about a job."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click
from click.core import ParameterSource

from foreman.cli.ui.ps_view import SHORT_ID_LENGTH

#: More ids than this are not printed again: a list finds them.
_FEW = 8


def command_for_many(what: str, ids: Sequence[str], context: click.Context | None = None) -> str:
    """As ``command_for``, but where there are many jobs the command that lists those that have not ended."""
    if len(ids) <= _FEW:
        return command_for(what, ids, context)
    return f"{command_for('list', (), context)} --state active --all"


def command_for(what: str, ids: Sequence[str], context: click.Context | None = None) -> str:
    """The command that does ``what`` with these jobs, at the foreman that this one asks.

    :param what: the name of a command of ``foreman jobs``.
    """
    context = context or click.get_current_context()
    words = ["foreman", "jobs", what, *(id_[-SHORT_ID_LENGTH:] for id_ in ids)]
    if context.get_parameter_source("url") == ParameterSource.COMMANDLINE:
        words += ["--url", context.params["url"]]
    return shlex.join(words)
