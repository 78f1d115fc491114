"""The ``foreman`` command and its sub-commands, each imported when it is used.

That keeps ``foreman --help`` quick, and lets ``foreman serve`` choose a reactor before anything imports one.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

import click

#: Each is the module of the same name here, whose ``command`` it is.
_COMMANDS = {
    "serve": "Stand in front of an Ollama server.",
    "demo": "Try foreman out, in front of the built-in simulator.",
    "ps": "Show who has the turn, who waits, and what is loaded.",
    "token": "Make, list and revoke named tokens.",
    "settings": "List the settings.",
    "simulate": "Pretend to be an Ollama server.",
}


class _Commands(click.Group):
    """A group that knows the names of its commands before it imports them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = import_module(f"foreman.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a wrong name is answered without importing every command for its suggestions."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}; there are {', '.join(_COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("foreman"), "--version", "-V", prog_name="foreman")
def cli() -> None:
    """The daemon in front of an Ollama server: chats take turns, embeddings pass."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; ends with SystemExit."""
    cli.main(None if arguments is None else list(arguments), prog_name="foreman")
