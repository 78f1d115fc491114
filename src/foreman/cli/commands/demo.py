"""``foreman demo``: foreman in front of the built-in simulator, and the commands with which to try it."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
from attrs import evolve

from foreman.cli.reactor import choose_reactor
from foreman.cli.ui.help import HelpfulCommand
from foreman.cli.ui.setting_options import configure, setting_options
from foreman.cli.ui.standard_streams import try_echo
from foreman.config.listen_address import url_of
from foreman.config.settings import Config, state_folder
from foreman.config.target_address import TargetAddress

_MODEL = "llama3.2:3b"


@click.command(
    "demo",
    cls=HelpfulCommand,
    short_help="Try foreman with the built-in simulator.",
    examples=["foreman demo", "FOREMAN_TARGET_URL=http://127.0.0.1:11434 foreman demo"],
)
@setting_options
def command(**options: str | None) -> None:
    """Run foreman in front of the built-in simulator, or of FOREMAN_TARGET_URL if that is set, and print commands to try.

    The options are those of foreman serve. In front of the simulator, jobs are stored in foreman/demo.db in the XDG state
    directory unless --db-path is given. Ctrl-C stops foreman and the simulator.
    """
    config = configure(os.environ, options)
    simulated = not (options["target_url"] or os.environ.get("FOREMAN_TARGET_URL", "").strip())
    choose_reactor()
    from twisted.internet import reactor

    from foreman.tap import run

    if simulated:
        config = evolve(config, target=_simulator(reactor))
        if not (options["db_path"] or os.environ.get("FOREMAN_DB_PATH", "").strip()):
            # Jobs for the models of the simulator must not get into the database of the real foreman.
            config = evolve(config, db_path=state_folder(os.environ) / "demo.db")
    # run() listens before the reactor starts, so this is not printed if listening failed.
    reactor.callWhenRunning(lambda: try_echo(next_commands(config, simulated=simulated)))
    run(config)


def _simulator(reactor: Any) -> TargetAddress:
    """Start a simulator that runs as long as this process; return its address."""
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from foreman.simulator.engine.settings import FRIENDLY, Settings
    from foreman.simulator.main import listen

    # tap.py does the same, but only after the simulator has read its clock for the first time.
    reactor.seconds = time.monotonic
    settings = Settings(rate=30, load_time=2, models=FRIENDLY)
    outcome: list[Any] = []
    listening: Deferred[Any] = Deferred.fromCoroutine(listen(reactor, settings, "tcp:0:interface=127.0.0.1"))
    listening.addBoth(outcome.append)
    # Listening on TCP succeeds or fails at once.
    if isinstance(outcome[0], Failure):
        sys.exit(f"foreman: the simulator cannot listen: {outcome[0].getErrorMessage()}")
    _, port = outcome[0]
    return TargetAddress("http", "127.0.0.1", port.getHost().port)


def next_commands(config: Config, *, simulated: bool) -> str:
    """The commands to try next. They contain no token, only the name of the shell variable that holds it."""
    target = f"the built-in simulator ({config.target.masked_url})" if simulated else config.target.masked_url
    url = url_of(config.listen)
    if url is None:
        return f"\nforeman listens on {config.listen}, in front of {target}. Ctrl-C stops it.\n"
    variable, secret = _token(config)
    token, first = "", ""
    prefix: str | None = ""
    if variable:
        from foreman.auth.credentials import is_path_safe

        token = f' -H "Authorization: Bearer ${variable}"'
        first = f"\n  export {variable}=…     # the token that foreman requires\n"
        prefix = f"/k/${variable}" if secret is None or is_path_safe(secret) else None
    ollama = "" if prefix is None else f"  OLLAMA_HOST={url}{prefix} ollama run {_MODEL}\n"
    chat = f'{{"model": "{_MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"""
foreman is at {url}, in front of {target}. In another terminal:
{first}
  curl {url}/api/tags{token}
  curl {url}/api/chat{token} -d '{chat}'
{ollama}  FOREMAN_URL={url} {sys.argv[0]} ps
  FOREMAN_URL={url} {sys.argv[0]} submit --model {_MODEL} --wait "Write a poem"

Ctrl-C stops {"both" if simulated else "foreman"}.
"""


def _token(config: Config) -> tuple[str, str | None]:
    """The variable that holds the token for requests, empty if none is required; and the token, if it is known."""
    if config.auth_token:
        return "FOREMAN_AUTH_TOKEN", config.auth_token
    if config.admin_token:
        return "FOREMAN_TOKEN", config.admin_token
    return ("FOREMAN_TOKEN" if config.tokens_file is not None else ""), None
