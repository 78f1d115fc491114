"""What a request body asks for, read as Go reads it (contract 2.0, 2.6, 2.7).

An ordinary body is read by ``msgspec``, which takes the last of duplicates as Go does. Whatever it does not know, a key
in another spelling among them, is left to ``gojson``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec
import zstandard
from attrs import evolve, field, frozen
from msgspec import Raw

from foreman import forms, go_duration, gojson
from foreman.errors import BadBody
from foreman.gojson import Body, Members
from foreman.slices import Slices, at_once

#: What Ollama unpacks of a compressed body, in bytes (contract 1.5).
MOST_UNPACKED = 20 * 1024 * 1024
#: The largest window of compressed data that Ollama's decoder takes.
_LARGEST_WINDOW = 8 * 1024 * 1024
#: How much of a body is unpacked, or looked at, at once, in bytes. What is no larger is always decoded at once: 3 ms.
_PIECE = 1024 * 1024
#: What decoding costs, in nanoseconds: each byte, escape and value; and how much of it may be done at once.
_BYTE_COST, _ESCAPE_COST, _VALUE_COST = 0.25, 2, 8
_QUICK_COST = 10_000_000
#: A name has at most some 600 bytes (contract 2.8); what is far longer need not be repeated in errors and logs.
_LONGEST = 8_000


class Errand(Enum):
    """What there is to do for the target."""

    RUN = "run"
    LOAD = "load"
    UNLOAD = "unload"


@frozen
class Asked:
    """What foreman needs to know of a body.

    :ivar model: as typed; None where none was named, or only white space.
    :ivar stream: whether the answer comes in pieces, the route's default applied.
    :ivar sure: False where foreman could not read the body; the rest then means nothing.
    :ivar length: of the part of the body that Ollama reads, in bytes, on native inference routes; None: all of it.
    """

    model: str | None
    stream: bool
    errand: Errand = Errand.RUN
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

_NEEDED = ("model", "name", "stream", "keep_alive", "messages", "prompt")
#: What clients send besides, so that it does not surprise: contract 2.1, 2.2, 2.5, 2.9.
_USUAL = (
    "format options tools think truncate shift logprobs top_logprobs suffix system template context raw images "
    "input dimensions encoding_format insecure username password files adapters parameters quantize source destination "
    "verbose stream_options temperature top_p top_k max_tokens max_completion_tokens max_output_tokens stop "
    "stop_sequences n seed user presence_penalty frequency_penalty logit_bias response_format tool_choice "
    "parallel_tool_calls reasoning reasoning_effort metadata store service_tier instructions include text "
    "previous_response_id truncation thinking best_of echo prompt_cache_key safety_identifier verbosity functions "
    "function_call modalities audio prediction background conversation max_tool_calls output_config context_management "
    "mcp_servers container cache_control license quantization remote_host renderer parser"
).split()
_ABSENT = Raw()
_Ordinary = msgspec.defstruct(
    "_Ordinary", [(name, Raw, _ABSENT) for name in (*_NEEDED, *_USUAL)], forbid_unknown_fields=True
)
_decode_ordinary: Callable[[Body], Any] = msgspec.json.Decoder(_Ordinary).decode

#: White space of JSON; and how many bytes of it are looked through where there is hardly ever any.
_BLANK, _NEAR = b" \t\r\n", 1000
_NULL, _EMPTY = b"null", b'""'
_FLAGS = {b"true": True, b"false": False}
#: Where null unsets what an earlier duplicate said (a pointer or a slice in Go), and not where it changes nothing.
_UNSET_BY_NULL = frozenset({"keep_alive", "messages"})
_QUOTE, _BRACKET = b'"['
_NO_ITEMS = re.compile(rb"\[[ \t\r\n]*+\]")
#: The values of the needed members, duplicates in their order, each as far as _LONGEST bytes.
_Found = dict[str, list[bytes]]
_Values = list[bytes] | None


class _Mismatch(ValueError):
    """A value that Ollama refuses, or too long a one."""


def read(
    path: str, body: Body, encoding: bytes | None = None, content_type: bytes | None = None, query: bytes = b""
) -> Asked:
    """What a body asks for, without a pause; see ``read_in_slices``."""
    return at_once(read_in_slices(path, body, encoding, content_type, query))


def read_in_slices(
    path: str, body: Body, encoding: bytes | None = None, content_type: bytes | None = None, query: bytes = b""
) -> Slices[Asked]:
    """Find out what a body asks for.

    :param path: as in ``lanes.Way``; :param encoding: the ``Content-Encoding``; :param query: of the request, raw.
    :raises BadBody: where there is no JSON or only the beginning of some, with Ollama's text. Other bodies that cannot
        be read are Ollama's to refuse, and are not ``sure``.
    """
    if path == _TRANSCRIPTIONS:
        # A query would win over the form (Go's FormValue).
        model = None if query else (yield from forms.field("model", body, content_type or b""))
        return Asked(model, stream=False) if model else _unsure(path)
    try:
        if encoding == b"zstd" and path.startswith("/v1/"):
            body = yield from unpack_in_slices(body)
        found = yield from _ordinary(body)
        length = yield from _length_without_blanks(body)
        if found is None:
            members = yield from gojson.members_in_slices(body, _NEEDED)
            if path in _STRICT and not (length == members.end and _names_model_plainly(body, members)):
                return _unsure(path)
            found, length = _values(body, members), members.end
        return _judge(path, found, length)
    except gojson.Empty:
        if path in _LEFT_TO_OLLAMA:
            return Asked(None, stream=False)  # without a model it takes no turn to be refused
        raise BadBody("EOF" if path.startswith("/v1/") else "missing request body") from None
    except gojson.Truncated:
        if path in _LEFT_TO_OLLAMA:
            return _unsure(path)
        raise BadBody("unexpected EOF") from None
    except gojson.Unreadable:
        return _unsure(path)


def _unsure(path: str) -> Asked:
    return Asked(None, path in _STREAMING, sure=False)


def unpack_in_slices(body: Body) -> Slices[bytes]:
    """A body without its zstd compression, as far as Ollama unpacks.

    :raises gojson.Unreadable: when it cannot be unpacked, or is larger than that.
    """
    pieces: list[bytes] = []
    left = MOST_UNPACKED
    reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
        memoryview(body), read_across_frames=True
    )
    try:
        while piece := reader.read(_PIECE):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise gojson.Unreadable
            yield
    except zstandard.ZstdError:
        raise gojson.Unreadable from None
    return b"".join(pieces)


def _ordinary(body: Body) -> Slices[_Found | None]:
    """The needed values, or None where this reader cannot be sure of them, or would take too long at once."""
    if len(body) > _PIECE and not (yield from is_quickly_decoded(body)):
        return None
    try:
        values = _decode_ordinary(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found: _Found = {}
    for name in _NEEDED:
        raw = getattr(values, name)
        if raw is not _ABSENT:
            value = bytes(raw) if len(raw) <= _LONGEST else bytes(memoryview(raw)[:_LONGEST])
            if value == _NULL and name not in _UNSET_BY_NULL:
                return None  # an earlier duplicate would count
            found[name] = [value]
    return found


def is_quickly_decoded(body: Body, limit: int = _QUICK_COST) -> Slices[bool]:
    """Whether ``msgspec`` reads a body in some ``limit`` nanoseconds, judged by what its work is made of."""
    cost = len(body) * _BYTE_COST
    for start in range(0, len(body), _PIECE):
        if cost > limit:
            return False
        piece = bytes(body[start : start + _PIECE])
        cost += piece.count(b"\\") * _ESCAPE_COST
        cost += (piece.count(b",") + piece.count(b"[") + piece.count(b"{")) * _VALUE_COST
        yield
    return cost <= limit


def _names_model_plainly(body: Body, members: Members) -> bool:
    """Whether an object has ``model``, and in exactly this spelling."""
    spans = members.spans.get("model", ())
    keys = [bytes(body[max(0, start - _NEAR) : start]).rstrip(_BLANK) for start, _ in spans]
    return bool(keys) and all(key.endswith(b":") and key[:-1].rstrip(_BLANK).endswith(b'"model"') for key in keys)


def _values(body: Body, members: Members) -> _Found:
    return {
        name: [bytes(body[start : min(end, start + _LONGEST)]) for start, end in spans]
        for name, spans in members.spans.items()
    }


def _length_without_blanks(body: Body) -> Slices[int]:
    """The length of a body without the white space at its end."""
    end = len(body)
    while end:
        start = max(0, end - _PIECE)
        kept = bytes(body[start:end]).rstrip(_BLANK)
        if kept:
            return start + len(kept)
        end = start
        yield
    return 0


def _judge(path: str, found: _Found, length: int) -> Asked:
    read = length if path in _ONE_VALUE else None
    try:
        asked = _meaning(path, found)
    except _Mismatch:
        asked = _unsure(path)
    return evolve(asked, length=read)


def _meaning(path: str, found: _Found) -> Asked:
    model = _text(found.get("model"))
    name = _text(found.get("name")) if path in _NAMED else ""
    named = model or name
    # Of a blank name each route says in its own words that it is missing.
    return Asked(named if named.strip() else None, _stream(path, found.get("stream")), _errand(path, found))


def _errand(path: str, found: _Found) -> Errand:
    if path == _CHAT:
        idle = not _has_items(found.get("messages"))
    elif path == _GENERATE:
        idle = not _says_something(found.get("prompt"))
    else:
        return Errand.RUN
    at_once = False
    for value in found.get("keep_alive", ()):
        at_once = value != _NULL and _is_zero(value)
    if not idle:
        return Errand.RUN
    return Errand.UNLOAD if at_once else Errand.LOAD


def _stream(path: str, values: _Values) -> bool:
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


def _text(values: _Values) -> str:
    last = _last_string(values)
    if len(last) >= _LONGEST:
        raise _Mismatch
    return gojson.text(last)


def _says_something(values: _Values) -> bool:
    return _last_string(values) != _EMPTY


def _last_string(values: _Values) -> bytes:
    last = _EMPTY
    for value in values or ():
        if value[0] == _QUOTE:
            last = value
        elif value != _NULL:
            raise _Mismatch
    return last


def _has_items(values: _Values) -> bool:
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
    if len(keep_alive) >= _LONGEST:
        raise _Mismatch
    if keep_alive[0] == _QUOTE:
        try:
            return go_duration.nanoseconds(gojson.text(keep_alive)) == 0
        except ValueError:
            raise _Mismatch from None
    try:
        seconds = float(keep_alive)
    except ValueError:
        raise _Mismatch from None
    if math.isinf(seconds):
        raise _Mismatch
    return 0 <= seconds * 10**9 < 1
