"""Which database a command means that works on the file itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from foreman.cli.ui.setting_options import configure

F = TypeVar("F", bound=Callable[..., object])


def db_path_option(function: F) -> F:
    """Let the command be told where the jobs are kept."""
    help_ = "Where the jobs are kept.  [FOREMAN_DB_PATH; foreman/foreman.db in the XDG state folder]"
    return click.option("--db-path", metavar="FILE", help=help_)(function)


def database_path(environ: Mapping[str, str], option: str | None) -> Path:
    """The file that a foreman started here would use; other settings are of no concern."""
    concerned = {name: value for name, value in environ.items() if not name.startswith("FOREMAN_")}
    if environ.get("FOREMAN_DB_PATH"):
        concerned["FOREMAN_DB_PATH"] = environ["FOREMAN_DB_PATH"]
    path = configure(concerned, {"db_path": option}).db_path
    assert path is not None
    return path


def job_count(jobs: int, active: int) -> str:
    """How many jobs there are, and how many of them have not ended."""
    if not jobs:
        return "no jobs"
    many = "1 job" if jobs == 1 else f"{jobs} jobs"
    return f"{many}, {f'{active} of them not ended yet' if active else 'all ended'}"
