"""``foreman restore``: restore the jobs from a backup, while foreman is not running."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from foreman.cli.commands.database_option import database_path, db_path_option, job_count
from foreman.cli.ui.exit_status import FAILED, SUCCESS, USAGE_ERROR
from foreman.cli.ui.help import HelpfulCommand


@click.command(
    "restore",
    cls=HelpfulCommand,
    short_help="Restore the jobs from a backup.",
    examples=["foreman restore /backups/foreman-2026-11-28.db"],
    exit_statuses={
        SUCCESS: "the jobs are restored",
        FAILED: "nothing was changed; the reason is printed",
        USAGE_ERROR: "wrong usage of the command",
    },
)
@click.argument("copy", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@db_path_option
def command(copy: Path, db_path: str | None) -> None:
    """Replace the jobs with those of FILE, a copy made by foreman backup. foreman must not be running.

    FILE is verified first. The replaced database is kept beside the new one, under a name that is printed. Jobs that had
    not ended when the copy was made, running ones included, run once foreman starts.
    """
    from foreman.cli.database_files import restore
    from foreman.store.errors import StoreRefused, StoreUnavailable

    path = database_path(os.environ, db_path)
    try:
        content, old = restore(copy, path, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    except (StoreRefused, StoreUnavailable) as problem:
        click.echo(f"foreman restore: {problem}", err=True)
        raise SystemExit(FAILED) from None
    click.echo(f"{path}: {job_count(content.jobs, content.active)}")
    if old is not None:
        click.echo(f"the replaced database is kept as {old}")
