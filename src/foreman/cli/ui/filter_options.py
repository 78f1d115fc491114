"""The options that filter lists of jobs."""

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

#: The states of jobs, and two names for groups of them.
STATES = ("scheduled", "queued", "running", "succeeded", "failed", "discarded", "cancelled", "active", "ended")
#: The largest page that foreman returns, in jobs.
MAX_PAGE_SIZE = 200


@frozen
class JobFilters:
    """The filters of a list; None and empty ones match every job.

    :ivar limit: the most jobs to list, unless ``all_pages``.
    """

    states: tuple[tuple[str, ...], ...] = ()
    model: str | None = None
    owner: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    since: datetime | None = None
    before: datetime | None = None
    limit: int = 20
    all_pages: bool = False

    def path(self) -> str:
        """The path of the first page."""
        query: dict[str, str] = {}
        if self.states:
            query["state"] = ",".join(dict.fromkeys(state for states in self.states for state in states))
        filters = {
            "model": self.model,
            "owner": self.owner,
            "created_after": to_rfc3339(self.since) if self.since else None,
            "created_before": to_rfc3339(self.before) if self.before else None,
        }
        query |= {name: value for name, value in filters.items() if value is not None}
        query |= {f"metadata.{name}": value for name, value in self.metadata}
        query["limit"] = str(MAX_PAGE_SIZE if self.all_pages else min(self.limit, MAX_PAGE_SIZE))
        return f"/jobs?{urlencode(query)}"


def key_value(text: str) -> tuple[str, str]:
    """Parse ``KEY=VALUE``.

    :raises ValueError: with a phrase, as the parsers of ``config.parsers``.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("is not KEY=VALUE")
    return name, value


def filter_options(function: F) -> F:
    """Give a command the options that filter jobs, and those of every command that talks to foreman."""
    for option in reversed(_options()):
        function = option(function)
    return function


def _options() -> list[Callable[[Any], Any]]:
    past_time = ParsedParam("TIME", lambda text: parse_past(text, datetime.now().astimezone()))
    return [
        click.option(
            "--state",
            "states",
            type=StatesParam(),
            multiple=True,
            help="Only jobs in this state, or in several, separated by commas. active means scheduled, queued or running; "
            "ended means all other states.",
        ),
        click.option("--model", help="Only jobs for this model."),
        click.option("--owner", help="Only jobs of this owner; admins only."),
        click.option(
            "--meta",
            "metadata",
            metavar="KEY=VALUE",
            type=ParsedParam("KEY=VALUE", key_value),
            multiple=True,
            help="Only jobs with this metadata; may be repeated.",
        ),
        click.option("--since", type=past_time, help="Only jobs that were submitted after TIME."),
        click.option("--until", "before", type=past_time, help="Only jobs that were submitted before TIME."),
        click.option(
            "--limit",
            type=click.IntRange(1),
            default=20,
            show_default=True,
            metavar="N",
            help="List at most N jobs.",
        ),
        click.option("--all", "all_pages", is_flag=True, help="List all jobs, without a limit."),
        url_option,
        json_option,
    ]


class StatesParam(click.ParamType[tuple[str, ...]]):
    """States, separated by commas.

    :ivar known: the valid states.
    """

    name = "STATE"

    def __init__(self, known: Sequence[str] = STATES) -> None:
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if not isinstance(value, str):  # a default that is parsed already
            return tuple(value)
        states = tuple(word.strip().lower() for word in value.split(","))
        for word in states:
            if word not in self.known:
                self.fail(f"{word!r} is not a state; the states are {', '.join(self.known)}", param, ctx)
        return states

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem[Any]]:
        before, comma, word = incomplete.rpartition(",")
        items = [f"{before}{comma}{state}" for state in self.known if state.startswith(word)]
        return [click.shell_completion.CompletionItem(item) for item in items]
