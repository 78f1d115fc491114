"""How ``foreman ps`` looks: tables for people, in colour where there is a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FOREVER = 100 * 365 * 86400.0
_AGES = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


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
    running, waiting = _objects(seen.queue.get("running")), _objects(seen.queue.get("waiting"))
    embedding = seen.queue.get("embedding")
    embedding = embedding if isinstance(embedding, Mapping) else {}
    console.print(
        Text.assemble(
            (_plain(seen.url), "bold"),
            f"  {len(running)} of {_plain(seen.queue.get('turns'))} turns taken, {len(waiting)} waiting, "
            f"{_plain(embedding.get('running'))} of {_plain(embedding.get('cap'))} embeddings",
        ),
        soft_wrap=True,
    )
    for sentence in _warnings(seen):
        console.print(Text(sentence, style="bold yellow"), soft_wrap=True)
    if running or waiting:
        console.print()
        console.print(_callers(running, waiting))
    console.print()
    console.print(_loaded(seen.models, now))


def _warnings(seen: Seen) -> list[str]:
    health = seen.health
    since = f" since {_plain(health['since'])}" if health.get("since") else ""
    reason = f" ({_plain(health['reason'])})" if health.get("reason") else ""
    found = []
    if health.get("status") != "ok":
        found.append(f"foreman is {_plain(health.get('status'))} and takes nothing new")
    if health.get("degraded"):
        found.append(f"the target cannot be reached{since}{reason}; what is loaded is what was last known")
    elif reason:
        found.append(f"not all is well{since}{reason}")
    return found


def _callers(running: Sequence[Mapping[str, Any]], waiting: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(
        ("", "right"), ("CALLER", "left"), ("MODEL", "left"), ("ROUTE", "left"), ("STATE", "left"), ("FOR", "right")
    )
    for row in running:
        state = _plain(row.get("state"))
        table.add_row("▶", *_who(row), Text(state, style="green" if state == "answering" else "yellow"), _for(row))
    for row in waiting:
        table.add_row(_plain(row.get("position")), *_who(row), Text("waiting", style="dim"), _for(row))
    return table


def _who(row: Mapping[str, Any]) -> tuple[Text, Text, Text]:
    return Text(_plain(row.get("caller"))), Text(_plain(row.get("model"))), Text(_plain(row.get("route")))


def _for(row: Mapping[str, Any]) -> str:
    seconds = row.get("seconds")
    return duration(float(seconds)) if isinstance(seconds, int | float) else ""


def _loaded(models: Sequence[Any] | None, now: datetime) -> Table | Text:
    if models is None:
        return Text("what is loaded is not known yet", style="yellow")
    if not models:
        return Text("no model is loaded", style="dim")
    table = _table(
        ("LOADED", "left"), ("SIZE", "right"), ("PROCESSOR", "left"), ("CONTEXT", "right"), ("UNTIL", "left")
    )
    for model in _objects(models):
        size, in_gpu = model.get("size"), model.get("size_vram")
        table.add_row(
            Text(_plain(model.get("name"))),
            human_size(size) if isinstance(size, int) else "",
            processor(size, in_gpu) if isinstance(size, int) and isinstance(in_gpu, int) else "",
            _plain(model.get("context_length")),
            until(_plain(model.get("expires_at")), now),
        )
    return table


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        # Rich narrows what may wrap before what may not; a long word is then cut, with an ellipsis.
        may_shrink = name in {"CALLER", "MODEL", "ROUTE", "LOADED"}
        table.add_column(name, justify=justify, no_wrap=not may_shrink, overflow="ellipsis")
    return table


def human_size(count: int) -> str:
    """Bytes as Ollama's own ``ps`` shows them: decimal, from ten on cut to a whole number."""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{int(value)} {unit}" if value >= 10 or value.is_integer() else f"{value:.1f} {unit}"


def processor(size: int, in_gpu: int) -> str:
    """Where a model is, as Ollama's own ``ps`` says it."""
    if in_gpu <= 0:
        return "100% CPU"
    if in_gpu >= size:
        return "100% GPU"
    on_cpu = round((size - in_gpu) / size * 100)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def duration(seconds: float) -> str:
    """How long something has lasted: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def until(expires_at: str, now: datetime) -> str:
    """When a model goes, as Ollama's own ``ps`` says it."""
    try:
        left = (datetime.fromisoformat(expires_at) - now).total_seconds()
    except (ValueError, TypeError):
        return ""
    if left > _FOREVER:
        return "forever"
    if left <= 0:
        return "stopping"
    size, name = next(((size, name) for size, name in _AGES if left >= size), (1.0, "second"))
    number = max(round(left / size), 1)
    return f"in {number} {name}{'' if number == 1 else 's'}"


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


def _plain(value: object) -> str:
    """Text that a terminal only prints: a caller chooses the name of a model, and could choose escape codes."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
