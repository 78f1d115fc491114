"""What a request body asks for, read as Go reads it (contract 2.0, 2.6, 2.7)."""

from __future__ import annotations

import math
import re
from enum import Enum

from attrs import evolve, field, frozen

from foreman.errors import BadBody
from foreman.protocol import go_duration, go_json, multipart
from foreman.protocol.body_values import LONGEST, MAX_UNPACKED, Found, Values, unpack_in_slices, values_in_slices
from foreman.protocol.go_json import Body
from foreman.util.byte_budget import ByteBudget
from foreman.util.slices import Slices, at_once


class Intent(Enum):
    """What there is to do for the target."""

    RUN = "run"
    LOAD = "load"
    UNLOAD = "unload"


@frozen
class RequestBody:
    """What foreman needs to know of a body.

    :ivar model: as typed; None where none was named, or only white space.
    :ivar stream: whether the answer comes in pieces, the route's default applied.
    :ivar sure: False where foreman could not read the body; the rest then means nothing.
    :ivar length: of the part of the body that Ollama reads, in bytes, on native inference routes; None: all of it.
    """

    model: str | None
    stream: bool
    intent: Intent = Intent.RUN
    sure: bool = True
    length: int | None = field(default=None, eq=False)


_CHAT, _GENERATE, _TRANSCRIPTIONS = "/api/chat", "/api/generate", "/v1/audio/transcriptions"
#: Where Ollama's decoder stops behind the first JSON value. While more of the body is unread, Go's server does not watch
#: whether the caller leaves (contract 0.2, 0.19), so that nothing else of it is sent.
_ONE_VALUE = frozenset({_CHAT, _GENERATE, "/api/embed", "/api/embeddings"})
#: From v0.34 on Ollama reads these more strictly than all others, and words its refusals in another way (contract 2.0).
_STRICT = frozenset({"/v1/responses", "/v1/responses/compact"})
#: Of these an empty body and half a one are Ollama's to refuse; not every version has the last two.
_LEFT_TO_OLLAMA = _STRICT | {"/v1/images/generations", "/v1/images/edits"}
#: Routes that stream unless told otherwise.
_STREAMING = frozenset({_CHAT, _GENERATE, "/api/pull", "/api/push", "/api/create"})
#: Routes that stream when asked to. In the first lot a null takes back what an earlier duplicate said (in Go a pointer).
_STREAM_UNSET_BY_NULL = _STREAMING | {"/v1/responses"}
_CAN_STREAM = _STREAM_UNSET_BY_NULL | {"/v1/chat/completions", "/v1/completions", "/v1/messages"}
#: Routes that still take the old key of the model.
_NAMED = frozenset({"/api/show", "/api/pull", "/api/push", "/api/create", "/api/delete"})

_NULL, _EMPTY = b"null", b'""'
_FLAGS = {b"true": True, b"false": False}
_QUOTE, _BRACKET = b'"['
_NO_ITEMS = re.compile(rb"\[[ \t\r\n]*+\]")
_All = list[bytes] | None


#: Nobody writes a longer ``keep_alive``, in bytes.
_LONGEST_DURATION = 1000


class _Mismatch(ValueError):
    """A value that Ollama refuses, or too long a one."""


def read(
    path: str, body: Body, encoding: bytes | None = None, content_type: bytes | None = None, query: bytes = b""
) -> RequestBody:
    """What a body asks for, without a pause; see ``read_in_slices``."""
    return at_once(read_in_slices(path, body, encoding, content_type, query))


