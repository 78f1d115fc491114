"""Commands whose help has examples, and says what each exit status means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

#: What every command can end with. A wrong option is click's own 2.
WELL, FAILED, MISUSED = 0, 1, 2
#: What the commands that ask a running foreman end with besides: it wants another token; something else answers there;
#: it knows no such thing.
NOT_ALLOWED, NOT_FOREMAN, NOT_FOUND = 3, 4, 5

#: For the commands that ask a running foreman.
ASKING_ENDS = {
    WELL: "done",
    FAILED: "foreman does not answer, or cannot",
    MISUSED: "the command was written wrongly",
    NOT_ALLOWED: "foreman wants another token",
    NOT_FOREMAN: "what answers there is not foreman",
}


class Explained(click.Command):
    """A command with examples.

    :ivar examples: lines as they are typed; :ivar ends: what each exit status means.
    """

    def __init__(
        self, *args: Any, examples: Sequence[str] = (), ends: Mapping[int, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        self.ends = dict(ends or {})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both below the options."""
        write_examples(formatter, self.examples)
        if self.ends:
            with formatter.section("Exit status"):
                formatter.write_dl([(str(status), meaning) for status, meaning in self.ends.items()])


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write lines to be copied: as they are, since a line that is broken anew would not work."""
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
