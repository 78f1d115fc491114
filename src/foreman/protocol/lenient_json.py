r"""JSON whose strings hold bad characters, read all the same, with U+FFFD for each.

A strict reader refuses a whole value for half of an emoji (``\ud83d`` alone), a byte that is no UTF-8 or a raw control
character. Go's reader takes the first two as U+FFFD, and so do most clients.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def repaired(data: bytes) -> bytes:
    """The JSON value ``data`` written anew, in UTF-8 and with U+FFFD for what is no character.

    :raises ValueError, RecursionError: when it is no JSON even so.
    """
    return _written_anew(data.decode("utf-8", "surrogateescape")).encode("utf-8")  # one for each bad byte, as in Go


def read(text: bytes | str) -> Any:
    """The JSON value ``text`` as Python has it, with U+FFFD for what is no character.

    :raises ValueError: when it is no JSON even so.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    try:
        if "\\u" not in text and _SURROGATE.search(text) is None:
            return json.loads(text, strict=False)
        return json.loads(_written_anew(text))
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def _written_anew(text: str) -> str:
    value = json.loads(text, strict=False)  # takes control characters and lone surrogates
    return _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False, separators=(",", ":")))
