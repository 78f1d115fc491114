"""How ``foreman ps`` looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foreman.cli.ui.console import Column, between, duration, human_size, objects, plain, processor, table, until

#: How much of an id is shown, from its end: the beginning is the time, which neighbours share.
SHOWN_OF_ID = 6

_CALLERS = (
    Column("", "right"),
    Column("ID"),
    Column("CALLER", shrinks=True),
    Column("MODEL", shrinks=True),
    Column("ROUTE", shrinks=True),
    Column("STATE"),
    Column("FOR", "right"),
    Column("TURN IN", "right"),
    Column("JOB"),
)
_STORE = {
    "full": "the disk of the jobs is full: foreman takes none until there is room",
    "unwritable": "the store of the jobs cannot be written: foreman takes none",
    "broken": "the store of the jobs is damaged: foreman takes none",
}
_LOADED = (
    Column("LOADED", shrinks=True),
    Column("SIZE", "right"),
    Column("PROCESSOR"),
    Column("CONTEXT", "right"),
    Column("UNTIL"),
)


@frozen
class Seen:
    """What a foreman said of itself, as it said it.

    :ivar url: where it is; :ivar health: of ``/healthz``; :ivar queue: of ``/queue``;
    :ivar models: of ``/api/ps``, None where foreman does not know them yet.
    """

    url: str
    health: Mapping[str, Any]
    queue: Mapping[str, Any]
    models: Sequence[Any] | None


def show(seen: Seen, console: Console, now: datetime) -> None:
    """Print what was seen.

    :param now: against which expiry is told, with a time zone.
    """
    running, waiting = objects(seen.queue.get("running")), objects(seen.queue.get("waiting"))
    embedding = seen.queue.get("embedding")
    embedding = embedding if isinstance(embedding, Mapping) else {}
    console.print(
        Text.assemble(
            (plain(seen.url), "bold"),
            f"  {len(running)} of {plain(seen.queue.get('turns'))} turns taken, {len(waiting)} waiting, "
            f"{plain(embedding.get('running'))} of {plain(embedding.get('cap'))} embeddings",
        ),
        soft_wrap=not console.is_terminal,
    )
    for sentence in warnings(seen.health, models_known=seen.models is not None):
        console.print(Text(sentence, style="bold yellow"), soft_wrap=not console.is_terminal)
    if running or waiting:
        console.print()
        console.print(table(_CALLERS, [*map(_running, running), *map(_waiting, waiting)]))
    _show_jobs(seen.queue.get("jobs"), console)
    console.print()
    console.print(_loaded(seen.models, now))


def warnings(health: Mapping[str, Any], *, models_known: bool) -> list[str]:
    """What is not well, in sentences; ``models_known``: foreman has reached its target once."""
    since = f" since {plain(health['since'])}" if health.get("since") else ""
    reason = f" ({plain(health['reason'])})" if health.get("reason") else ""
    found = []
    if health.get("status") != "ok":
        found.append(f"foreman is {plain(health.get('status'))} and takes nothing new")
    if health.get("degraded"):
        known = "its models are the last that were known" if models_known else "its models are not known yet"
        found.append(f"the target cannot be reached{since}{reason}; {known}")
    elif reason:
        found.append(f"not all is well{since}{reason}")
    return found


def _show_jobs(jobs: object, console: Console) -> None:
    """Say how many there are; nothing where there are none, or foreman is one that knows none."""
    if not isinstance(jobs, Mapping):
        return
    store = jobs.get("store")
    counts = {
        "running": len(objects(jobs.get("running"))),
        "queued": jobs.get("queued"),
        "scheduled": jobs.get("scheduled"),
    }
    told = [f"{count} {name}" for name, count in counts.items() if isinstance(count, int) and count]
    if told:
        console.print(Text(f"jobs: {', '.join(told)}; see foreman jobs"), soft_wrap=not console.is_terminal)
    if store not in {"ok", "off", None}:
        sentence = _STORE.get(str(store), f"the store of the jobs is not well: {plain(store)}")
        console.print(Text(sentence, style="bold yellow"), soft_wrap=not console.is_terminal)


def _running(row: Mapping[str, Any]) -> list[str | Text]:
    state = plain(row.get("state"))
    usual = duration(row.get("usual_load"))
    lasted = duration(row.get("seconds")) + (f" of usually {usual}" if usual else "")
    if row.get("overtime") is True:
        lasted += ", longer than usual"
    job = plain(row.get("job"))[-SHOWN_OF_ID:]
    return ["▶", *_who(row), Text(state, style="green" if state == "answering" else "yellow"), lasted, "", job]


def _waiting(row: Mapping[str, Any]) -> list[str | Text]:
    estimate = row.get("estimate")
    wait = between(estimate.get("low"), estimate.get("high")) if isinstance(estimate, Mapping) else ""
    lasted = duration(row.get("seconds"))
    return [plain(row.get("position")), *_who(row), Text("waiting", style="dim"), lasted, wait, ""]


def _who(row: Mapping[str, Any]) -> list[Text]:
    values = (plain(row.get("id"))[-SHOWN_OF_ID:], row.get("caller"), row.get("model"), row.get("route"))
    return [Text(plain(value)) for value in values]


def _loaded(models: Sequence[Any] | None, now: datetime) -> Table | Text:
    if models is None:
        return Text("what is loaded is not known yet", style="yellow")
    if not models:
        return Text("no model is loaded", style="dim")
    rows: list[list[str | Text]] = [
        [
            Text(plain(model.get("name"))),
            human_size(model.get("size")),
            processor(model.get("size"), model.get("size_vram")),
            plain(model.get("context_length")),
            until(plain(model.get("expires_at")), now),
        ]
        for model in objects(models)
    ]
    return table(_LOADED, rows)
