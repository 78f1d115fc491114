"""Set the member ``stream`` of a request body; all other bytes stay as they are."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from foreman.protocol import go_json
from foreman.util.slices import Slices

_MEMBER = "stream"
_OPENING = re.compile(rb"[ \t\r\n]*+\{")
_CLOSING = re.compile(rb"[ \t\r\n]*+\}")


def with_stream(body: bytes, *, stream: bool) -> Slices[bytes]:
    """``body`` with its member ``stream`` set to ``stream``, as Go would read it.

    Every member of that name is changed, in any spelling, since in Go the last one counts. A new one is put first.

    :raises ValueError: when ``body`` is not a JSON object.
    """
    value = b"true" if stream else b"false"
    opening = _OPENING.match(body)
    if opening is None:
        raise ValueError("it is not a JSON object")
    try:
        spans = (yield from go_json.members_in_slices(body, (_MEMBER,))).spans.get(_MEMBER, [])
    except (go_json.Empty, go_json.Truncated):
        raise ValueError("it is cut short") from None
    except go_json.Unreadable:
        return _appended(body, value)
    if not spans:
        begin = opening.end()
        comma = b"" if _CLOSING.match(body, begin) else b","
        return b"".join((body[:begin], b'"stream":', value, comma, body[begin:]))
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [body[end:start], value]
        end = stop
    return b"".join((*pieces, body[end:]))


def _appended(body: bytes, value: bytes) -> bytes:
    """Append the member to a body that is too complex for ``go_json``: the last one counts."""
    try:
        msgspec.json.decode(body, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(str(problem)) from None
    return b"".join((body[: body.rindex(b"}")], b',"stream":', value, b"}"))
