r"""JSON from a target whose strings hold bad characters: decoded all the same, each bad character as U+FFFD.

A strict reader refuses a whole value for half of an emoji (``\\ud83d`` alone), a byte that is no UTF-8 or a raw control
character. Go's reader takes the first two as U+FFFD, and so do most clients.
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

import msgspec
from msgspec import Raw

T = TypeVar("T")

#: Values up to this many bytes are repaired; the slow reader that it needs takes about 10 ms for so much.
MOST_BYTES = 1024 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T:
    """What ``decoder`` makes of ``data``, which may hold bad characters.

    :raises ValueError: when ``data`` is no JSON, or JSON of another shape, or too large to be repaired.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        if len(data) > MOST_BYTES:
            raise ValueError(str(problem)) from None
        strict = str(problem)
    try:
        return decoder.decode(repaired(bytes(data)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ValueError(strict) from None


def repaired(data: bytes) -> bytes:
    """The JSON value ``data`` written anew, in UTF-8 and with U+FFFD for what is no character.

    :raises ValueError, RecursionError: when it is no JSON even so.
    """
    text = data.decode("utf-8", "surrogateescape")  # one for each byte that is no UTF-8, as in Go
    value = json.loads(text, strict=False)  # takes control characters and lone surrogates
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _SURROGATE.sub("\ufffd", written).encode("utf-8")
