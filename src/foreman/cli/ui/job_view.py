"""Output about jobs: the list, the details of one job, its events, its artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from foreman.cli.ui.console import Column, human_size, objects, plain, print_table, table
from foreman.cli.ui.job_text import (
    STATE_STYLES,
    attempts,
    error_text,
    note,
    seconds_since,
    short_duration,
    short_id,
    timing,
)
from foreman.cli.ui.ps_view import SHORT_ID_LENGTH
from foreman.cli.ui.times import from_rfc3339, local

_LIST = (
    Column("ID"),
    Column("STATE"),
    Column("MODEL", shrinks=True),
    Column("ENDPOINT", shrinks=True),
    Column("AGE", "right"),
    Column("TIME"),
    Column("ATTEMPT", "right"),
    Column("OWNER", shrinks=True),
    Column("NOTE", shrinks=True),
)
_ARTIFACTS = (
    Column("NAME", wraps=True),
    Column("TYPE", shrinks=True),
    Column("SIZE", "right"),
    Column("AGE", "right"),
    Column("SHA-256", shrinks=True),
)
#: From this width on, endpoints are shown as full paths, in columns.
_WIDE = 100
#: In a narrower terminal, a longer note goes on a line of its own, in characters.
_SHORT_NOTE = 12
#: The fields of a job in the order of ``foreman jobs show``, with their labels.
_FIELDS = {
    "endpoint": "endpoint",
    "model": "model",
    "owner": "owner",
    "priority": "priority",
    "idempotency_key": "key",
    "created_at": "submitted",
    "run_at": "not before",
    "deadline": "deadline",
    "started_at": "started",
    "finished_at": "ended",
}
_USAGE = {"prompt_tokens": "tokens in", "completion_tokens": "tokens out"}
_TIMES = {"load_ms": "loading", "total_ms": "total"}


def show_list(jobs: Sequence[Mapping[str, Any]], console: Console, now: datetime) -> None:
    """Print a table of ``jobs``, in their order.

    :param now: the time from which ages are counted, with a time zone.
    """
    narrow = console.width < _WIDE
    notes = [note(job) for job in jobs]
    notes_below = narrow and any(len(text) > _SHORT_NOTE for text in notes)
    several_owners = len({job.get("owner") for job in jobs}) > 1
    rows = []
    for job, text in zip(jobs, notes, strict=True):
        created = seconds_since(job.get("created_at"), now)
        row: list[str | Text] = [
            short_id(job),
            state(job.get("state")),
            _cut(plain(job.get("model"))),
            _cut(_short(plain(job.get("endpoint"))) if narrow else plain(job.get("endpoint"))),
            "" if created is None else short_duration(created),
            timing(job, now),
            attempts(job),
            _cut(plain(job.get("owner")) if several_owners else ""),
            "" if notes_below else _cut(text),
        ]
        rows.append(row)
    print_table(console, table(_LIST, rows), notes if notes_below else (), SHORT_ID_LENGTH + 2)


def show_job(job: Mapping[str, Any], console: Console, now: datetime) -> None:
    """Print every field of a job.

    :param now: the time from which ages are counted, with a time zone.
    """
    parts = [part for part in (timing(job, now), _place(job)) if part]
    _line(console, plain(job.get("id")), Text.assemble(state(job.get("state")), *(f", {part}" for part in parts)))
    for name, label in _FIELDS.items():
        if name == "run_at" and job.get("state") != "scheduled":
            continue
        value = job.get(name)
        if value is not None:
            _line(console, label, Text(_moment(value, now) if name.endswith(("_at", "deadline")) else plain(value)))
    _line(console, "attempts", Text(f"{plain(job.get('attempt'))} of {plain(job.get('max_attempts'))}"))
    if error := error_text(job):
        attempt = job["error"].get("attempt")
        _line(console, "error", Text(error + (f" (attempt {plain(attempt)})" if attempt else ""), style="red"))
    metadata, usage = job.get("metadata"), job.get("usage")
    for name, value in (metadata if isinstance(metadata, Mapping) else {}).items():
        _line(console, "metadata", Text(f"{plain(name)}={plain(value)}"))
    if isinstance(usage, Mapping) and (used := _used(usage)):
        _line(console, "usage", Text(used))
    for artifact in objects(job.get("artifacts")):
        size = human_size(artifact.get("bytes"))
        _line(console, "artifact", Text(f"{plain(artifact.get('name'))}, {plain(artifact.get('type'))}, {size}"))


def show_artifacts(artifacts: Sequence[Mapping[str, Any]], console: Console, now: datetime) -> None:
    """Print a table of the artifacts of a job."""
    rows: list[list[str | Text]] = []
    for artifact in artifacts:
        created = seconds_since(artifact.get("created_at"), now)
        values = plain(artifact.get("name")), plain(artifact.get("type"))
        age = "" if created is None else short_duration(created)
        digest = Text(plain(artifact.get("sha256"))[:16], style="dim")
        rows.append([*map(Text, values), human_size(artifact.get("bytes")), age, digest])
    console.print(table(_ARTIFACTS, rows))


def event_line(event: Mapping[str, Any]) -> Text:
    """One event of a job, in one line."""
    moment = from_rfc3339(event.get("at"))
    at = plain(event.get("at")) if moment is None else f"{local(moment):%Y-%m-%d %H:%M:%S}"
    kind = plain(event.get("type"))
    line = Text.assemble((at, "dim"), "  ", (f"{kind:9}", STATE_STYLES.get(kind, "")))
    if event.get("attempt"):
        line.append(f"  attempt {plain(event['attempt'])}")
    if error := error_text(event):
        line.append(f"  {error}")
    return line


def state(value: object) -> Text:
    """The name of a state in its colour."""
    return Text(plain(value), style=STATE_STYLES.get(str(value), ""))


def _cut(text: str) -> Text:
    """A cell that is truncated instead of wrapped."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _short(path: str) -> str:
    """A short name of an endpoint: ``chat``, ``v1/chat``, ``embed``."""
    return path.removeprefix("/").removeprefix("api/").replace("chat/completions", "chat")


def _line(console: Console, name: str, value: Text) -> None:
    console.print(Text.assemble((f"{name:12}  ", "bold"), value), soft_wrap=not console.is_terminal)


def _place(job: Mapping[str, Any]) -> str:
    return f"position {job['position']}" if isinstance(job.get("position"), int) else ""


def _moment(text: object, now: datetime) -> str:
    moment = from_rfc3339(text)
    if moment is None:
        return plain(text)
    ago = (now - moment).total_seconds()
    parts = f"{short_duration(ago)} ago" if ago >= 0 else f"in {short_duration(-ago)}"
    return f"{local(moment):%Y-%m-%d %H:%M:%S} ({parts})"


def _used(usage: Mapping[str, Any]) -> str:
    parts = [f"{json.dumps(usage[name])} {label}" for name, label in _USAGE.items() if _is_number(usage.get(name))]
    for name, label in _TIMES.items():
        if _is_number(usage.get(name)):
            parts.append(f"{short_duration(usage[name] / 1000)} {label}")
    return ", ".join(parts)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
