"""The ``foreman`` command and its subcommands, each imported when it is used.

That keeps ``foreman --help`` fast, and lets ``foreman serve`` choose a reactor before anything imports one.
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
    "serve": "Run the daemon in front of an Ollama server.",
    "demo": "Try foreman with the built-in simulator.",
    "check": "Check whether foreman would work here.",
    "ps": "Show running and queued requests and loaded models.",
    "models": "List the models, and which of them are loaded.",
    "cancel": "Cancel a queued or running request.",
    "submit": "Submit a job, and fetch its answer later.",
    "jobs": "List jobs, wait for them, fetch their answers.",
    "backup": "Back up the jobs; foreman may be running.",
    "restore": "Restore the jobs from a backup.",
    "token": "Create, list and revoke named tokens.",
    "settings": "List the settings.",
    "install-service": "Install foreman as a service of systemd or launchd.",
    "completion": "Print a completion script for bash, zsh or fish.",
    "simulate": "Run a simulated Ollama server.",
}
#: Shown below the help of `foreman` itself.
EXAMPLES = (
    "foreman demo                       # no Ollama needed",
    "foreman serve --target-url http://127.0.0.1:11434",
    "foreman check                      # before that, or when something fails",
    "foreman ps",
)


class _Commands(LazyGroup):
    """The group of all commands."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As in click, but in standalone mode every command ends as ``command_exit`` defines."""
        run: Callable[..., Any] = super().main

        def work() -> Any:
            return run(*args, standalone_mode=False, **extra)

        return command_exit.run_and_exit(work) if standalone_mode else work()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)
        formatter.write("\nMore about a command: foreman COMMAND --help\n")


@click.group(
    cls=_Commands,
    package="foreman.cli.commands",
    helps=COMMANDS,
    modules={"token": "tokens"},  # token is a module of the standard library
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(version(DISTRIBUTION), "--version", "-V", prog_name="foreman")
def cli() -> None:
    """A daemon in front of an Ollama server: chats take turns, embeddings bypass the queue."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; raises SystemExit."""
    standard_streams.prepare()
    cli.main(None if arguments is None else list(arguments), prog_name="foreman")
