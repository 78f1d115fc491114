"""The option of the commands that work on the database file, and how they describe its content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from foreman.cli.ui.setting_options import configure

F = TypeVar("F", bound=Callable[..., object])


def db_path_option(function: F) -> F:
    """Give a command the option --db-path."""
    help_ = "The database of the jobs.  [FOREMAN_DB_PATH; foreman/foreman.db in the XDG state folder]"
    return click.option("--db-path", metavar="FILE", help=help_)(function)


def database_path(environ: Mapping[str, str], option: str | None) -> Path:
    """The database that foreman would use with this environment; all other settings are ignored."""
    relevant = {name: value for name, value in environ.items() if not name.startswith("FOREMAN_")}
    if environ.get("FOREMAN_DB_PATH"):
        relevant["FOREMAN_DB_PATH"] = environ["FOREMAN_DB_PATH"]
    path = configure(relevant, {"db_path": option}).db_path
    assert path is not None
    return path


def job_count(jobs: int, active: int) -> str:
    """The number of jobs, and of those that have not ended, as text."""
    if not jobs:
        return "no jobs"
    jobs_text = "1 job" if jobs == 1 else f"{jobs} jobs"
    return f"{jobs_text}, {f'{active} of them not ended yet' if active else 'all ended'}"
