"""What a native endpoint would have answered unstreamed, made of the lines that it streamed (contract 2.3).

The last line has every member in its place; what came in parts is put together into it. Everything else keeps its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from foreman import decoding

_Members = dict[str, Raw]
_decoder = msgspec.json.Decoder(_Members)
_text_decoder = msgspec.json.Decoder(str | None)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_items_decoder = msgspec.json.Decoder(list[Raw] | None)

#: Which members come in parts: texts, and lists.
_TEXTS = ("response", "content", "thinking")
_LISTS = ("tool_calls", "logprobs")
#: Where Ollama writes a member that only earlier lines had: behind the first of these that is there.
_BEHIND = {
    "thinking": ("response", "content"),
    "tool_calls": ("thinking", "response", "content"),
    "logprobs": ("done_reason", "done", "message"),
}


def unstreamed(lines: Sequence[bytes]) -> bytes:
    """The answer of ``/api/chat`` or ``/api/generate`` in one piece.

    :param lines: all lines of a whole stream, the last with ``"done":true``.
    :raises ValueError: when a line is no JSON object.
    """
    try:
        objects = [decoding.decode(_decoder, line) for line in lines]
        whole = _joined(objects)
        messages = [decoding.decode(_decoder, one["message"]) for one in objects if "message" in one]
        if messages:
            whole["message"] = Raw(msgspec.json.encode(_joined(messages)))
    except (IndexError, RecursionError) as problem:
        raise ValueError(str(problem)) from None
    return _as_go(_as_utf8(msgspec.json.encode(whole)))


def _joined(parts: Sequence[_Members]) -> _Members:
    whole = dict(parts[-1])
    for name in _TEXTS:
        texts = [decoding.decode(_text_decoder, part[name]) or "" for part in parts if name in part]
        if texts and (name in whole or any(texts)):
            whole = _with(whole, name, Raw(_as_go(msgspec.json.encode("".join(texts)))))
    for name in _LISTS:
        items = [item for part in parts if name in part for item in _items(part[name])]
        if items:
            whole = _with(whole, name, Raw(b"[" + b",".join(map(bytes, items)) + b"]"))
    return whole


def _items(raw: Raw) -> list[Raw]:
    return decoding.decode(_items_decoder, raw) or []


def _with(members: _Members, name: str, value: Raw) -> _Members:
    if name in members:
        return {**members, name: value}
    before = next((other for other in _BEHIND.get(name, ()) if other in members), None)
    if before is None:
        return {**members, name: value}
    made: _Members = {}
    for other, kept in members.items():
        made[other] = kept
        if other == before:
            made[name] = value
    return made


def _as_utf8(text: bytes) -> bytes:
    """``text``, whose members were kept as they came, with U+FFFD for each byte that is no UTF-8."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return _NOT_UTF8.sub("\ufffd", text.decode("utf-8", "surrogateescape")).encode("utf-8")
    return text


def _as_go(text: bytes) -> bytes:
    """With the escapes of Go's encoder."""
    for character, escape in ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026")):
        text = text.replace(character, escape)
    return text.replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")
