"""Every command, option, example and exit status as a page: ``python -m foreman.cli.reference > docs/cli.md``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator

import click

from foreman.cli.main import EXAMPLES, cli
from foreman.cli.ui.help import HelpfulCommand
from foreman.config.settings import SETTINGS

_BEGINNING = """\
# Commands

Generated from the commands' own help by `python -m foreman.cli.reference > docs/cli.md`. Each command prints the same
with `--help` or `-h`. `ollama-foreman` is another name for `foreman`, for machines that have a different program of
that name.

Tables and colours are for terminals (`NO_COLOR=1` turns colours off); scripts use `--json`. `foreman completion` prints
a completion script for bash, zsh or fish.

Exit statuses that a command does not list: 0 means success; 1 that it failed, with one sentence on standard error; 2
that an option, an argument or a variable cannot be read; 130 that ctrl-C ended it, 143 that SIGTERM did, and 141 that
the reader of its output closed the pipe. [Running foreman](running.md#commands-and-their-exit-statuses) has all of them in one table.
"""
#: The command under which the options that are settings are listed; other commands refer to it.
_WITH_SETTINGS = "serve"
#: How a paragraph begins that click does not wrap.
_AS_WRITTEN = "\b\n"


def page() -> str:
    """The page, as Markdown; the same at any width of the terminal and in any environment."""
    root = click.Context(cli, info_name="foreman")
    commands = list(_commands(root))
    index = [f"| [`{ctx.command_path}`](#{ctx.command_path.replace(' ', '-')}) | {_short(ctx)} |" for ctx in commands]
    lines = [_BEGINNING, "| command | does |", "|---|---|", *index, "", "```sh", *EXAMPLES, "```"]
    for ctx in commands:
        lines += _command(ctx)
    return "\n".join(lines)


def _commands(ctx: click.Context) -> Iterator[click.Context]:
    """The commands of a group, each followed by its own sub-commands, in the order of help."""
    assert isinstance(ctx.command, click.Group)
    for name in ctx.command.list_commands(ctx):
        command = ctx.command.get_command(ctx, name)
        assert command is not None, name
        inner = click.Context(command, info_name=name, parent=ctx)
        yield inner
        if isinstance(command, click.Group):
            yield from _commands(inner)


def _short(ctx: click.Context) -> str:
    return _text(ctx.command.get_short_help_str(limit=1000))


def _command(ctx: click.Context) -> Iterator[str]:
    """The section of one command."""
    command = ctx.command
    yield f"\n##{'#' * (ctx.command_path.count(' ') - 1)} {ctx.command_path}\n"
    yield from ("```text", " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]), "```")
    for paragraph in inspect.cleandoc(command.help or "").partition("\f")[0].split("\n\n"):
        if paragraph.startswith(_AS_WRITTEN):
            yield from ("", "```text", paragraph.removeprefix(_AS_WRITTEN), "```")
        elif paragraph:
            yield f"\n{_text(paragraph)}"
    yield from _options(ctx)
    if isinstance(command, click.Group):
        names = command.list_commands(ctx)
        links = [f"[`{name}`](#{f'{ctx.command_path} {name}'.replace(' ', '-')})" for name in names]
        yield f"\nIts commands: {', '.join(links)}."
    if isinstance(command, HelpfulCommand):
        if command.examples:
            yield from ("", "```sh", *command.examples, "```")
        if command.exit_statuses:
            yield from _table(
                "exit status", ((str(status), meaning) for status, meaning in command.exit_statuses.items())
            )


def _options(ctx: click.Context) -> Iterator[str]:
    parameters = ctx.command.get_params(ctx)
    settings = {setting.name for setting in SETTINGS if not setting.secret}
    refers = ctx.info_name != _WITH_SETTINGS and settings <= {parameter.name for parameter in parameters}
    rows = []
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        # Arguments are in the usage, and --help is the same everywhere.
        if record is None or not record[1] or "--help" in parameter.opts or (refers and parameter.name in settings):
            continue
        rows.append((f"`{record[0]}`", record[1]))
    if refers:
        link = f"[`foreman {_WITH_SETTINGS}`](#foreman-{_WITH_SETTINGS})"
        yield f"\nOptions: all of {link}{', and these:' if rows else '.'}"
    if rows:
        yield from _table("option", rows)


def _table(name: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from ("", f"| {name} | meaning |", "|---|---|")
    for first, meaning in rows:
        yield f"| {first.replace('|', chr(92) + '|')} | {_text(meaning)} |"


def _text(help_: str) -> str:
    """Help as Markdown that looks the same: one line, without characters that would be markup."""
    return re.sub(r"([*<|])", r"\\\1", " ".join(help_.split()))


if __name__ == "__main__":
    sys.stdout.write(f"{page()}\n")