def read_in_slices(
    path: str,
    body: Body,
    encoding: bytes | None = None,
    content_type: bytes | None = None,
    query: bytes = b"",
    room: ByteBudget | None = None,
) -> Slices[RequestBody]:
    """Find out what a body asks for.

    :param path: as in ``lanes.Way``; :param encoding: the ``Content-Encoding``; :param query: of the request, raw;
    :param room: for all compressed bodies that are read, which are unpacked meanwhile.
    :raises BadBody: where there is no JSON or only the beginning of some, with Ollama's text. Other bodies that cannot
        be read are Ollama's to refuse, and are not ``sure``.
    """
    if path == _TRANSCRIPTIONS:
        # A query would win over the form (Go's FormValue).
        model = None if query else (yield from multipart.field("model", body, content_type or b""))
        return RequestBody(model, stream=False) if model else _unsure(path)
    try:
        if encoding == b"zstd" and path.startswith("/v1/"):
            values = yield from _packed_values(body, ByteBudget(MAX_UNPACKED) if room is None else room)
        else:
            values = yield from values_in_slices(body)
        if path in _STRICT and not values.is_plain:
            return _unsure(path)
        return _judge(path, values)
    except go_json.Empty:
        if path in _LEFT_TO_OLLAMA:
            return RequestBody(None, stream=False)  # without a model it takes no turn to be refused
        raise BadBody("EOF" if path.startswith("/v1/") else "missing request body") from None
    except go_json.Truncated:
        if path in _LEFT_TO_OLLAMA:
            return _unsure(path)
        raise BadBody("unexpected EOF") from None
    except go_json.Unreadable:
        return _unsure(path)


def _packed_values(body: Body, room: ByteBudget) -> Slices[Values]:
    unpacked = yield from unpack_in_slices(body, room)
    try:
        return (yield from values_in_slices(unpacked))
    finally:
        room.give(len(unpacked))


def _unsure(path: str) -> RequestBody:
    return RequestBody(None, path in _STREAMING, sure=False)


def _judge(path: str, values: Values) -> RequestBody:
    read = values.length if path in _ONE_VALUE else None
    try:
        asked = _meaning(path, values.found)
    except _Mismatch:
        asked = _unsure(path)
    return evolve(asked, length=read)


def _meaning(path: str, found: Found) -> RequestBody:
    model = _text(found.get("model"))
    name = _text(found.get("name")) if path in _NAMED else ""
    named = model or name
    # Of a blank name each route says in its own words that it is missing.
    return RequestBody(named if named.strip() else None, _stream(path, found.get("stream")), _errand(path, found))


def _errand(path: str, found: Found) -> Intent:
    if path == _CHAT:
        idle = not _has_items(found.get("messages"))
    elif path == _GENERATE:
        idle = not _says_something(found.get("prompt"))
    else:
        return Intent.RUN
    at_once = False
    for value in found.get("keep_alive", ()):
        at_once = value != _NULL and _is_zero(value)
    if not idle:
        return Intent.RUN
    return Intent.UNLOAD if at_once else Intent.LOAD


def _stream(path: str, values: _All) -> bool:
    if path not in _CAN_STREAM:
        return False
    stream = by_default = path in _STREAMING
    for value in values or ():
        if value in _FLAGS:
            stream = _FLAGS[value]
        elif value != _NULL:
            raise _Mismatch
        elif path in _STREAM_UNSET_BY_NULL:
            stream = by_default
    return stream


def _text(values: _All) -> str:
    last = _last_string(values)
    if len(last) >= LONGEST:
        raise _Mismatch
    return go_json.text(last)


def _says_something(values: _All) -> bool:
    return _last_string(values) != _EMPTY


def _last_string(values: _All) -> bytes:
    last = _EMPTY
    for value in values or ():
        if value[0] == _QUOTE:
            last = value
        elif value != _NULL:
            raise _Mismatch
    return last


def _has_items(values: _All) -> bool:
    some = False
    for value in values or ():
        if value[0] == _BRACKET:
            some = _NO_ITEMS.fullmatch(value) is None
        elif value != _NULL:
            raise _Mismatch
        else:
            some = False
    return some


def _is_zero(keep_alive: bytes) -> bool:
    """Whether a ``keep_alive`` is less than a nanosecond and not negative, which means for ever (contract 2.6)."""
    if len(keep_alive) > _LONGEST_DURATION:
        raise _Mismatch
    if keep_alive[0] == _QUOTE:
        try:
            return go_duration.nanoseconds(go_json.text(keep_alive)) == 0
        except ValueError:
            raise _Mismatch from None
    try:
        seconds = float(keep_alive)
    except ValueError:
        raise _Mismatch from None
    if math.isinf(seconds):
        raise _Mismatch
    return 0 <= seconds * 10**9 < 1
