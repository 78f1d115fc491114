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
from attrs import frozen
from msgspec import Raw

from foreman import forms, gojson
from foreman.errors import BadBody
from foreman.gojson import Body

#: What Ollama unpacks of a compressed body, in bytes (contract 1.5).
MOST_UNPACKED = 20 * 1024 * 1024
#: The largest window of compressed data that Ollama's decoder takes.
_LARGEST_WINDOW = 8 * 1024 * 1024
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
    """

    model: str | None
    stream: bool
    errand: Errand = Errand.RUN
    sure: bool = True


_CHAT, _GENERATE, _TRANSCRIPTIONS = "/api/chat", "/api/generate", "/v1/audio/transcriptions"
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

_NULL, _EMPTY = b"null", b'""'
_FLAGS = {b"true": True, b"false": False}
#: Where null unsets what an earlier duplicate said (a pointer or a slice in Go), and not where it changes nothing.
_UNSET_BY_NULL = frozenset({"keep_alive", "messages"})
_QUOTE, _BRACKET = b'"['
_NO_ITEMS = re.compile(rb"\[[ \t\r\n]*+\]")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_STEP = r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"[-+]?(?:0|(?:{_STEP})+)")
_DURATION_STEP = re.compile(_STEP)
#: What Go's durations hold, in nanoseconds; and how long a number of people's may be.
_LONGEST_DURATION = 2**63 - 1
_MOST_DIGITS = 1000

#: The values of the needed members, duplicates in their order, each as far as _LONGEST bytes.
_Found = dict[str, list[bytes]]
_Values = list[bytes] | None


class _Mismatch(ValueError):
    """A value that Ollama refuses, or too long a one."""


def read(
    path: str, body: Body, encoding: bytes | None = None, content_type: bytes | None = None, query: bytes = b""
) -> Asked:
    """Find out what a body asks for.

    :param path: as in ``lanes.Way``; :param encoding: the ``Content-Encoding``; :param query: of the request, raw.
    :raises BadBody: where there is no JSON or only the beginning of some, with Ollama's text. Other bodies that cannot
        be read are Ollama's to refuse, and are not ``sure``.
    """
    if path == _TRANSCRIPTIONS:
        # A query would win over the form (Go's FormValue).
        model = None if query else forms.field("model", body, content_type or b"")
        return Asked(model, stream=False) if model else _unsure(path)
    try:
        if encoding == b"zstd" and path.startswith("/v1/"):
            body = unpack(body)
        found = _ordinary(body)
        return _judge(path, _careful(body) if found is None else found)
    except gojson.Empty:
        raise BadBody("EOF" if path.startswith("/v1/") else "missing request body") from None
    except gojson.Truncated:
        raise BadBody("unexpected EOF") from None
    except (gojson.Unreadable, _Mismatch):
        return _unsure(path)


def _unsure(path: str) -> Asked:
    return Asked(None, path in _STREAMING, sure=False)


def unpack(body: Body) -> bytes:
    """A body without its zstd compression, as far as Ollama unpacks.

    :raises gojson.Unreadable: when it cannot be unpacked, or is larger than that.
    """
    reader = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(
        memoryview(body), read_across_frames=True
    )
    try:
        unpacked = reader.read(MOST_UNPACKED + 1)
    except zstandard.ZstdError:
        raise gojson.Unreadable from None
    if len(unpacked) > MOST_UNPACKED:
        raise gojson.Unreadable
    return unpacked


def _ordinary(body: Body) -> _Found | None:
    """The needed values, or None where this reader cannot be sure of them."""
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


def _careful(body: Body) -> _Found:
    return {
        name: [bytes(body[start : min(end, start + _LONGEST)]) for start, end in spans]
        for name, spans in gojson.members(body, _NEEDED).spans.items()
    }


def _judge(path: str, found: _Found) -> Asked:
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
        return _nanoseconds(gojson.text(keep_alive)) == 0
    try:
        seconds = float(keep_alive)
    except ValueError:
        raise _Mismatch from None
    if math.isinf(seconds):
        raise _Mismatch
    return 0 <= seconds * 10**9 < 1


def _nanoseconds(duration: str) -> int:
    """The size of what Go's ``time.ParseDuration`` reads, without its sign."""
    if _DURATION.fullmatch(duration) is None:
        raise _Mismatch
    total = 0
    for whole, fraction, bare_fraction, unit in _DURATION_STEP.findall(duration):
        digits = fraction or bare_fraction
        if len(whole) > _MOST_DIGITS or len(digits) > _MOST_DIGITS:
            raise _Mismatch
        total += int(whole or 0) * _UNITS[unit] + int(digits or 0) * _UNITS[unit] // 10 ** len(digits)
    if total > _LONGEST_DURATION:
        raise _Mismatch
    return total
