"""What a target said, decoded by ``msgspec``, and by a slower reader where it holds bad characters."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Raw

from foreman.protocol.lenient_json import repaired

T = TypeVar("T")

#: Values up to this many bytes are repaired; the slow reader takes about 10 ms for so much.
MAX_BYTES = 1024 * 1024


def decode(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T:
    """What ``decoder`` makes of ``data``, which may hold bad characters.

    :raises ValueError: when ``data`` is no JSON, or JSON of another shape, or too large to be repaired.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as problem:
        raise ValueError(str(problem)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        if len(data) > MAX_BYTES:
            raise ValueError(str(problem)) from None
        strict = str(problem)
    try:
        return decoder.decode(repaired(bytes(data)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ValueError(strict) from None
