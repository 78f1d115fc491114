"""Put the lines of a native stream together into the answer that the endpoint gives without streaming (contract 2.3).

The last line has every member in its place; members that came in parts are joined into it. All else keeps its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
from msgspec import Raw

from foreman.protocol import go_json, lenient_json
from foreman.util.slices import Slices

T = TypeVar("T")
_Members = dict[str, Raw]
_decoder = msgspec.json.Decoder(_Members)
_text_decoder = msgspec.json.Decoder(str | None)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_items_decoder = msgspec.json.Decoder(list[Raw] | None)

#: The work of one slice, in bytes; and the overhead of each value, in the same unit.
_SLICE, _VALUE_COST = 512 * 1024, 400
#: How much of the result is rewritten at once, in bytes; where none of it is UTF-8, that takes some milliseconds.
_REWRITTEN = 32 * 1024
_ITEMS_AT_ONCE = 1000
#: The longest line, in bytes; Ollama's own client takes 8 MB.
LONGEST_LINE = 16 * 1024 * 1024

#: The members that come in parts: texts, and lists.
_TEXTS = ("response", "content", "thinking")
_LISTS = ("tool_calls", "logprobs")
#: Where Ollama writes a member that only earlier lines had: behind the first of these that is present.
_BEHIND = {
    "thinking": ("response", "content"),
    "tool_calls": ("thinking", "response", "content"),
    "logprobs": ("done_reason", "done", "message"),
}


def aggregate(lines: Iterable[bytes]) -> Slices[bytes]:
    """The answer of ``/api/chat`` or ``/api/generate`` in one piece.

    :param lines: all lines of a whole stream, the last with ``"done":true``.
    :raises ValueError: when a line is not a JSON object, or longer than ``LONGEST_LINE``.
    """
    try:
        objects = yield from _decoded(_decoder, lines)
        whole = yield from _joined(objects)
        messages = yield from _decoded(_decoder, (line.get("message") for line in objects))
        if messages:
            whole["message"] = Raw(msgspec.json.encode((yield from _joined(messages))))
    except (IndexError, RecursionError) as problem:
        raise ValueError(str(problem)) from None
    return (yield from _written(msgspec.json.encode(whole)))


def _decoded(decoder: msgspec.json.Decoder[T], values: Iterable[bytes | Raw | None]) -> Slices[list[T]]:
    """The decoded ``values``, without those that are None."""
    found, done = [], 0
    for value in values:
        done += _VALUE_COST
        if value is not None:
            if len(value) > LONGEST_LINE:
                raise ValueError(f"a line has {len(value)} bytes")
            found.append(lenient_json.decode(decoder, value))
            done += len(value)
        if done >= _SLICE:
            done = 0
            yield
    return found


def _joined(parts: Sequence[_Members]) -> Slices[_Members]:
    whole = dict(parts[-1])
    for name in _TEXTS:
        texts = yield from _decoded(_text_decoder, (part.get(name) for part in parts))
        if texts and (name in whole or any(texts)):
            whole = _with(whole, name, Raw((yield from _encoded(texts))))
    for name in _LISTS:
        lists = yield from _decoded(_items_decoder, (part.get(name) for part in parts))
        items: list[bytes] = []
        for members in lists:
            items += map(bytes, members or ())
            if len(items) % _ITEMS_AT_ONCE == 0:
                yield
        if items:
            whole = _with(whole, name, Raw(b"[" + b",".join(items) + b"]"))
    return whole


def _encoded(texts: Sequence[str | None]) -> Slices[bytes]:
    """``texts`` joined into one JSON string."""
    pieces = [b'"']
    waiting: list[str] = []
    size = 0
    for text in texts:
        waiting.append(text or "")
        size += len(text or "") + 1
        if size >= _SLICE:
            pieces.append(msgspec.json.encode("".join(waiting))[1:-1])
            waiting, size = [], 0
            yield
    pieces.append(msgspec.json.encode("".join(waiting))[1:])
    return b"".join(pieces)


def _with(members: _Members, name: str, value: Raw) -> _Members:
    if name in members:
        return {**members, name: value}
    before = next((candidate for candidate in _BEHIND.get(name, ()) if candidate in members), None)
    if before is None:
        return {**members, name: value}
    ordered: _Members = {}
    for member, kept in members.items():
        ordered[member] = kept
        if member == before:
            ordered[name] = value
    return ordered


def _written(text: bytes) -> Slices[bytes]:
    """``text`` with the escapes of Go's encoder, and in UTF-8."""
    pieces, start = [], 0
    while start < len(text):
        end = start + _REWRITTEN
        while end < len(text) and end < start + _REWRITTEN + 3 and text[end] & 0xC0 == 0x80:
            end += 1  # inside a character
        pieces.append(go_json.escape(_as_utf8(text[start:end])))
        start = end
        yield
    return b"".join(pieces)


def _as_utf8(text: bytes) -> bytes:
    """``text`` with U+FFFD for each byte that is not UTF-8: its members were kept as they came."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return _NOT_UTF8.sub("\ufffd", text.decode("utf-8", "surrogateescape")).encode("utf-8")
    return text
