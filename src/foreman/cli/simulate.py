"""``foreman simulate``: a pretended Ollama, for trying things out without a GPU."""

from __future__ import annotations

from typing import Any

import click

from foreman import addresses
from foreman.cli.options import Written, choose_reactor
from foreman.simulator.misbehave import Misbehaviour, parse
from foreman.simulator.settings import FRIENDLY, Settings
from foreman.spellings import seconds


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@click.command("simulate", short_help="Pretend to be an Ollama server.", context_settings={"show_default": True})
@click.option(
    "--listen",
    type=Written("ADDRESS", addresses.endpoint),
    default="127.0.0.1:11434",
    help="Where: host:port, or a Twisted endpoint description.",
)
@click.option("--rate", type=click.FloatRange(min=0), default=30, help="Tokens per second; 0 is all at once.")
@click.option(
    "--load-time", type=Written("DURATION", seconds), default="2s", help="Until a model that was not loaded is."
)
@click.option(
    "--prompt-time", type=Written("DURATION", seconds), default="0s", help="Between a loaded model and its first token."
)
@click.option("--keep-alive", type=Written("DURATION", seconds), default="5m", help="How long a model stays loaded.")
@click.option("--max-loaded", type=click.IntRange(min=1), default=3, help="How many models stay loaded at once.")
@click.option(
    "--models", type=Written("NAMES", _names), default=",".join(FRIENDLY), help="What is installed, commas between."
)
@click.option(
    "--misbehave",
    type=Written("WHAT", parse),
    multiple=True,
    help="What goes wrong with answers: a word, or JSON as in the header Simulator-Misbehave.",
)
def command(*, listen: str, misbehave: tuple[tuple[Misbehaviour, ...], ...], **options: Any) -> None:
    """Pretend to be an Ollama server until a signal says stop."""
    settings = Settings(misbehave=tuple(one for some in misbehave for one in some), **options)
    choose_reactor()
    from twisted.internet import reactor

    from foreman.simulator.program import run

    raise SystemExit(run(settings, reactor, listen, click.echo))
