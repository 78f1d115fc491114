"""Read what people write in a setting: durations, sizes, counts, choices, lists and tokens.

Every function takes the text (never empty, unless it says so) and returns the value, or raises ``ValueError`` with a
phrase that says what is expected, such as "is not a duration, such as 30s, 10m or 1h30m".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from foreman.tokens import read_file

T = TypeVar("T")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_BARE_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
#: Longer than anybody waits, short enough for every timer.
_LONGEST = 366 * 86400.0

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)")
_FACTORS = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", start=1)
    for unit, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_LARGEST = 2**50

_FLAGS = {
    word: value for value, words in ((True, "1 true yes on"), (False, "0 false no off")) for word in words.split()
}


def seconds(text: str) -> float:
    """A duration in seconds: ``30s``, ``1h30m``, ``250ms``, or a bare number of seconds."""
    if _BARE_NUMBER.fullmatch(text):
        value = float(text)
    elif _DURATION.fullmatch(text):
        value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError("is not a duration, such as 30s, 10m or 1h30m")
    if value > _LONGEST:
        raise ValueError("is longer than a year")
    return value


def some_seconds(text: str) -> float:
    """A duration in seconds that is not zero."""
    value = seconds(text)
    if value <= 0:
        raise ValueError("must be longer than 0")
    return value


def size(text: str) -> int:
    """A size in bytes, more than zero: ``8MiB`` and ``8m`` count by 1,024, ``8MB`` by 1,000; a bare number is bytes."""
    match = _SIZE.fullmatch(text.lower())
    if match is None or match[2] not in _FACTORS:
        raise ValueError("is not a size, such as 8MiB, 512k or 65536")
    value = float(match[1]) * _FACTORS[match[2]]
    if not 1 <= value <= _LARGEST:
        raise ValueError("must be between one byte and 1024 TiB")
    return int(value)


def count(text: str) -> int:
    """A whole number from one on."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("is not a whole number")
    if (value := int(text)) < 1:
        raise ValueError("must be at least 1")
    return value


def flag(text: str) -> bool:
    """Yes or no: ``1``, ``0``, ``true``, ``false``, ``yes``, ``no``, ``on``, ``off``."""
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError("is neither 1 nor 0") from None


def text_or_json(text: str) -> str:
    """One of the words ``text`` and ``json``."""
    if text not in {"text", "json"}:
        raise ValueError("is neither text nor json")
    return text


def space_or_object(text: str) -> str:
    """One of the fillers."""
    if text not in {"space", "object"}:
        raise ValueError("must be space or object")
    return text


def plain(text: str) -> str:
    """The text as it is."""
    return text


def path(text: str) -> Path:
    """The path of a file, which need not be there; ``~`` is a home directory."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("names a home directory that is not known; write the whole path") from None


def token(text: str) -> str:
    """A secret that fits into a header: visible ASCII characters only (RFC 9110 section 5.5 allows no more safely)."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("may only have visible ASCII characters, no spaces and no line breaks")
    return text


def tokens_file(text: str) -> Path:
    """The path of a file of named tokens that can be read now."""
    named = path(text)
    try:
        read_file(named.read_text("utf-8"))
    except OSError as problem:
        raise ValueError(f"cannot be read: {problem.strerror}") from None
    return named


def host_names(text: str) -> tuple[str, ...]:
    """Names with commas between them, in lower case; nothing is no names.

    :raises ValueError: for anything that no ``Host`` header can name.
    """
    names = tuple(name.lower() for name in _items(text))
    for name in names:
        if not re.fullmatch(r"[a-z0-9._:\[\]*-]+", name):
            raise ValueError(f"has {name!r}, which is not the name of a host")
    return names


def origins(text: str) -> tuple[str, ...]:
    """Origins with commas between them, each with at most one ``*`` (contract 3); nothing is no origins.

    :raises ValueError: for one that Ollama would refuse in ``OLLAMA_ORIGINS``.
    """
    found = tuple(_items(text))
    for origin in found:
        if origin != "*" and (not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", origin) or origin.count("*") > 1):
            raise ValueError(f"has {origin!r}, which is not an origin, such as https://chat.example.com or app://*")
    return found


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Like ``parse``, but empty text is None."""
    return lambda text: parse(text) if text else None


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
