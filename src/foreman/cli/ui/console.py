"""How the commands look: tables without borders, colour where there is a terminal, sizes and times as people say them."""

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

#: Narrower than this nothing can be read, and wider than this no terminal is; in columns.
_MIN_WIDTH, _MAX_WIDTH = 20, 1000
_FOREVER = 100 * 365 * 86400.0
_AGES = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


@frozen
class Column:
    """One column of a table.

    :ivar shrinks: it is cut, with an ellipsis, where the terminal is too narrow; :ivar wraps: it goes on in the next line
        instead. The others keep their width.
    """

    name: str
    justify: Literal["left", "right"] = "left"
    shrinks: bool = False
    wraps: bool = False


def console() -> Console:
    """Where people read: colours and the width of the terminal, if it is one (and NO_COLOR is not set)."""
    return Console(width=width_of(sys.stdout), highlight=False)


def width_of(stream: TextIO) -> int:
    """How many columns there are: as COLUMNS says, or as the terminal does."""
    chosen = os.environ.get("COLUMNS", "")
    if chosen.isdecimal() and len(chosen) < 10 and int(chosen):
        return min(max(int(chosen), _MIN_WIDTH), _MAX_WIDTH)
    if stream.isatty():
        return max(shutil.get_terminal_size().columns, _MIN_WIDTH)
    return 200  # a pipe has no width: nothing needs to be cut to fit it


def table(columns: Sequence[Column], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A table of ``rows``; a column in which no row has anything is left out."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    kept = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    for column in (columns[number] for number in kept):
        flexible = column.shrinks or column.wraps
        overflow: Literal["fold", "ellipsis"] = "fold" if column.wraps else "ellipsis"
        made.add_column(column.name, justify=column.justify, no_wrap=not flexible, overflow=overflow)
    for row in rows:
        made.add_row(*(row[number] for number in kept))
    return made


def print_table(console: Console, made: Table, below: Sequence[str], indent: int) -> None:
    """Print a table in which no column wraps, so that each row is one line.

    :param below: for each row what stands in a line of its own below it, after ``indent`` blanks; none for a plain table.
    """
    if not below:
        console.print(made)
        return
    for line, text in zip(console.render_lines(made, pad=False), ["", *below], strict=True):
        console.print(Text.assemble(*((part.text, part.style or "") for part in line)), no_wrap=True, crop=False)
        if text:
            console.print(Text(f"{'':{indent}}{text}", style="dim"), no_wrap=True, overflow="ellipsis")


def plain(value: object) -> str:
    """Text that a terminal only prints: a caller chooses the name of a model, and could choose escape codes."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list that came as JSON, whatever else is in it."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


#: What lasts longer is no duration, in seconds.
_MAX_DURATION = 1e12


def human_size(count: object) -> str:
    """Bytes as Ollama's own ``ps`` shows them: decimal, from ten on cut to a whole number; nothing for what is no size."""
    if not isinstance(count, int) or count.bit_length() > 64:
        return ""
    value, unit = float(count), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{int(value)} {unit}" if value >= 10 or value.is_integer() else f"{value:.1f} {unit}"


def processor(size: object, in_gpu: object) -> str:
    """Where a model is, as Ollama's own ``ps`` says it; nothing for what are no sizes."""
    if not isinstance(size, int) or not isinstance(in_gpu, int):
        return ""
    if in_gpu <= 0:
        return "100% CPU"
    if in_gpu >= size:
        return "100% GPU"
    on_cpu = round((size - in_gpu) / size * 100)
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


def duration(seconds: object) -> str:
    """How long something has lasted: ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``; nothing for what is no number."""
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
    """A range of seconds, roughly: ``5-20 s``, ``1-3 min``, ``about 40 s``; nothing for what are no numbers."""
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return ""
    size, unit = (1, "s") if high < 100 else (60, "min") if high < 6000 else (3600, "h")
    least, most = round(low / size), round(high / size)
    return f"about {most} {unit}" if least == most else f"{least}-{most} {unit}"


def expiry(expires_at: str, now: datetime) -> str:
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
