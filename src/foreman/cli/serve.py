"""``foreman serve``: the daemon, in the foreground."""

from __future__ import annotations

import os

import click

from foreman.cli.options import choose_reactor, configure, setting_options


@click.command("serve", short_help="Stand in front of an Ollama server.")
@setting_options
def command(**options: str | None) -> None:
    """Stand in front of an Ollama server until a signal says stop.

    Every option is also an environment variable, which it wins over. Tokens are never options: FOREMAN_AUTH_TOKEN,
    FOREMAN_ADMIN_TOKEN and FOREMAN_TARGET_TOKEN, or the same with _FILE behind and the name of a file.
    """
    config = configure(os.environ, options)
    choose_reactor()
    from foreman.tap import run  # it imports the reactor

    run(config)
