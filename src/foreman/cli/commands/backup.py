"""``foreman backup``: a verified copy of the jobs, made while foreman runs or not."""

from __future__ import annotations

import os
from pathlib import Path

import click

from foreman.cli.commands.database_option import database_path, db_path_option, job_count
from foreman.cli.ui.console import human_size
from foreman.cli.ui.exit_status import FAILED, SUCCESS, USAGE_ERROR
from foreman.cli.ui.help import HelpfulCommand


@click.command(
    "backup",
    cls=HelpfulCommand,
    short_help="Copy the jobs, while foreman runs or not.",
    examples=[
        "foreman backup /backups/foreman-$(date +%F).db",
        "foreman backup jobs.db --db-path /var/lib/foreman/foreman.db",
    ],
    exit_statuses={
        SUCCESS: "the copy is there, whole and verified",
        FAILED: "there is no copy; the reason is told",
        USAGE_ERROR: "the command was written wrongly",
    },
)
@click.argument("copy", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@db_path_option
def command(copy: Path, db_path: str | None) -> None:
    """Copy the jobs and their artifacts to FILE, which must not be there yet; its folder must be.

    The copy is of one moment, and holds whatever was acknowledged before it. A running foreman goes on meanwhile. FILE
    appears when every page of it has been looked at. Put it back with foreman restore.
    """
    from foreman.store.errors import StoreRefused, StoreUnavailable
    from foreman.store.sqlite.backup import back_up

    path = database_path(os.environ, db_path)
    try:
        content = back_up(path, copy)
    except (StoreRefused, StoreUnavailable) as problem:
        click.echo(f"foreman backup: {problem}", err=True)
        raise SystemExit(FAILED) from None
    size = human_size(content.bytes)
    click.echo(f"{copy}: {job_count(content.jobs, content.active)} ({size}), verified")
