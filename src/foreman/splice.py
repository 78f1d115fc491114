"""Ask for a stream, or for none, in a body that asks otherwise; its other bytes stay as they are."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from foreman import gojson

_MEMBER = "stream"


def with_stream(body: bytes, *, stream: bool) -> bytes:
    """A JSON object whose member ``stream`` is ``stream``, read as Go reads it.

    Every member of that name is changed, since in Go the last of them counts. A new one stands in front.

    :raises ValueError: when ``body`` is no object.
    """
    value = b"true" if stream else b"false"
    try:
        spans = gojson.members(body, (_MEMBER,)).get(_MEMBER, [])
    except gojson.Unreadable:
        return _rebuilt(body, value)
    if not spans:
        begin = body.index(b"{") + 1
        return body[:begin] + b'"stream":' + value + b"," + body[begin:]
    pieces, end = [], 0
    for start, stop in spans:
        pieces += [body[end:start], value]
        end = stop
    return b"".join((*pieces, body[end:]))


def _rebuilt(body: bytes, value: bytes) -> bytes:
    """For a body that is too intricate for the careful reader: its members anew, each with the bytes it had."""
    try:
        members = msgspec.json.decode(body, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(str(problem)) from None
    others = {name: raw for name, raw in members.items() if name.casefold() != _MEMBER}
    return msgspec.json.encode({_MEMBER: Raw(value), **others})
