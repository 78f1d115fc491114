"""``foreman simulate``: a simulated Ollama server, for trying and testing without a GPU."""

from __future__ import annotations

import re
from typing import Any

import click

from foreman.cli.reactor import choose_reactor
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import ParsedParam
from foreman.cli.ui.standard_streams import try_echo
from foreman.config import listen_address
from foreman.config.parsers import seconds
from foreman.simulator.engine.faults import DESCRIPTIONS, Fault, parse
from foreman.simulator.engine.settings import FRIENDLY, Settings


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _version(text: str) -> str:
    if not re.fullmatch(r"v?[0-9]{1,6}\.[0-9]{1,6}(?:[.-][0-9A-Za-z.-]{1,40})?", text):
        raise ValueError("is not a version, such as 0.33.0")
    return text.removeprefix("v")


@click.command(
    "simulate",
    cls=HelpfulCommand,
    short_help="Run a simulated Ollama server.",
    context_settings={"show_default": True},
    examples=[
        "foreman simulate",
        "foreman simulate --listen 127.0.0.1:11435 --models llama3.2:3b,qwen3:8b",
        "foreman simulate --misbehave reset",
        """foreman simulate --misbehave '{"what": "stall", "at_line": 3, "times": 0}'""",
    ],
)
@click.option(
    "--listen",
    type=ParsedParam("ADDRESS", listen_address.endpoint_description),
    default="127.0.0.1:11434",
    help="Where to listen: host:port, or a Twisted endpoint description.",
)
@click.option("--rate", type=click.FloatRange(min=0), default=30, help="Tokens per second; 0: all at once.")
@click.option(
    "--load-time", type=ParsedParam("DURATION", seconds), default="2s", help="How long loading a model takes."
)
@click.option(
    "--prompt-time",
    type=ParsedParam("DURATION", seconds),
    default="0s",
    help="How long a loaded model takes until its first token.",
)
@click.option(
    "--keep-alive", type=ParsedParam("DURATION", seconds), default="5m", help="How long a model stays loaded."
)
@click.option("--max-loaded", type=click.IntRange(min=1), default=3, help="How many models stay loaded at once.")
@click.option(
    "--models",
    type=ParsedParam("NAMES", _names),
    default=",".join(FRIENDLY),
    help="The installed models, separated by commas.",
)
@click.option(
    "--version",
    type=ParsedParam("VERSION", _version),
    default=Settings().version,
    help="The version of Ollama to simulate: up to 0.33 like 0.33.0, from 0.34 on like 0.34.4.",
)
@click.option(
    "--misbehave",
    type=ParsedParam("WORD-OR-JSON", parse),
    multiple=True,
    envvar="SIMULATOR_MISBEHAVE",
    show_envvar=True,
    help="A fault in the next answer; may be repeated. JSON as in the header Simulator-Misbehave: an object with what,"
    " at_byte, at_line, times (0: always), route, status, text, size, pace, or a list of objects.",
)
def command(*, listen: str, misbehave: tuple[tuple[Fault, ...], ...], **options: Any) -> None:
    """Run a simulated Ollama server in the foreground. It serves every route, and takes time to load models and to answer."""
    settings = Settings(misbehave=tuple(fault for faults in misbehave for fault in faults), **options)
    choose_reactor()
    from twisted.internet import reactor

    from foreman.simulator.main import run

    raise SystemExit(run(settings, reactor, listen, try_echo))


# A \b keeps click from rewrapping the lines below it.
command.help = f"{command.help}\n\n\b\nFaults:\n" + "\n".join(
    f"  {kind:<16} {text}" for kind, text in DESCRIPTIONS.items()
)
