"""``foreman simulate``: a pretended Ollama, for trying things out without a GPU."""

from __future__ import annotations

import click

from foreman import addresses
from foreman.cli.options import Written, choose_reactor
from foreman.simulator.settings import FRIENDLY, Settings
from foreman.spellings import seconds


@click.command("simulate", short_help="Pretend to be an Ollama server.")
@click.option(
    "--listen",
    type=Written("ADDRESS", addresses.endpoint),
    default="127.0.0.1:11434",
    show_default=True,
    help="Where: host:port, or a Twisted endpoint description.",
)
@click.option(
    "--rate", type=click.FloatRange(min=0), default=30, show_default=True, help="Tokens per second; 0 is all at once."
)
@click.option(
    "--load-time",
    type=Written("DURATION", seconds),
    default="2s",
    show_default=True,
    help="Until a model that was not loaded is.",
)
@click.option(
    "--keep-alive",
    type=Written("DURATION", seconds),
    default="5m",
    show_default=True,
    help="How long a model stays loaded.",
)
@click.option("--models", default=",".join(FRIENDLY), show_default=True, help="What is installed, with commas between.")
def command(*, listen: str, rate: float, load_time: float, keep_alive: float, models: str) -> None:
    """Pretend to be an Ollama server until a signal says stop."""
    names = tuple(name.strip() for name in models.split(",") if name.strip())
    settings = Settings(rate=rate, load_time=load_time, keep_alive=keep_alive, models=names)
    choose_reactor()
    from twisted.internet import reactor

    from foreman.simulator.program import run

    raise SystemExit(run(settings, reactor, listen, click.echo))
