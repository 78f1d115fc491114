"""``foreman restore``: put a copy of the jobs back, while foreman does not run."""

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
    short_help="Put a copy of the jobs back.",
    examples=["foreman restore /backups/foreman-2026-11-28.db"],
    exit_statuses={
        SUCCESS: "the jobs are those of the copy",
        FAILED: "nothing was changed; the reason is told",
        USAGE_ERROR: "the command was written wrongly",
    },
)
@click.argument("copy", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@db_path_option
def command(copy: Path, db_path: str | None) -> None:
    """Put the copy FILE, made by foreman backup, in the place of the jobs. foreman must not be running.

    The copy is verified first. What was there is kept beside it, under a name that is told. Jobs that had not ended when
    the copy was made run when foreman starts, those that ran then among them.
    """
    from foreman.store.errors import StoreRefused, StoreUnavailable
    from foreman.store.sqlite.backup import restore

    path = database_path(os.environ, db_path)
    try:
        content, old = restore(copy, path, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    except (StoreRefused, StoreUnavailable) as problem:
        click.echo(f"foreman restore: {problem}", err=True)
        raise SystemExit(FAILED) from None
    click.echo(f"{path}: {job_count(content.jobs, content.active)}")
    if old is not None:
        click.echo(f"what was there is in {old} now")
