"""Read a request body as Go does: its model, whether it requests a stream, and its intent (contract 2.0, 2.6, 2.7)."""

from __future__ import annotations

import math
import re
from enum import Enum

from attrs import evolve, field, frozen

from foreman.errors import BadBody
from foreman.protocol import go_duration, go_json, multipart
from foreman.protocol.body_values import (
    LONGEST,
    MAX_DECOMPRESSED,
    MemberValues,
    Values,
    decompress_in_slices,
    values_in_slices,
)
from foreman.protocol.endpoints import BodyFormat, Endpoint, Streaming, endpoint_of
from foreman.protocol.go_json import Body
from foreman.util.byte_budget import ByteBudget
from foreman.util.slices import Slices, at_once


class Intent(Enum):
    """What the target is to do with a model: run it, only load it, or unload it."""

    RUN = "run"
    LOAD = "load"
    UNLOAD = "unload"


@frozen
class RequestBody:
    """What foreman needs to know of a request body.

    :ivar model: as typed; None where it is missing or blank.
    :ivar stream: whether the answer is a stream, with the endpoint's default applied.
    :ivar readable: False where foreman could not read the body; then the other attributes have no meaning.
    :ivar length: of the part of the body that Ollama reads, in bytes, on native inference routes; None: all of it.
    """

    model: str | None
    stream: bool
    intent: Intent = Intent.RUN
    readable: bool = True
    length: int | None = field(default=None, eq=False)


_NULL, _EMPTY = b"null", b'""'
_FLAGS = {b"true": True, b"false": False}
_QUOTE, _BRACKET = b'"['
_NO_ITEMS = re.compile(rb"\[[ \t\r\n]*+\]")
_All = list[bytes] | None


#: Nobody writes a longer ``keep_alive``, in bytes.
_LONGEST_DURATION = 1000


class _Mismatch(ValueError):
    """Ollama refuses the value of a member, or it is too long."""


def read(
    path: str, body: Body, encoding: bytes | None = None, content_type: bytes | None = None, query: bytes = b""
) -> RequestBody:
    """Read a body without a pause; see ``read_in_slices``."""
    return at_once(read_in_slices(path, body, encoding, content_type, query))


def read_in_slices(
    path: str,
    body: Body,
    encoding: bytes | None = None,
    content_type: bytes | None = None,
    query: bytes = b"",
    budget: ByteBudget | None = None,
) -> Slices[RequestBody]:
    """Read a body in slices.

    :param path: as in ``routes.Route``; :param encoding: the ``Content-Encoding``; :param query: of the request, raw;
    :param budget: for all compressed bodies that are read, which are decompressed meanwhile.
    :raises BadBody: where the body is empty or cut short, with Ollama's text. Other invalid bodies are Ollama's to refuse;
        they are returned as not ``readable``.
    """
    endpoint = endpoint_of(path)
    if endpoint.body is BodyFormat.FORM:
        # A query would win over the form (Go's FormValue).
        model = None if query else (yield from multipart.field("model", body, content_type or b""))
        return RequestBody(model, stream=False) if model else _unreadable(endpoint)
    try:
        if encoding == b"zstd" and path.startswith("/v1/"):
            values = yield from _compressed_values(body, ByteBudget(MAX_DECOMPRESSED) if budget is None else budget)
        else:
            values = yield from values_in_slices(body)
        if endpoint.body is BodyFormat.STRICT and not values.is_plain:
            return _unreadable(endpoint)
        return _interpret(endpoint, values)
    except go_json.Empty:
        if _refuses_itself(endpoint):
            return RequestBody(None, stream=False)  # without a model, Ollama refuses it without taking a turn
        raise BadBody("EOF" if path.startswith("/v1/") else "missing request body") from None
    except go_json.Truncated:
        if _refuses_itself(endpoint):
            return _unreadable(endpoint)
        raise BadBody("unexpected EOF") from None
    except go_json.Unreadable:
        return _unreadable(endpoint)


def _compressed_values(body: Body, budget: ByteBudget) -> Slices[Values]:
    plain = yield from decompress_in_slices(body, budget)
    try:
        return (yield from values_in_slices(plain))
    finally:
        budget.give(len(plain))


def _refuses_itself(endpoint: Endpoint) -> bool:
    """Whether a body that is empty or cut short is Ollama's to refuse: in its own words, or since it lacks the endpoint."""
    return endpoint.body is BodyFormat.STRICT or endpoint.versions != "all"


def _unreadable(endpoint: Endpoint) -> RequestBody:
    return RequestBody(None, endpoint.streaming is Streaming.BY_DEFAULT, readable=False)


def _interpret(endpoint: Endpoint, values: Values) -> RequestBody:
    length = values.length if endpoint.body is BodyFormat.FIRST_VALUE else None
    try:
        body = _from_members(endpoint, values.by_name)
    except _Mismatch:
        body = _unreadable(endpoint)
    return evolve(body, length=length)


def _from_members(endpoint: Endpoint, found: MemberValues) -> RequestBody:
    model = _text(found.get("model"))
    name = _text(found.get("name")) if endpoint.takes_name else ""
    model = model or name
    # Of a blank name each route says in its own words that it is missing.
    return RequestBody(
        model if model.strip() else None, _stream(endpoint, found.get("stream")), _intent(endpoint, found)
    )


def _intent(endpoint: Endpoint, found: MemberValues) -> Intent:
    if endpoint.content is None:
        return Intent.RUN
    content = found.get(endpoint.content)
    has_content = _has_items(content) if endpoint.content == "messages" else _has_text(content)
    unloads = False
    for value in found.get("keep_alive", ()):
        unloads = value != _NULL and _is_zero(value)
    if has_content:
        return Intent.RUN
    return Intent.UNLOAD if unloads else Intent.LOAD


def _stream(endpoint: Endpoint, values: _All) -> bool:
    if endpoint.streaming is Streaming.NEVER:
        return False
    stream = by_default = endpoint.streaming is Streaming.BY_DEFAULT
    for value in values or ():
        if value in _FLAGS:
            stream = _FLAGS[value]
        elif value != _NULL:
            raise _Mismatch
        elif endpoint.null_resets_stream:
            stream = by_default
    return stream


def _text(values: _All) -> str:
    last = _last_string(values)
    if len(last) >= LONGEST:
        raise _Mismatch
    return go_json.text(last)


def _has_text(values: _All) -> bool:
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
    has_items = False
    for value in values or ():
        if value[0] == _BRACKET:
            has_items = _NO_ITEMS.fullmatch(value) is None
        elif value != _NULL:
            raise _Mismatch
        else:
            has_items = False
    return has_items


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
