"""The settings as options of a command, and what a command needs to begin with."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from foreman.config.parsers import unquoted
from foreman.config.settings import SETTINGS, Config, load
from foreman.errors import ConfigError, one_line

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
            self.fail(f"{one_line(repr(value))} {problem}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """A variable holds one value, blanks or not, also for an option that may be given several times."""
        return [rv]


class FromVariable(click.Option):
    """An option whose variable is read as every setting is: blanks and quotation marks around the value do not count."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The text of the variable, None where it says nothing; a usage error where it cannot be read."""
        text = super().resolve_envvar_value(ctx)
        try:
            return None if text is None else unquoted(text) or None
        except ValueError as problem:
            raise click.UsageError(f"{self.envvar}: {one_line(repr(text))} {problem}", ctx) from None


def setting_options(function: F) -> F:
    """Give a command one option for each setting that may stand in a command line."""
    for setting in reversed(SETTINGS):
        if not setting.secret:
            default = f"; {setting.default}" if setting.default else ""
            help_ = f"{setting.help[0].upper()}{setting.help[1:]}.  [{setting.variable}{default}]"
            function = click.option(f"--{setting.option}", setting.name, metavar="VALUE", help=help_)(function)
    return function


def absolute(path: Path) -> Path:
    """A path that was typed, from the root on; ``~`` is a home directory.

    :raises click.UsageError: if that, or the working directory, is not known.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise click.UsageError(f"{path} names a home directory that is not known; write the whole path") from None
    except OSError as problem:
        raise click.UsageError(f"{path}: the working directory is not known: {problem.strerror}") from None


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

    Whatever it raises passes; SystemExit, with 128 and the number of the signal, where one ended it before.
    """
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner

    found: list[T] = []
    failed: list[BaseException] = []
    reactors: list[Any] = []

    async def do(reactor: Any) -> None:
        reactors.append(reactor)
        try:
            found.append(await work(reactor))
        except BaseException as problem:  # noqa: BLE001 - raised again where no reactor runs
            failed.append(problem)

    # A command says what went wrong itself. Without an observer the log would go to standard error, with tracebacks.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=not sys.flags.dev_mode)
    with suppress(SystemExit):  # react always ends the process
        react(lambda reactor: Deferred.fromCoroutine(do(reactor)))
    if failed:
        raise failed[0]
    if not found:
        raise SystemExit(ended_by(reactors[0]))
    return found[0]


def ended_by(reactor: Any) -> int:
    """The status of a process whose reactor was stopped by a signal, as a shell counts it: 130 after ctrl-C."""
    return 128 + (getattr(reactor, "_exitSignal", None) or signal.SIGINT)


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
