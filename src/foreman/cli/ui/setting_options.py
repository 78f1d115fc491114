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
    """A parameter type that is defined by a parser.

    :param name: its name in help; :param parse: raises ``ValueError`` with a phrase, as those of ``config.parsers`` do.
    """

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Parse the text; a usage error if it cannot be parsed."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as problem:
            self.fail(f"{one_line(repr(value))} {problem}", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """A variable holds one value, also one with blanks, even for an option that may be repeated."""
        return [rv]


class SettingVariableOption(click.Option):
    """An option whose variable is read like a setting: surrounding blanks and quotation marks are removed."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """The value of the variable, None if it is empty; a usage error if it is invalid."""
        text = super().resolve_envvar_value(ctx)
        try:
            return None if text is None else unquoted(text) or None
        except ValueError as problem:
            raise click.UsageError(f"{self.envvar}: {one_line(repr(text))} {problem}", ctx) from None


def setting_options(function: F) -> F:
    """Give a command one option for each setting that is not a secret."""
    for setting in reversed(SETTINGS):
        if not setting.secret:
            default = f"; {setting.default}" if setting.default else ""
            help_ = f"{setting.help[0].upper()}{setting.help[1:]}.  [{setting.variable}{default}]"
            function = click.option(f"--{setting.option}", setting.name, metavar="VALUE", help=help_)(function)
    return function


def absolute_path(path: Path) -> Path:
    """The absolute form of a path; ``~`` is a home directory.

    :raises click.UsageError: if the home or the working directory is not known.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise click.UsageError(f"{path} names an unknown home directory; give an absolute path") from None
    except OSError as problem:
        raise click.UsageError(f"{path}: the working directory is not known: {problem.strerror}") from None


def configure(environ: Mapping[str, str], options: Mapping[str, str | None]) -> Config:
    """Load the settings; if they are invalid, print each problem on its own line and exit with status 2."""
    try:
        return load(environ, options)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"foreman: {problem}", err=True)
        raise SystemExit(2) from None
