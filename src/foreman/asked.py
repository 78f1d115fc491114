"""What a request body asks for, read as Go's ``encoding/json`` reads it (contract 2.0, 2.6, 2.7).

Go matches keys without regard to case, lets the last duplicate win, takes ``null`` for absent and ignores what follows
the first value. ``msgspec`` reads the ordinary body in a microsecond; ``gojson`` decides wherever that could be wrong.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec
import zstandard
from attrs import frozen

from foreman import gojson
from foreman.errors import BadBody

#: What Ollama itself unpacks of a compressed body at most, in bytes (contract 1.5).
UNPACKED = 20 * 1024 * 1024

Body = bytes | mmap.mmap


class Errand(Enum):
    """What an inference route is asked to do: run, or only load or unload the model (contract 2.7)."""

    RUN = "run"
    LOAD = "load"
    UNLOAD = "unload"


@frozen
class Asked:
    """What foreman needs to know of a body.

    :ivar model: as typed; None when it is absent or cannot be read; :ivar stream: with the route's default filled in;
    :ivar sure: Ollama reads the same. Where it is False, the body is to be treated like any other.
    """

    model: str | None
    stream: bool
    errand: Errand = Errand.RUN
    sure: bool = True


class _Fields(msgspec.Struct):
    """The fields that matter; of the long ones only whether there is anything."""

    model: str | None = None
    stream: bool | None = None
    keep_alive: float | str | None = None
    messages: list[Any] | None = None
    prompt: str | None = None


#: Pointers and lists in Go: null empties them (contract 2.1, 2.2).
_NULLABLE = frozenset({"stream", "keep_alive", "messages"})

_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_READERS: dict[str, Callable[[msgspec.Raw], Any]] = {
    name: msgspec.json.Decoder(kind).decode
    for name, kind in {
        "model": str,
        "stream": bool | None,
        "keep_alive": float | str | None,
        "messages": list[msgspec.Raw] | None,
        "prompt": str,
    }.items()
}

_STREAMING = frozenset({"/api/chat", "/api/generate", "/api/pull", "/api/push", "/api/create"})
_JSON_SPACE = b" \t\r\n"

_ZERO_DURATION = re.compile(r"[-+]?(0|(0+(\.0*)?|\.0+)(ns|us|µs|μs|ms|s|m|h))((0+(\.0*)?|\.0+)(ns|us|µs|μs|ms|s|m|h))*")
_MULTIPART_MODEL = re.compile(
    rb'content-disposition:[^\r\n]*?;\s*name="?model"?\s*(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', re.I | re.S
)


def read(path: str, body: Body, encoding: bytes | None = None, content_type: bytes | None = None) -> Asked:
    """Read a body that was sent to ``path``.

    :param encoding: the Content-Encoding; zstd is unpacked on ``/v1``, as Ollama does.
    :raises BadBody: when there is nothing in it, or it stops too early; with Ollama's own text.
    """
    stream = path in _STREAMING
    if content_type is not None and content_type.strip().lower().startswith(b"multipart/form-data"):
        return _from_form(body)
    if encoding is not None and encoding.strip():
        unpacked = _unpacked(body) if encoding.strip().lower() == b"zstd" and path.startswith("/v1/") else None
        if unpacked is None:
            return Asked(None, stream, sure=False)
        body = unpacked
    _refuse_empty(path, body)
    fields = _fast(body)
    if fields is None:
        fields = _careful(body)
    if fields is None:
        return Asked(None, stream, sure=False)
    if fields.stream is not None:
        stream = fields.stream
    return Asked(fields.model, stream, _errand(path, fields))


def _refuse_empty(path: str, body: Body) -> None:
    if body[:64].strip(_JSON_SPACE) or (len(body) > 64 and body[:].strip(_JSON_SPACE)):
        return
    raise BadBody("EOF" if path.startswith("/v1/") else "missing request body")


def _fast(body: Body) -> _Fields | None:
    """The fields of an ordinary body, or None when only a careful reader can tell."""
    try:
        found = {}
        for key, value in _read_members(body).items():
            if key in _READERS:
                # Where null would leave what an earlier duplicate set, the earlier one must be known.
                if value == b"null" and key not in _NULLABLE:
                    return None
                found[key] = _READERS[key](value)
            elif gojson.folded(key) in _READERS:
                return None
        return _Fields(**found)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _careful(body: Body) -> _Fields | None:
    """The fields as Go would find them, or None where Ollama refuses the body or nobody can say."""
    try:
        members = gojson.read_object(bytes(body))
    except gojson.Truncated:
        raise BadBody("unexpected EOF") from None
    except gojson.Malformed:
        return None
    try:
        return msgspec.convert(gojson.fold(members, _READERS, _NULLABLE), _Fields)
    except msgspec.ValidationError:
        return None


def _errand(path: str, fields: _Fields) -> Errand:
    if (path == "/api/chat" and not fields.messages) or (path == "/api/generate" and not fields.prompt):
        return Errand.UNLOAD if _is_zero(fields.keep_alive) else Errand.LOAD
    return Errand.RUN


def _is_zero(keep_alive: float | str | None) -> bool:
    if isinstance(keep_alive, str):
        return _ZERO_DURATION.fullmatch(keep_alive) is not None
    return keep_alive == 0 if keep_alive is not None else False


def _from_form(body: Body) -> Asked:
    # The fields come before or behind a recording of any size, so the whole is searched.
    found = _MULTIPART_MODEL.search(body)
    if found is None:
        return Asked(None, stream=False, sure=False)
    try:
        return Asked(found[1].decode("utf-8").strip(), stream=False)
    except UnicodeDecodeError:
        return Asked(None, stream=False, sure=False)


def _unpacked(body: Body) -> bytes | None:
    """A bounded copy of a compressed body, or None when it cannot be unpacked within the bound."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=UNPACKED).stream_reader(bytes(body)) as reader:
            unpacked: bytes = reader.read(UNPACKED + 1)
    except zstandard.ZstdError:
        return None
    return unpacked if len(unpacked) <= UNPACKED else None
