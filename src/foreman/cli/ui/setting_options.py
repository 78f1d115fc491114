"""The settings as options of a command, and the types of other options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from foreman.config.parsers import unquoted
from foreman.config.settings import SETTINGS, Config, load
from foreman.errors import ConfigError, one_line

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


class ParsedParam(click.ParamType[object]):
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


class SettingVariableOption(click.Option):
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


def absolute_path(path: Path) -> Path:
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
