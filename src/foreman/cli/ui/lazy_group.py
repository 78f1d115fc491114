"""Groups that know the names of their commands without importing them, which keeps help and completion fast."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


class SuggestingGroup(click.Group):
    """A group that suggests similar names for an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but the suggestions need no imports."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            ctx.fail(did_you_mean(args[0], known))
        return super().resolve_command(ctx, args)


class LazyGroup(SuggestingGroup):
    """A group of commands, each imported when it is used.

    :param package: their package: each is the ``command`` of the module of its name, with underscores for dashes.
    :param helps: the names in the order of the help text, each with its short help.
    :param modules: the module names of commands whose module has another name.
    """

    def __init__(
        self,
        *args: Any,
        package: str,
        helps: Mapping[str, str],
        modules: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.package = package
        self.helps = helps
        self.modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.helps)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.helps:
            return None
        module = self.modules.get(name, name.replace("-", "_"))
        command = import_module(f"{self.package}.{module}").command
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """As in click, but the short helps need no imports."""
        items = [CompletionItem(name, help=help_) for name, help_ in self.helps.items() if name.startswith(incomplete)]
        return items or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.helps.items()))


def did_you_mean(name: str, known: list[str]) -> str:
    """The message for an unknown command: similar names, or else all names."""
    from difflib import get_close_matches

    close = get_close_matches(name, known)
    return f"there is no command {name!r}; " + (
        f"did you mean {' or '.join(close)}?" if close else f"the commands are {', '.join(known)}"
    )
