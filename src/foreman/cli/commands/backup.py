"""``foreman backup``: make a verified copy of the job database; foreman may be running."""

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
    short_help="Back up the jobs; foreman may be running.",
    examples=[
        "foreman backup /backups/foreman-$(date +%F).db",
        "foreman backup jobs.db --db-path /var/lib/foreman/foreman.db",
    ],
    exit_statuses={
        SUCCESS: "the backup is complete and verified",
        FAILED: "no backup was made; the reason is printed",
        USAGE_ERROR: "wrong usage of the command",
    },
)
@click.argument("copy", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@db_path_option
def command(copy: Path, db_path: str | None) -> None:
    """Copy all jobs and their artifacts to FILE, which must not exist yet; its directory must exist.

    The copy is a consistent snapshot with every job that was accepted before. foreman may be running and is not stopped.
    FILE appears once every page of it has been verified. Restore it with foreman restore.
    """
    from foreman.cli.database_files import back_up
    from foreman.store.errors import StoreRefused, StoreUnavailable

    path = database_path(os.environ, db_path)
    try:
        content = back_up(path, copy)
    except (StoreRefused, StoreUnavailable) as problem:
        click.echo(f"foreman backup: {problem}", err=True)
        raise SystemExit(FAILED) from None
    size = human_size(content.bytes)
    click.echo(f"{copy}: {job_count(content.jobs, content.active)} ({size}), verified")
