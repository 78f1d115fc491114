"""Commands whose help text has examples and a list of exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click


class HelpfulCommand(click.Command):
    """A command whose help text has examples and exit statuses.

    :ivar examples: command lines; :ivar exit_statuses: the meaning of each exit status.
    """

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), exit_statuses: Mapping[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.exit_statuses = dict(exit_statuses or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As in click, but arguments that are not UTF-8 are refused, except file names.

        Python keeps such bytes as lone surrogates, which JSON and HTTP cannot carry: they would arrive as ``?``.
        """
        rest = super().parse_args(ctx, args)
        for parameter in self.params:
            if parameter.name in ctx.params and not isinstance(parameter.type, click.Path):
                try:
                    ctx.params[parameter.name] = _as_utf8(ctx.params[parameter.name])
                except UnicodeError:
                    raise click.BadParameter("is not UTF-8", ctx, parameter) from None
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit statuses below the options."""
        write_examples(formatter, self.examples)
        if self.exit_statuses:
            with formatter.section("Exit status"):
                formatter.write_dl([(str(status), meaning) for status, meaning in self.exit_statuses.items()])


def _as_utf8(value: Any) -> Any:
    """The value of a parameter with its text decoded from UTF-8.

    :raises UnicodeError: if it is not UTF-8.
    """
    match value:
        case str():
            if sys.getfilesystemencoding() == "ascii":  # Python has kept every byte above 127 as a lone surrogate
                return os.fsencode(value).decode("utf-8")
            value.encode("utf-8")
            return value
        case tuple() | list():
            return type(value)(_as_utf8(item) for item in value)
        case dict():
            return {_as_utf8(name): _as_utf8(item) for name, item in value.items()}
    return value


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write command lines unwrapped, so that they can be copied."""
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
