"""``foreman serve``: run the daemon in the foreground."""

from __future__ import annotations

import os

import click

from foreman.cli.reactor import choose_reactor
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import configure, setting_options


@click.command(
    "serve",
    cls=HelpfulCommand,
    short_help="Run the daemon in front of an Ollama server.",
    examples=[
        "foreman serve",
        "foreman serve --listen 127.0.0.1:11434 --target-url 127.0.0.1:11435",
        "FOREMAN_AUTH_TOKEN_FILE=token foreman serve --listen 0.0.0.0:8080",
    ],
    exit_statuses={
        1: "foreman cannot listen; run foreman check for details",
        2: "a setting is invalid; all of them are listed",
        143: "stopped by SIGTERM (130: by ctrl-C), as reported by a shell",
    },
)
@setting_options
def command(**options: str | None) -> None:
    """Run the daemon in front of an Ollama server, in the foreground. The log goes to standard output.

    Each option can also be set by the environment variable in brackets; the option takes precedence. Tokens are set by
    variables only: FOREMAN_AUTH_TOKEN, FOREMAN_ADMIN_TOKEN and FOREMAN_TARGET_TOKEN, or the same names with _FILE appended
    for the name of a file with the token.

    SIGTERM and ctrl-C stop foreman; running answers may finish within FOREMAN_DRAIN_TIMEOUT. A second signal cuts them
    off. SIGHUP reloads FOREMAN_TOKENS_FILE.
    """
    config = configure(os.environ, options)
    choose_reactor()
    from foreman.tap import run  # it imports the reactor

    run(config)
