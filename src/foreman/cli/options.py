"""The settings as options of a command, and what a command needs to begin with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import click

from foreman.config import SETTINGS, Config, load
from foreman.errors import ConfigError

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


class Written(click.ParamType[object]):
    """An option's value that one of the settings' own readers understands.

    :param name: what help calls it; :param parse: raises ``ValueError`` with a phrase, as in ``spellings``.
    """

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Read the text; a usage error where that is impossible."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as problem:
            self.fail(f"{value!r} {problem}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """A variable holds one value, blanks or not, also for an option that may be given several times."""
        return [rv]


def setting_options(function: F) -> F:
    """Give a command one option for each setting that may stand in a command line."""
    for setting in reversed(SETTINGS):
        if not setting.secret:
            default = f"; {setting.default}" if setting.default else ""
            help_ = f"{setting.help[0].upper()}{setting.help[1:]}.  [{setting.variable}{default}]"
            function = click.option(f"--{setting.option}", setting.name, metavar="VALUE", help=help_)(function)
    return function


def configure(environ: Mapping[str, str], options: Mapping[str, str | None]) -> Config:
    """The settings; where they cannot be used, every problem on its own line and exit status 2."""
    try:
        return load(environ, options)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"foreman: {problem}", err=True)
        raise SystemExit(2) from None


def with_reactor(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run the reactor for as long as ``work``, which is given it, takes; what that returns.

    ``SystemExit`` passes; any other exception is logged and ends the process with 1.
    """
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    found: list[T] = []

    async def do(reactor: Any) -> None:
        found.append(await work(reactor))

    try:
        react(lambda reactor: Deferred.fromCoroutine(do(reactor)))
    except SystemExit as end:  # react always ends the process
        if end.code:
            raise
    return found[0]


def choose_reactor() -> None:
    """Install the reactor that holds the most connections here, before anything imports another one.

    The default of macOS is select, which ends at 1,024 descriptors.
    """
    if sys.platform == "linux":
        from twisted.internet.epollreactor import install
    elif sys.platform == "darwin" or "bsd" in sys.platform:
        from twisted.internet.kqreactor import install
    else:
        return
    install()
