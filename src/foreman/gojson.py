"""The members of a JSON object as Go's ``encoding/json`` finds them (contract 2.0).

Slower than a parser in C, and used where that one cannot be sure: keys match without regard to case, duplicates count,
bytes that are no UTF-8 and lone surrogates are taken, bytes after the first value are ignored, and a value that stops
too early is told from one that is wrong. Nothing is built of what is not wanted, and the work is bounded.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Collection

Body = bytes | memoryview | mmap.mmap

#: How many values and bytes are looked at before giving up, so that no body holds the process for long: up to 50 ms and
#: 150 ms.
MOST_STEPS = 50_000
MOST_BYTES = 32 * 1024 * 1024
#: How deep Go reads, less the object itself.
_DEEPEST = 9_999
#: No wanted key is longer in any spelling: ten letters, each written ``\uXXXX``, and two quotes.
_LONGEST_KEY = 62

_SPACE = rb"[ \t\r\n]*+"
_UNENDED = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\\x00-\x1f]*+)*+'
_STRING = _UNENDED + rb'"'
_INTEGER = rb"-?(?:0|[1-9][0-9]*+)"
_NUMBER = _INTEGER + rb"(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+(?![0-9.eE+-])"
_SCALAR = rb"(?:" + _STRING + rb"|" + _NUMBER + rb"|true|false|null)"

_BLANK = re.compile(_SPACE)
_VALUE = re.compile(_SPACE + rb"(?:([{])|([\[])|" + _SCALAR + rb")")
_FIRST_KEY = re.compile(_SPACE + rb"(?:(})|(" + _STRING + rb")" + _SPACE + rb":)")
_NEXT_KEY = re.compile(_SPACE + rb"(?:(})|," + _SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":)")
_NO_ITEM = re.compile(_SPACE + rb"]")
_NEXT_ITEM = re.compile(_SPACE + rb"(?:(])|,)")

# What may stand at the very end where one of these was due.
_PART_OF_STRING = _UNENDED + rb"(?:\\(?:u[0-9A-Fa-f]{0,3})?)?"
_PART_OF_NUMBER = rb"-|" + _INTEGER + rb"(?:\.|(?:\.[0-9]+)?[eE][+-]?)"
_PART_OF_WORD = rb"t(?:ru?)?|f(?:a(?:ls?)?)?|n(?:ul?)?"
_PART_OF_KEY = _PART_OF_STRING + rb"|" + _STRING + _SPACE
_PARTS = {
    _VALUE: _SPACE + rb"(?:" + _PART_OF_STRING + rb"|" + _PART_OF_NUMBER + rb"|" + _PART_OF_WORD + rb")?",
    _FIRST_KEY: _SPACE + rb"(?:" + _PART_OF_KEY + rb")?",
    _NEXT_KEY: _SPACE + rb"(?:," + _SPACE + rb"(?:" + _PART_OF_KEY + rb")?)?",
    _NEXT_ITEM: _SPACE,
}
_BEGINNINGS = {due: re.compile(part) for due, part in _PARTS.items()}

#: Go folds ASCII letters and the two others whose simple case folding is one.
_FOLD = str.maketrans(
    {**{letter: letter.lower() for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, "\u017f": "s", "\u212a": "k"}
)

_SURROGATE = re.compile("[\ud800-\udfff]")

Span = tuple[int, int]


class Empty(ValueError):
    """There is nothing but white space."""


class Truncated(ValueError):
    """What there is could be the beginning of JSON."""


class Unreadable(ValueError):
    """Not JSON, or no object, or too intricate to be read here."""


def members(body: Body, wanted: Collection[str]) -> dict[str, list[Span]]:
    """Where the values of the wanted members of the object are with which ``body`` begins, duplicates in their order.

    ``null`` has no members. Keys are folded; ``wanted`` are ASCII letters in lower case and underscores.

    :raises Empty: where there is nothing; :raises Truncated: where more could make it one; :raises Unreadable: where it
        is no object, or too much.
    """
    if len(body) > MOST_BYTES:
        raise Unreadable
    at = _match(_BLANK, body, 0).end()
    if at == len(body):
        raise Empty
    steps = MOST_STEPS
    opening = _match(_VALUE, body, at)
    if opening[1] is None:
        _, steps = _skip(body, at, steps)
        if bytes(body[at : at + 4]) == b"null":
            return {}
        raise Unreadable
    found: dict[str, list[Span]] = {}
    key = _match(_FIRST_KEY, body, opening.end())
    while key[1] is None:
        start = _match(_BLANK, body, key.end()).end()
        end, steps = _skip(body, start, steps)
        if (name := _folded(body, key.span(2))) in wanted:
            found.setdefault(name, []).append((start, end))
        key = _match(_NEXT_KEY, body, end)
    return found


def text(raw: bytes) -> str:
    """The text of a JSON string, quotes included, that ``members`` found; whatever is no text reads as U+FFFD."""
    quoted = raw.decode("utf-8", "surrogateescape")  # one for each byte that is no UTF-8, as in Go
    value: str = json.loads(quoted) if "\\" in quoted else quoted[1:-1]
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _folded(body: Body, span: Span) -> str:
    start, end = span
    return text(bytes(body[start:end])).translate(_FOLD) if end - start <= _LONGEST_KEY else ""


def _skip(body: Body, at: int, steps: int) -> tuple[int, int]:
    """Where the value that begins at ``at`` ends, and how many steps are left."""
    in_object: list[bool] = []  # for each bracket that is open
    while True:
        steps -= 1
        value = _match(_VALUE, body, at)
        if steps < 0 or (value.lastindex and len(in_object) == _DEEPEST):
            raise Unreadable
        at = value.end()
        if value[1] is not None:
            key = _match(_FIRST_KEY, body, at)
            at = key.end()
            if key[1] is None:
                in_object.append(True)
                continue
        elif value[2] is not None:
            if (none := _NO_ITEM.match(body, at)) is None:
                in_object.append(False)
                continue
            at = none.end()
        while in_object:
            after = _match(_NEXT_KEY if in_object[-1] else _NEXT_ITEM, body, at)
            at = after.end()
            if after[1] is None:
                break
            in_object.pop()
        else:
            return at, steps


def _match(due: re.Pattern[bytes], body: Body, at: int) -> re.Match[bytes]:
    found = due.match(body, at)
    if found is not None:
        return found
    raise Truncated if _BEGINNINGS[due].fullmatch(body, at) else Unreadable
