"""The ``foreman`` command and its sub-commands, each imported when it is used.

That keeps ``foreman --help`` quick, and lets ``foreman serve`` choose a reactor before anything imports one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import click

from foreman import DISTRIBUTION
from foreman.cli.ui import command_exit, standard_streams
from foreman.cli.ui.help import write_examples
from foreman.cli.ui.lazy_group import LazyGroup

#: Each is the ``command`` of the module of the same name in ``commands``, with underscores for dashes.
COMMANDS = {
    "serve": "Stand in front of an Ollama server.",
    "demo": "Try foreman out, in front of the built-in simulator.",
    "check": "Tell whether foreman would work here.",
    "ps": "Show who has the turn, who waits, and what is loaded.",
    "models": "List the models, and what is loaded.",
    "cancel": "Cancel a request that waits or runs.",
    "submit": "Hand a job over, to find its answer later.",
    "jobs": "List jobs, wait for them, fetch their answers.",
    "backup": "Copy the jobs, while foreman runs or not.",
    "restore": "Put a copy of the jobs back.",
    "token": "Make, list and revoke named tokens.",
    "settings": "List the settings.",
    "install-service": "Let systemd or launchd run foreman.",
    "completion": "Print what lets a shell complete foreman's commands.",
    "simulate": "Pretend to be an Ollama server.",
}
#: Shown below the help of `foreman` itself.
EXAMPLES = (
    "foreman demo                       # needs nothing",
    "foreman serve --target-url http://127.0.0.1:11434",
    "foreman check                      # before that, or when something is wrong",
    "foreman ps",
)


class _Commands(LazyGroup):
    """The group of all commands."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click does, but every command ends as ``endings`` says."""
        run: Callable[..., Any] = super().main

        def work() -> Any:
            return run(*args, standalone_mode=False, **extra)

        return command_exit.run_and_exit(work) if standalone_mode else work()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)
        formatter.write("\nEach command explains itself: foreman COMMAND --help.\n")


@click.group(
    cls=_Commands,
    package="foreman.cli.commands",
    helps=COMMANDS,
    modules={"token": "tokens"},  # token is a module of the standard library
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(version(DISTRIBUTION), "--version", "-V", prog_name="foreman")
def cli() -> None:
    """The daemon in front of an Ollama server: chats take turns, embeddings pass."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; ends with SystemExit."""
    standard_streams.prepare()
    cli.main(None if arguments is None else list(arguments), prog_name="foreman")
