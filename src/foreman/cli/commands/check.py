"""``foreman check``: which settings would count, and would a foreman with them work here, now?"""

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
_FINDINGS = (Column("CHECK"), Column(""), Column("FOUND", wraps=True))


@click.command(
    "check",
    cls=HelpfulCommand,
    short_help="Tell whether foreman would work here.",
    examples=[
        "foreman check",
        "foreman check --listen 0.0.0.0:8080 --target-url gpu-box",
        "(set -a; . ~/.config/foreman/foreman.env; foreman check)",
        """foreman check --json | jq -r '.checks[] | select(.state != "ok") | .text'""",
    ],
    exit_statuses={
        SUCCESS: "all is well, or worth no more than a note",
        FAILED: "something would not work",
        USAGE_ERROR: "a setting is wrong; every one is named",
    },
)
@setting_options
@json_option
def command(*, as_json: bool, **options: str | None) -> None:
    """Show every setting and where it comes from, the ones you have set first. Then test whether foreman would work here.

    Does the target answer, with which version and how many models? Is the port free? Who may come in? Is the clock right,
    and are there descriptors enough? It takes the options of foreman serve. No secret is shown.
    """
    settings = effective_settings(os.environ, options)
    try:
        config = load(os.environ, options)
    except ConfigError as error:
        _report(settings, [], error.problems, as_json=as_json)
        raise SystemExit(USAGE_ERROR) from None
    from foreman.cli.commands.checks import run_checks

    found = run_with_reactor(lambda reactor: run_checks(reactor, config, time.time))
    _report(settings, found, (), as_json=as_json)
    raise SystemExit(FAILED if any(one.state == "bad" for one in found) else SUCCESS)


def _report(
    settings: Sequence[EffectiveSetting], found: Sequence[CheckResult], problems: Sequence[str], *, as_json: bool
) -> None:
    if as_json:
        click.echo(json.dumps(as_json_value(settings, found, problems), indent=2))
        return
    show(settings, found, console())
    for problem in problems:
        click.echo(f"foreman: {problem}", err=True)


def as_json_value(
    settings: Sequence[EffectiveSetting], found: Sequence[CheckResult], problems: Sequence[str]
) -> dict[str, Any]:
    """All of it, for scripts."""
    return {
        "ok": not problems and all(one.state != "bad" for one in found),
        "settings": [{"variable": one.variable, "value": one.value, "from": one.source} for one in settings],
        "problems": list(problems),
        "checks": [{"name": one.name, "state": one.state, "text": one.text} for one in found],
    }


def show(settings: Sequence[EffectiveSetting], found: Sequence[CheckResult], console: Console) -> None:
    """Print it as tables: first what was chosen, then what is default."""
    ordered = sorted(settings, key=lambda one: one.is_default)
    chosen = [(one, "dim" if one.is_default else "") for one in ordered]
    rows = [[Text(plain(text), style) for text in (one.variable, one.value, one.source)] for one, style in chosen]
    console.print(table(_SETTINGS, rows))
    if found:
        console.print()
        console.print(
            table(_FINDINGS, [[one.name, Text(*_STATE_STYLES[one.state]), Text(plain(one.text))] for one in found])
        )
