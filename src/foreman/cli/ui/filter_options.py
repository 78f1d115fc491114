"""Which jobs a list is to have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

import click
from attrs import frozen

from foreman.cli.ui.common_options import json_option, url_option
from foreman.cli.ui.setting_options import ParsedParam
from foreman.cli.ui.times import parse_past, to_rfc3339

F = TypeVar("F", bound=Callable[..., object])

#: States, and words for several of them.
STATES = ("scheduled", "queued", "running", "succeeded", "failed", "discarded", "cancelled", "active", "ended")
#: As many jobs as foreman puts into one page at the most.
MAX_PAGE_SIZE = 200


@frozen
class JobFilters:
    """What was asked for.

    :ivar limit: None for all there are.
    """

    states: tuple[tuple[str, ...], ...] = ()
    model: str | None = None
    owner: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    since: datetime | None = None
    before: datetime | None = None
    limit: int = 20
    everything: bool = False

    def path(self) -> str:
        """Where the first page is."""
        asked: dict[str, str] = {}
        if self.states:
            asked["state"] = ",".join(dict.fromkeys(state for states in self.states for state in states))
        named = {
            "model": self.model,
            "owner": self.owner,
            "created_after": to_rfc3339(self.since) if self.since else None,
            "created_before": to_rfc3339(self.before) if self.before else None,
        }
        asked |= {name: value for name, value in named.items() if value is not None}
        asked |= {f"metadata.{name}": value for name, value in self.metadata}
        asked["limit"] = str(MAX_PAGE_SIZE if self.everything else min(self.limit, MAX_PAGE_SIZE))
        return f"/jobs?{urlencode(asked)}"


def key_value(text: str) -> tuple[str, str]:
    """``KEY=VALUE``, as a name and what it has.

    :raises ValueError: with a phrase, as in ``spellings``.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("is not KEY=VALUE")
    return name, value


def filter_options(function: F) -> F:
    """Give a command the options that choose among jobs, and those of every command that asks."""
    for option in reversed(_options()):
        function = option(function)
    return function


def _options() -> list[Callable[[Any], Any]]:
    ago = ParsedParam("TIME", lambda text: parse_past(text, datetime.now().astimezone()))
    return [
        click.option(
            "--state",
            "states",
            type=StatesParam(),
            multiple=True,
            help="Only those in this state, or in several with commas; active is scheduled, queued and running, ended the "
            "others.",
        ),
        click.option("--model", help="Only those of this model."),
        click.option("--owner", help="Only those of this owner; for admins."),
        click.option(
            "--meta",
            "metadata",
            metavar="KEY=VALUE",
            type=ParsedParam("KEY=VALUE", key_value),
            multiple=True,
            help="Only those with this metadata; several times for several.",
        ),
        click.option("--since", type=ago, help="Only those that were handed over after this TIME."),
        click.option("--until", "before", type=ago, help="Only those that were handed over before this TIME."),
        click.option(
            "--limit",
            type=click.IntRange(1),
            default=20,
            show_default=True,
            metavar="N",
            help="So many at the most.",
        ),
        click.option("--all", "everything", is_flag=True, help="All there are, however many."),
        url_option,
        json_option,
    ]


class StatesParam(click.ParamType[tuple[str, ...]]):
    """States with commas between them.

    :ivar known: those that there are to choose from.
    """

    name = "STATE"

    def __init__(self, known: Sequence[str] = STATES) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if not isinstance(value, str):  # a default that was read before
            return tuple(value)
        found = tuple(word.strip().lower() for word in value.split(","))
        for word in found:
            if word not in self.known:
                self.fail(f"{word!r} is no state; there are {', '.join(self.known)}", param, ctx)
        return found

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem[Any]]:
        before, comma, word = incomplete.rpartition(",")
        items = [f"{before}{comma}{state}" for state in self.known if state.startswith(word)]
        return [click.shell_completion.CompletionItem(item) for item in items]
