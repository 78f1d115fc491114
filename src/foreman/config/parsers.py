"""Parsers for the values of settings: durations, sizes, counts, choices, lists and tokens.

Each takes the text of a setting (never empty, unless its docstring says so) and returns the value, or raises ``ValueError``
with a phrase that says what is expected, such as "is not a duration, such as 30s, 10m or 1h30m".
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from foreman.auth.tokens import Holder, parse_file
from foreman.errors import InvalidName
from foreman.protocol import model_names
from foreman.util.file_permissions import why_writable_by_others

T = TypeVar("T")


class Unreadable(ValueError):
    """A file cannot be read for a reason other than its content, which may be temporary."""


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_BARE_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
#: The longest duration, in seconds: longer than anybody waits, and short enough for every timer.
_LONGEST = 366 * 86400.0
_SHORTEST = 0.001

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)")
_FACTORS = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgt", start=1)
    for unit, base in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_LARGEST = 2**50

_WEB_ORIGIN = re.compile(r"(?i:https?)://(?:\[[0-9A-Fa-f:.*]+\]|[A-Za-z0-9._*-]+)(?::[0-9*]{1,6})?")
_OTHER_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[!-~]+")

_QUOTES = "\"'"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: The largest file that a setting may name, in bytes.
LARGEST_FILE = 1024 * 1024

_FLAGS = {
    word: value for value, words in ((True, "1 true yes on"), (False, "0 false no off")) for word in words.split()
}


def unquoted(text: str) -> str:
    """The text of a setting without surrounding white space and one pair of quotation marks around it; both may be empty.

    A shell removes quotation marks, but ``docker --env-file`` and other readers of files do not.

    :raises ValueError: for an unmatched quotation mark at either end, for control characters, and for bytes that are not
        UTF-8.
    """
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("is not UTF-8")  # Python keeps the bytes of such a variable as lone surrogates
    text = text.strip()
    if len(text) > 1 and text[0] in _QUOTES and text[0] == text[-1]:
        text = text[1:-1].strip()
    if text and (text[0] in _QUOTES or text[-1] in _QUOTES):
        raise ValueError("begins or ends with an unmatched quotation mark")
    if _CONTROL.search(text):
        raise ValueError("contains a line break or another control character")
    return text


def read_text(file: Path, *, again: bool = False) -> str:
    """The text of a file that a setting names.

    :param again: the file will be read again later, so that it must not be a pipe.
    :raises ValueError: with a phrase that says why it cannot be read; ``Unreadable`` where that may be temporary.
    """
    try:
        if again and not stat.S_ISREG(file.stat().st_mode):
            raise ValueError("cannot be read again when it changes, because it is not a regular file")
        with file.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except OSError as problem:
        raise Unreadable(f"cannot be read: {problem.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise ValueError(f"cannot be read: it is larger than {LARGEST_FILE} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("cannot be read: it is not UTF-8 text") from None


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


def positive_seconds(text: str) -> float:
    """A duration in seconds, at least a millisecond: a shorter timer would keep the reactor busy."""
    value = seconds(text)
    if value < _SHORTEST:
        raise ValueError("must be at least 1ms")
    return value


def size(text: str) -> int:
    """A size in bytes, at least 1: ``8MiB`` and ``8m`` are multiples of 1,024, ``8MB`` of 1,000; a bare number is bytes."""
    match = _SIZE.fullmatch(text.lower()) if text.isascii() else None
    if match is None or match[2] not in _FACTORS:
        raise ValueError("is not a size, such as 8MiB, 512k or 65536")
    value = float(match[1]) * _FACTORS[match[2]]
    if not 1 <= value <= _LARGEST:
        raise ValueError("must be between 1 byte and 1024 TiB")
    return int(value)


def count(text: str) -> int:
    """A whole number, at least 1."""
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
        raise ValueError("must be 1 or 0") from None


def log_format(text: str) -> str:
    """``text`` or ``json``."""
    if text not in {"text", "json"}:
        raise ValueError("must be text or json")
    return text


def log_level(text: str) -> str:
    """``info`` or ``debug``."""
    if text not in {"info", "debug"}:
        raise ValueError("must be info or debug")
    return text


def heartbeat_filler(text: str) -> str:
    """``space`` or ``object``."""
    if text not in {"space", "object"}:
        raise ValueError("must be space or object")
    return text


def model(text: str) -> str:
    """The name of a model, as it was written."""
    try:
        model_names.parse(text)
    except InvalidName:
        raise ValueError("is not a model name, such as nomic-embed-text or embeddinggemma:300m") from None
    return text


def path(text: str) -> Path:
    """The path of a file, which need not exist; ``~`` is a home directory."""
    try:
        file = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("names a home directory that is not known; write the whole path") from None
    try:
        file.absolute()
    except OSError:
        raise ValueError(
            "is a relative path, and the working directory no longer exists; write the whole path"
        ) from None
    return file


def token(text: str) -> str:
    """A token: visible ASCII characters only, so that any header can carry it (RFC 9110 section 5.5)."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("may only contain visible ASCII characters, no spaces and no line breaks")
    return text


def tokens_file(text: str) -> Path:
    """The path of a token file that can be read now, and again later."""
    file = path(text)
    read_tokens(file)
    return file


def read_tokens(file: Path) -> tuple[Holder, ...]:
    """The holders in a token file.

    :raises ValueError: when it cannot be read, or other users could write it: they could make themselves admins.
    """
    if (why := why_writable_by_others(file)) is not None:
        raise ValueError(f"cannot be trusted: {why}")
    return parse_file(read_text(file, again=True))


def host_names(text: str) -> tuple[str, ...]:
    """Host names separated by commas, in lower case; empty text is an empty list.

    :raises ValueError: for a name that no ``Host`` header can have.
    """
    hosts = tuple(_items(text))
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9._:\[\]*-]+", host) or host.count("*") > 1:
            raise ValueError(f"has {host!r}, which is not a host name")
    return tuple(host.lower() for host in hosts)


def origins(text: str) -> tuple[str, ...]:
    """Origins separated by commas, each with at most one ``*`` (contract 3); empty text is an empty list.

    :raises ValueError: for an origin that Ollama would refuse in ``OLLAMA_ORIGINS``, or that no browser sends (with a path).
    """
    found = tuple(_items(text))
    for origin in found:
        form = _WEB_ORIGIN if origin.lower().startswith(("http:", "https:")) else _OTHER_ORIGIN
        if origin != "*" and (not form.fullmatch(origin) or origin.count("*") > 1):
            raise ValueError(f"has {origin!r}, which is not an origin, such as https://chat.example.com or app://*")
    return found


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Like ``parse``, but None for empty text."""
    return lambda text: parse(text) if text else None


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
