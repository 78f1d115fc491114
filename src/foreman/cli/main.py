"""The ``foreman`` command and its sub-commands, each imported when it is used.

That keeps ``foreman --help`` quick, and lets ``foreman serve`` choose a reactor before anything imports one.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any

import click
from click.shell_completion import CompletionItem

from foreman.cli.explained import write_examples

#: Each is the ``command`` of the module of the same name here, with underscores for dashes.
COMMANDS = {
    "serve": "Stand in front of an Ollama server.",
    "demo": "Try foreman out, in front of the built-in simulator.",
    "check": "Tell whether foreman would work here.",
    "ps": "Show who has the turn, who waits, and what is loaded.",
    "models": "List the models, and what is loaded.",
    "cancel": "Cancel a request that waits or runs.",
    "token": "Make, list and revoke named tokens.",
    "settings": "List the settings.",
    "install-service": "Let systemd or launchd run foreman.",
    "completion": "Print what lets a shell complete foreman's commands.",
    "simulate": "Pretend to be an Ollama server.",
}
_EXAMPLES = (
    "foreman demo                       # needs nothing",
    "foreman serve --target-url http://127.0.0.1:11434",
    "foreman check                      # before that, or when something is wrong",
    "foreman ps",
)


class _Commands(click.Group):
    """A group that knows the names of its commands before it imports them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(f"foreman.cli.{name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a wrong name is answered without importing every command for its suggestions."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}; there are {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """As click does, but without importing every command for its help."""
        items = [CompletionItem(name, help=help_) for name, help_ in COMMANDS.items() if name.startswith(incomplete)]
        return items or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, _EXAMPLES)
        formatter.write("\nEach command explains itself: foreman COMMAND --help.\n")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("foreman"), "--version", "-V", prog_name="foreman")
def cli() -> None:
    """The daemon in front of an Ollama server: chats take turns, embeddings pass."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; ends with SystemExit."""
    cli.main(None if arguments is None else list(arguments), prog_name="foreman")
