"""Short texts about a job, and the text of its answer."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from foreman.cli.ui.console import objects, plain
from foreman.cli.ui.ps_view import SHORT_ID_LENGTH
from foreman.cli.ui.times import from_rfc3339

STATE_STYLES = {
    "scheduled": "cyan",
    "queued": "yellow",
    "running": "bold green",
    "succeeded": "green",
    "failed": "red",
    "discarded": "red",
    "cancelled": "dim",
}
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
#: The characters that join letters and emoji; str.isprintable() is false for them.
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def short_id(job: Mapping[str, Any]) -> str:
    """The end of the id of ``job``, as lists show it."""
    return plain(job.get("id"))[-SHORT_ID_LENGTH:]


def short_duration(seconds: float) -> str:
    """A duration in one unit: ``3.2 s``, ``4 min``, ``2 h``, ``5 d``."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(seconds, 0.0):.1f} s" if seconds < 10 else f"{int(seconds)} s"


def seconds_since(text: object, now: datetime) -> float | None:
    """The seconds since a time in RFC 3339, negative for one in the future; None if ``text`` is not a time."""
    moment = from_rfc3339(text)
    return None if moment is None else (now - moment).total_seconds()


def timing(job: Mapping[str, Any], now: datetime) -> str:
    """How long a job has waited, has been running or ran, or when it is due."""
    state = job.get("state")
    created, started, finished, planned = (
        seconds_since(job.get(name), now) for name in ("created_at", "started_at", "finished_at", "run_at")
    )
    if state == "scheduled" and planned is not None:
        return f"in {short_duration(-planned)}"
    if state == "queued":
        waited = planned if planned is not None else created
        return "" if waited is None else f"for {short_duration(waited)}"
    if started is None or state == "scheduled":
        return ""
    if state == "running":
        return f"for {short_duration(started)}"
    return "" if finished is None else f"ran {short_duration(started - finished)}"


def attempts(job: Mapping[str, Any]) -> str:
    """Which attempt of how many, from the second on, or from the first that failed."""
    attempt = job.get("attempt")
    if not isinstance(attempt, int) or attempt < (1 if job.get("error") else 2):
        return ""
    return f"{attempt}/{plain(job.get('max_attempts'))}"


def note(job: Mapping[str, Any]) -> str:
    """The position in the queue, the error and the metadata of a job."""
    if "unreadable" in job:
        return plain(job["unreadable"])
    parts = []
    if isinstance(job.get("position"), int):
        parts.append(f"position {job['position']}")
    if job.get("state") != "succeeded" and (wrong := error_text(job)):
        parts.append(wrong)
    metadata = job.get("metadata")
    if isinstance(metadata, Mapping) and metadata:
        parts.append(" ".join(f"{plain(name)}={plain(value)}" for name, value in metadata.items()))
    return "; ".join(parts)


def error_text(job: Mapping[str, Any]) -> str:
    """The error of a job or of an event; empty if it has none."""
    error = job.get("error")
    if not isinstance(error, Mapping):
        return ""
    return ": ".join(plain(error[name]) for name in ("class", "message") if error.get(name))


def summary(job: Mapping[str, Any], now: datetime) -> str:
    """The state of a job in one line: ``1XES2H succeeded, ran 3.2 s``."""
    parts = [f"{short_id(job)} {_VERBS.get(plain(job.get('state')), '')}{plain(job.get('state'))}", timing(job, now)]
    if isinstance(job.get("position"), int):
        parts.insert(1, f"position {job['position']}")
    if job.get("state") != "succeeded":
        parts.append(error_text(job))
    return ", ".join(filter(None, parts))


_VERBS = {"scheduled": "is ", "queued": "is ", "running": "is ", "discarded": "was ", "cancelled": "was "}


def answer_text(answer: object) -> str | None:
    """The text of an answer in the shape of any family; None if it has no text."""
    if not isinstance(answer, Mapping):
        return None
    message = answer.get("message")
    if isinstance(message, Mapping):
        return _join_texts([message.get("content")])
    if isinstance(answer.get("response"), str):
        return _join_texts([answer["response"]])
    if isinstance(answer.get("choices"), list):
        choices = objects(answer["choices"])
        return _join_texts(
            [(objects([choice.get("message")]) or [{}])[0].get("content") or choice.get("text") for choice in choices]
        )
    if isinstance(answer.get("output"), list):
        contents = [objects(item.get("content")) for item in objects(answer["output"])]
        return _join_texts(
            [part.get("text") for parts in contents for part in parts if part.get("type") == "output_text"]
        )
    if isinstance(answer.get("content"), list):
        return _join_texts([part.get("text") for part in objects(answer["content"]) if part.get("type") == "text"])
    return None


def chunk_text(line: object) -> tuple[str, str]:
    """The thinking and the text in one chunk of a stream of Ollama."""
    if not isinstance(line, Mapping):
        return "", ""
    message = line.get("message")
    if isinstance(message, Mapping):
        return _text(message.get("thinking")), _text(message.get("content"))
    return _text(line.get("thinking")), _text(line.get("response"))


def embeddings_summary(answer: object) -> str | None:
    """The number of embeddings in an answer, as text; None if it has none."""
    if not isinstance(answer, Mapping):
        return None
    rows: object = answer.get("embeddings")
    if isinstance(answer.get("embedding"), list):
        rows = [answer["embedding"]]
    elif isinstance(answer.get("data"), list):
        rows = [row.get("embedding") for row in objects(answer["data"])]
    if not isinstance(rows, Sequence) or not rows or not isinstance(rows[0], Sequence):
        return None
    number = "1 embedding" if len(rows) == 1 else f"{len(rows)} embeddings"
    return number if isinstance(rows[0], str) else f"{number} of {len(rows[0])} numbers"


def printable(text: str) -> str:
    """Text of several lines without control characters: the output of a model could hold escape codes."""
    return "".join(
        character
        if character.isprintable() or character in "\n\t" + _JOINERS or unicodedata.category(character) == "Zs"
        else "\N{REPLACEMENT CHARACTER}"
        for character in text.replace("\r\n", "\n")
    )


def with_newline(words: str) -> str:
    """The text with a newline at its end."""
    return words if words.endswith("\n") else f"{words}\n"


def encode_utf8(words: str) -> bytes:
    """The text in UTF-8; a lone surrogate, which JSON can escape, becomes a replacement character."""
    whole = words.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.encode("utf-8")


def stdout_is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def _join_texts(parts: Sequence[object]) -> str | None:
    return "\n".join(part for part in parts if isinstance(part, str) and part) or None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
