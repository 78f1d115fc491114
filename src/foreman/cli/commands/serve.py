"""``foreman serve``: the daemon, in the foreground."""

from __future__ import annotations

import os

import click

from foreman.cli.reactor import choose_reactor
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import configure, setting_options


@click.command(
    "serve",
    cls=HelpfulCommand,
    short_help="Stand in front of an Ollama server.",
    examples=[
        "foreman serve",
        "foreman serve --listen 127.0.0.1:11434 --target-url 127.0.0.1:11435",
        "FOREMAN_AUTH_TOKEN_FILE=token foreman serve --listen 0.0.0.0:8080",
    ],
    exit_statuses={
        1: "it cannot listen; foreman check tells more",
        2: "a setting is wrong; every one is named",
        143: "stopped by SIGTERM (130: by ctrl-C), as a shell tells it",
    },
)
@setting_options
def command(**options: str | None) -> None:
    """Stand in front of an Ollama server until a signal says stop. The log goes to standard output.

    Every option is also an environment variable, which it wins over; it stands in brackets behind it. Tokens are never
    options: FOREMAN_AUTH_TOKEN, FOREMAN_ADMIN_TOKEN and FOREMAN_TARGET_TOKEN, or the same with _FILE behind and the name
    of a file.

    SIGTERM and ctrl-C let running answers end, for up to FOREMAN_DRAIN_TIMEOUT; a second one ends them. SIGHUP reads
    FOREMAN_TOKENS_FILE again.
    """
    config = configure(os.environ, options)
    choose_reactor()
    from foreman.tap import run  # it imports the reactor

    run(config)
