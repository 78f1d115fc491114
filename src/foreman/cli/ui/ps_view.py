"""The output of ``foreman ps``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foreman.cli.ui.console import (
    Column,
    duration,
    duration_range,
    expiry,
    human_size,
    objects,
    plain,
    processor,
    table,
)

#: How many characters of an id are shown, from its end: ids begin with the time, so neighbours begin alike.
SHORT_ID_LENGTH = 6

_QUEUE_COLUMNS = (
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
_STORE_WARNINGS = {
    "full": "the disk is full: foreman accepts no jobs until there is space",
    "unwritable": "the job store cannot be written: foreman accepts no jobs",
    "broken": "the job store is damaged: foreman accepts no jobs",
}
_MODEL_COLUMNS = (
    Column("LOADED", shrinks=True),
    Column("SIZE", "right"),
    Column("PROCESSOR"),
    Column("CONTEXT", "right"),
    Column("UNTIL"),
)


@frozen
class Snapshot:
    """The state of a foreman, as it returned it.

    :ivar url: of foreman; :ivar health: from ``/healthz``; :ivar queue: from ``/queue``;
    :ivar models: from ``/api/ps``, None if foreman does not know them yet.
    """

    url: str
    health: Mapping[str, Any]
    queue: Mapping[str, Any]
    models: Sequence[Any] | None


def show(snapshot: Snapshot, console: Console, now: datetime) -> None:
    """Print a snapshot.

    :param now: the current time, with a time zone.
    """
    running, waiting = objects(snapshot.queue.get("running")), objects(snapshot.queue.get("waiting"))
    embedding = snapshot.queue.get("embedding")
    embedding = embedding if isinstance(embedding, Mapping) else {}
    console.print(
        Text.assemble(
            (plain(snapshot.url), "bold"),
            f"  {len(running)} of {plain(snapshot.queue.get('turns'))} turns in use, {len(waiting)} queued, "
            f"{plain(embedding.get('running'))} of {plain(embedding.get('cap'))} embeddings",
        ),
        soft_wrap=not console.is_terminal,
    )
    for sentence in warnings(snapshot.health, models_known=snapshot.models is not None):
        console.print(Text(sentence, style="bold yellow"), soft_wrap=not console.is_terminal)
    if running or waiting:
        console.print()
        console.print(table(_QUEUE_COLUMNS, [*map(_running_row, running), *map(_waiting_row, waiting)]))
    _show_jobs(snapshot.queue.get("jobs"), console)
    console.print()
    console.print(_loaded_models(snapshot.models, now))


def warnings(health: Mapping[str, Any], *, models_known: bool) -> list[str]:
    """Sentences about what is wrong; ``models_known``: foreman has reached its target at least once."""
    since = f" since {plain(health['since'])}" if health.get("since") else ""
    reason = f" ({plain(health['reason'])})" if health.get("reason") else ""
    sentences = []
    if health.get("status") != "ok":
        sentences.append(f"foreman is {plain(health.get('status'))} and accepts no new requests")
    if health.get("degraded"):
        known = "the models shown are the last known ones" if models_known else "its models are not known yet"
        sentences.append(f"the target cannot be reached{since}{reason}; {known}")
    elif reason:
        sentences.append(f"there {'has been' if since else 'is'} a problem{since}{reason}")
    return sentences


def _show_jobs(jobs: object, console: Console) -> None:
    """Print how many jobs there are; nothing if there are none, or foreman has no job store."""
    if not isinstance(jobs, Mapping):
        return
    store = jobs.get("store")
    counts = {
        "running": len(objects(jobs.get("running"))),
        "queued": jobs.get("queued"),
        "scheduled": jobs.get("scheduled"),
    }
    parts = [f"{count} {name}" for name, count in counts.items() if isinstance(count, int) and count]
    if parts:
        console.print(Text(f"jobs: {', '.join(parts)}; see foreman jobs"), soft_wrap=not console.is_terminal)
    if store not in {"ok", "off", None}:
        sentence = _STORE_WARNINGS.get(str(store), f"the job store has a problem: {plain(store)}")
        console.print(Text(sentence, style="bold yellow"), soft_wrap=not console.is_terminal)


def _running_row(row: Mapping[str, Any]) -> list[str | Text]:
    state = plain(row.get("state"))
    usual = duration(row.get("usual_load"))
    elapsed = duration(row.get("seconds")) + (f" (usually {usual})" if usual else "")
    if row.get("overtime") is True:
        elapsed += ", longer than usual"
    job = plain(row.get("job"))[-SHORT_ID_LENGTH:]
    return [
        "▶",
        *_request_cells(row),
        Text(state, style="green" if state == "answering" else "yellow"),
        elapsed,
        "",
        job,
    ]


def _waiting_row(row: Mapping[str, Any]) -> list[str | Text]:
    estimate = row.get("estimate")
    wait = duration_range(estimate.get("low"), estimate.get("high")) if isinstance(estimate, Mapping) else ""
    elapsed = duration(row.get("seconds"))
    return [plain(row.get("position")), *_request_cells(row), Text("queued", style="dim"), elapsed, wait, ""]


def _request_cells(row: Mapping[str, Any]) -> list[Text]:
    values = (plain(row.get("id"))[-SHORT_ID_LENGTH:], row.get("caller"), row.get("model"), row.get("route"))
    return [Text(plain(value)) for value in values]


def _loaded_models(models: Sequence[Any] | None, now: datetime) -> Table | Text:
    if models is None:
        return Text("the loaded models are not known yet", style="yellow")
    if not models:
        return Text("no model is loaded", style="dim")
    rows: list[list[str | Text]] = [
        [
            Text(plain(model.get("name"))),
            human_size(model.get("size")),
            processor(model.get("size"), model.get("size_vram")),
            plain(model.get("context_length")),
            expiry(plain(model.get("expires_at")), now),
        ]
        for model in objects(models)
    ]
    return table(_MODEL_COLUMNS, rows)
