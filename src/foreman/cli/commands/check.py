"""``foreman check``: show the effective settings, and test whether foreman would work with them here and now."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from foreman.cli.commands.effective_settings import EffectiveSetting, effective_settings
from foreman.cli.reactor import run_with_reactor
from foreman.cli.ui.common_options import json_option
from foreman.cli.ui.console import Column, console, plain, table
from foreman.cli.ui.exit_status import FAILED, SUCCESS, USAGE_ERROR
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import setting_options
from foreman.config.settings import load
from foreman.errors import ConfigError

if TYPE_CHECKING:
    from foreman.cli.commands.checks import CheckResult

_STATE_STYLES = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("FAILS", "bold red")}
_SETTINGS = (Column("SETTING"), Column("VALUE", wraps=True), Column("FROM", wraps=True))
_RESULTS = (Column("CHECK"), Column(""), Column("RESULT", wraps=True))


@click.command(
    "check",
    cls=HelpfulCommand,
    short_help="Check whether foreman would work here.",
    examples=[
        "foreman check",
        "foreman check --listen 0.0.0.0:8080 --target-url gpu-box",
        "(set -a; . ~/.config/foreman/foreman.env; foreman check)",
        """foreman check --json | jq -r '.checks[] | select(.state != "ok") | .text'""",
    ],
    exit_statuses={
        SUCCESS: "every check passed; there may be notes",
        FAILED: "a check failed",
        USAGE_ERROR: "a setting is invalid; all of them are listed",
    },
)
@setting_options
@json_option
def command(*, as_json: bool, **options: str | None) -> None:
    """Show every setting with its source, yours first, then test whether foreman would work here.

    Does the target answer, with which version and how many models? Is the port free? Who can send requests? Is the clock
    right, and are there enough file descriptors? The options are those of foreman serve. Secrets are masked.
    """
    settings = effective_settings(os.environ, options)
    try:
        config = load(os.environ, options)
    except ConfigError as error:
        _report(settings, [], error.problems, as_json=as_json)
        raise SystemExit(USAGE_ERROR) from None
    from foreman.cli.commands.checks import run_checks

    results = run_with_reactor(lambda reactor: run_checks(reactor, config, time.time))
    _report(settings, results, (), as_json=as_json)
    raise SystemExit(FAILED if any(item.state == "bad" for item in results) else SUCCESS)


def _report(
    settings: Sequence[EffectiveSetting], results: Sequence[CheckResult], problems: Sequence[str], *, as_json: bool
) -> None:
    if as_json:
        click.echo(json.dumps(as_json_value(settings, results, problems), indent=2))
        return
    show(settings, results, console())
    for problem in problems:
        click.echo(f"foreman: {problem}", err=True)


def as_json_value(
    settings: Sequence[EffectiveSetting], results: Sequence[CheckResult], problems: Sequence[str]
) -> dict[str, Any]:
    """The settings, problems and results as JSON, for scripts."""
    return {
        "ok": not problems and all(item.state != "bad" for item in results),
        "settings": [{"variable": item.variable, "value": item.value, "from": item.source} for item in settings],
        "problems": list(problems),
        "checks": [{"name": item.name, "state": item.state, "text": item.text} for item in results],
    }


def show(settings: Sequence[EffectiveSetting], results: Sequence[CheckResult], console: Console) -> None:
    """Print the settings, the chosen ones before the defaults, and the results as tables."""
    ordered = sorted(settings, key=lambda item: item.is_default)
    styled = [(item, "dim" if item.is_default else "") for item in ordered]
    rows = [[Text(plain(text), style) for text in (item.variable, item.value, item.source)] for item, style in styled]
    console.print(table(_SETTINGS, rows))
    if results:
        console.print()
        console.print(
            table(_RESULTS, [[item.name, Text(*_STATE_STYLES[item.state]), Text(plain(item.text))] for item in results])
        )
