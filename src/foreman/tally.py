"""What the end of an answer tells: whether it is an end, whether it failed, and what it cost.

Nothing is trusted: whatever cannot be read tells nothing. Shapes: contract 2.3, 2.4 and 2.9.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from attrs import field, frozen
from msgspec import Raw

from foreman.lanes import Family
from foreman.ndjson import Kind

T = TypeVar("T")

_NANO = 1e-9
#: Routes whose unstreamed answer says by ``done`` whether the model came to an end.
_SAY_DONE = frozenset({"/api/chat", "/api/generate"})
_TRANSCRIPTIONS = "/v1/audio/transcriptions"
_ENDING_EVENTS = frozenset({
    "response.completed",
    "response.incomplete",
    "response.failed",
    "message_stop",
    "error",
})  # fmt: skip
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")


@frozen
class Tally:
    """What was found out; counts are tokens.

    :ivar done: the end marker was seen that answers of this kind have; an error counts as an end.
    :ivar error: the target reported one within the answer.
    """

    done: bool = False
    error: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    eval_seconds: float | None = None
    load_seconds: float | None = None
    total_seconds: float | None = None
    done_reason: str | None = None


_NOTHING = Tally()


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None


class _Nested(msgspec.Struct):
    """``response`` of a Responses event, or ``delta`` of a Messages event."""

    usage: Raw = Raw()
    error: Raw = Raw()
    stop_reason: Any = None


class _Value(msgspec.Struct):
    """The fields of all the values that may stand at the end of an answer."""

    done: Any = None
    done_reason: Any = None
    status: Any = None
    type: Any = None
    error: Raw = Raw()
    usage: Raw = Raw()
    response: Raw = Raw()
    delta: Raw = Raw()
    stop_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    eval_duration: Any = None
    load_duration: Any = None
    total_duration: Any = None


_value_decoder = msgspec.json.Decoder(_Value)
_nested_decoder = msgspec.json.Decoder(_Nested)
_usage_decoder = msgspec.json.Decoder(_Usage)
_raw_decoder = msgspec.json.Decoder(Raw)


def tally(kind: Kind, family: Family, path: str, last: bytes) -> Tally:
    """Judge the end of an answer.

    :param path: as in ``lanes.Way``.
    :param last: the last line of NDJSON; the last events of a stream of events; else the whole body.
    """
    if kind == "sse":
        return _of_events(last)
    value = _decode(_value_decoder, last)
    if kind == "ndjson" and path != _TRANSCRIPTIONS:
        return _NOTHING if value is None else _of_value(value, done=value.status == "success")
    if value is not None:
        return _of_value(value, done=path not in _SAY_DONE)
    if path == _TRANSCRIPTIONS:
        return Tally(done=bool(last.strip()) and not last.lstrip().startswith(b"{"))  # response_format text
    return Tally(done=_decode(_raw_decoder, last) is not None)


def _of_value(value: _Value, *, done: bool) -> Tally:
    error = _says_something(value.error)
    return Tally(
        done=done or value.done is True or error,
        error=error,
        prompt_tokens=_count(value.prompt_eval_count),
        completion_tokens=_count(value.eval_count),
        eval_seconds=_seconds(value.eval_duration),
        load_seconds=_seconds(value.load_duration),
        total_seconds=_seconds(value.total_duration),
        done_reason=_text(value.done_reason),
    )


def _of_events(last: bytes) -> Tally:
    return _NOTHING


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T | None:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _says_something(raw: Raw) -> bool:
    return bytes(raw) not in {b"", b"null"}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: Any) -> float | None:
    count = _count(value)
    return None if count is None else count * _NANO


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
