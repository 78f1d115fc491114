"""Output for people: tables without borders, colour in a terminal, readable sizes and times."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TextIO

from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: The limits of the width, in columns.
_MIN_WIDTH, _MAX_WIDTH = 20, 1000
_FOREVER = 100 * 365 * 86400.0
_AGES = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@frozen
class Column:
    """One column of a table.

    :ivar shrinks: cells are truncated with an ellipsis if the terminal is too narrow; :ivar wraps: cells are wrapped
        instead. All other columns keep their width.
    """

    name: str
    justify: Literal["left", "right"] = "left"
    shrinks: bool = False
    wraps: bool = False


def console() -> Console:
    """A console on standard output, with colours if it is a terminal (and NO_COLOR is not set)."""
    return Console(width=width_of(sys.stdout), highlight=False)


def width_of(stream: TextIO) -> int:
    """The width of the output in columns: from COLUMNS, or else of the terminal."""
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isdecimal() and len(chosen) < 10 and int(chosen):
        return min(max(int(chosen), _MIN_WIDTH), _MAX_WIDTH)
    if stream.isatty():
        return max(shutil.get_terminal_size().columns, _MIN_WIDTH)
    return 200  # a pipe has no width: nothing is truncated


def table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table of ``rows``, without the columns that are empty in every row."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    kept = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    for column in (columns[number] for number in kept):
        flexible = column.shrinks or column.wraps
        overflow: Literal["fold", "ellipsis"] = "fold" if column.wraps else "ellipsis"
        result.add_column(column.name, justify=column.justify, no_wrap=not flexible, overflow=overflow)
    for row in rows:
        result.add_row(*(row[number] for number in kept))
    return result


def print_table(console: Console, result: Table, below: Sequence[str], indent: int) -> None:
    """Print a table in which no column wraps, so that each row is one line.

    :param below: for each row a text to print on a separate line below it, after ``indent`` blanks; empty for none.
    """
    if not below:
        console.print(result)
        return
    for line, text in zip(console.render_lines(result, pad=False), ["", *below], strict=True):
        console.print(Text.assemble(*((part.text, part.style or "") for part in line)), no_wrap=True, crop=False)
        if text:
            console.print(Text(f"{'':{indent}}{text}", style="dim"), no_wrap=True, overflow="ellipsis")


def plain(value: object) -> str:
    """One line of text without control characters: a caller could put escape codes into the name of a model."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects in a JSON list; all other items are left out."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


#: A longer duration is not printed, in seconds.
_MAX_DURATION = 1e12


def human_size(count: object) -> str:
    """Bytes as Ollama's own ``ps`` shows them: decimal, from ten on truncated to a whole number; empty if it is not a size."""
    if not isinstance(count, int) or count.bit_length() > 64:
        return ""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{int(value)} {unit}" if value >= 10 or value.is_integer() else f"{value:.1f} {unit}"


def processor(size: object, in_gpu: object) -> str:
    """Where a model is loaded, in the form of Ollama's own ``ps``; empty if the sizes are not numbers."""
    if not isinstance(size, int) or not isinstance(in_gpu, int):
        return ""
    if in_gpu <= 0:
        return "100% CPU"
    if in_gpu >= size:
        return "100% GPU"
    on_cpu = round((size - in_gpu) / size * 100)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def duration(seconds: object) -> str:
    """A duration: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``; empty if it is not a number."""
    if not isinstance(seconds, int | float) or not abs(seconds) < _MAX_DURATION:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def duration_range(low: object, high: object) -> str:
    """A range of seconds, roughly: ``5-20 s``, ``1-3 min``, ``about 40 s``; empty if they are not numbers."""
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return ""
    size, unit = (1, "s") if high < 100 else (60, "min") if high < 6000 else (3600, "h")
    least, most = round(low / size), round(high / size)
    return f"about {most} {unit}" if least == most else f"{least}-{most} {unit}"


def expiry(expires_at: str, now: datetime) -> str:
    """When a model is unloaded, in the form of Ollama's own ``ps``."""
    try:
        remaining = (datetime.fromisoformat(expires_at) - now).total_seconds()
    except (ValueError, TypeError):
        return ""
    if remaining > _FOREVER:
        return "forever"
    if remaining <= 0:
        return "stopping"
    size, name = next(((size, name) for size, name in _AGES if remaining >= size), (1.0, "second"))
    number = max(round(remaining / size), 1)
    return f"in {number} {name}{'' if number == 1 else 's'}"
