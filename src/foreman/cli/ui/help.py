"""Commands whose help has examples, and says what each exit status means."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click


class HelpfulCommand(click.Command):
    """A command with examples.

    :ivar examples: lines as they are typed; :ivar exit_statuses: what each exit status means.
    """

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), exit_statuses: Mapping[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.exit_statuses = dict(exit_statuses or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but bytes that are no text are refused, except in the names of files.

        Python keeps such bytes as half surrogates, which JSON and HTTP cannot carry: they would arrive as ``?``.
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
        """Write both below the options."""
        write_examples(formatter, self.examples)
        if self.exit_statuses:
            with formatter.section("Exit status"):
                formatter.write_dl([(str(status), meaning) for status, meaning in self.exit_statuses.items()])


def _as_utf8(value: Any) -> Any:
    """A value with the text in it as it was meant.

    :raises UnicodeError: if there is something else than UTF-8 in it.
    """
    match value:
        case str():
            if sys.getfilesystemencoding() == "ascii":  # Python has kept every byte of UTF-8 as half a surrogate
                return os.fsencode(value).decode("utf-8")
            value.encode("utf-8")
            return value
        case tuple() | list():
            return type(value)(_as_utf8(item) for item in value)
        case dict():
            return {_as_utf8(name): _as_utf8(item) for name, item in value.items()}
    return value


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write lines to be copied: as they are, since a line that is broken anew would not work."""
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
