"""``foreman settings``: what can be set, for people, for a ``.env`` file and for the README."""

from __future__ import annotations

import click

from foreman.cli.ui.console import Column, console, table
from foreman.cli.ui.help import HelpfulCommand
from foreman.config.settings import SETTINGS


@click.command(
    "settings",
    cls=HelpfulCommand,
    short_help="List the settings.",
    examples=["foreman settings", "foreman settings --env > foreman.env", "foreman check     # what they are set to"],
)
@click.option("--env", "form", flag_value="env", help="As a .env file with every default, commented out.")
@click.option("--markdown", "form", flag_value="markdown", help="As a Markdown table.")
def command(form: str | None) -> None:
    """List the settings with their defaults."""
    if form == "env":
        click.echo(as_environment(), nl=False)
    elif form == "markdown":
        click.echo(as_markdown(), nl=False)
    else:
        rows = [[setting.variable, setting.default, setting.help] for setting in SETTINGS]
        console().print(table([Column("SETTING"), Column("DEFAULT"), Column("MEANING", wraps=True)], rows))


def as_environment() -> str:
    """The content of ``.env.example``."""
    lines = [
        "# foreman's settings with their defaults. Take the # away to change one; what is empty counts as not given.",
        "# A secret can stand in a file instead: FOREMAN_AUTH_TOKEN_FILE=/run/secrets/foreman, and so for each.",
    ]
    for setting in SETTINGS:
        lines += ["", f"# {setting.help}", f"#{setting.variable}={setting.default}"]
    return "\n".join(lines) + "\n"


def as_markdown() -> str:
    """The table of the README."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in SETTINGS:
        default = f"`{setting.default}`" if setting.default else "–"
        rows.append(f"| `{setting.variable}` | {default} | {setting.help} |")
    return "\n".join(rows) + "\n"
