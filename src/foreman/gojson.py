"""JSON as Go's ``encoding/json`` reads it where Python's readers differ (contract 2.0)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

#: Go folds the two letters outside ASCII whose simple fold is an ASCII letter (``bytes.EqualFold``).
_TO_ASCII = str.maketrans({"\u017f": "s", "\u212a": "k"})
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
#: What may stand where Python's reader gives up, if the text was only cut off there: nothing, or a part of a literal, of
#: a number or of an escape.
_CUT_OFF = re.compile(r"\s*|t|tr|tru|f|fa|fal|fals|n|nu|nul|-|\.|\.?\d*[eE][-+]?|u[0-9A-Fa-f]{0,3}")


class Malformed(ValueError):
    """Not JSON, or not an object: Go refuses it, or reads nothing out of it."""


class Truncated(Malformed):
    """JSON that stops too early: Go says ``unexpected EOF``."""


class _Pairs(list[tuple[str, Any]]):
    """The members of an object in order, duplicates included."""


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_no_constant, strict=True)


def read_object(body: bytes) -> list[tuple[str, Any]]:
    """The members of the object with which ``body`` begins; whatever follows it is ignored.

    ``null`` reads as an empty object. Bytes that are not UTF-8 become U+FFFD, as in Go.

    :raises Truncated: when the text stops before the value does.
    :raises Malformed: when it is no JSON object.
    """
    text = body.decode("utf-8", "replace")
    start = len(text) - len(text.lstrip(" \t\n\r"))
    try:
        value, _ = _decoder.raw_decode(text, start)
    except RecursionError:
        raise Malformed("nested too deep") from None
    except json.JSONDecodeError as problem:
        if problem.msg.startswith("Unterminated string") or _CUT_OFF.fullmatch(text, problem.pos):
            raise Truncated(str(problem)) from None
        raise Malformed(str(problem)) from None
    if value is None:
        return []
    if not isinstance(value, _Pairs):
        raise Malformed("not an object")
    return value


def folded(key: str) -> str:
    """A key as Go compares it with a field's name."""
    return key.translate(_TO_ASCII).lower()


def fold(members: Iterable[tuple[str, Any]], names: Iterable[str], nullable: Iterable[str]) -> dict[str, Any]:
    """The members that Go would store into fields called ``names``.

    Keys match without regard to case, and the last one wins.

    :param nullable: the fields that are pointers or lists, which ``null`` empties; elsewhere ``null`` changes nothing.
    """
    found: dict[str, Any] = {}
    wanted, emptied = frozenset(names), frozenset(nullable)
    for key, value in members:
        name = folded(key)
        if name not in wanted:
            continue
        if value is None:
            if name in emptied:
                found.pop(name, None)
        else:
            found[name] = _LONE_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value
    return found
