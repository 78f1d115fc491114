r"""Read JSON whose strings hold bad characters, with U+FFFD for each of them.

A strict reader refuses a whole value for half of an emoji (``\ud83d`` alone), a byte that is not UTF-8 or a raw control
character. Go's reader takes the first two as U+FFFD, and so do most clients.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import msgspec

T = TypeVar("T")

#: Values up to this many bytes are repaired; the slow reader takes about 10 ms for so much.
MAX_REPAIRED = 1024 * 1024

_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """Decode ``data`` with ``decoder``; where that finds a bad character, after ``repair``.

    :raises ValueError: when ``data`` is not JSON, or JSON of another shape, or too large to be repaired.
    """
    try:
        return decoder.decode(data)
    except (ValueError, RecursionError) as problem:
        import msgspec  # noqa: PLC0415 - the commands, which only call read, start faster without it

        if isinstance(problem, msgspec.ValidationError) or len(data) > MAX_REPAIRED:
            raise ValueError(str(problem)) from None
        reason = str(problem)
    try:
        return decoder.decode(repair(bytes(data)))
    except (ValueError, RecursionError):
        raise ValueError(reason) from None


def repair(data: bytes) -> bytes:
    """The JSON value ``data`` written anew, in UTF-8 and with U+FFFD for each bad character.

    :raises ValueError, RecursionError: when it is not JSON even so.
    """
    return _rewritten(data.decode("utf-8", "surrogateescape")).encode("utf-8")  # one for each bad byte, as in Go


def read(text: bytes | str) -> Any:
    """The JSON value ``text`` as Python objects, with U+FFFD for each bad character.

    :raises ValueError: when it is not JSON even so.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    try:
        if "\\u" not in text and _SURROGATE.search(text) is None:
            return json.loads(text, strict=False)
        return json.loads(_rewritten(text))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _rewritten(text: str) -> str:
    value = json.loads(text, strict=False)  # takes control characters and lone surrogates
    return _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False, separators=(",", ":")))
