"""What the end of an answer tells: whether it is an end, whether it failed, and what it cost.

Nothing is trusted: whatever cannot be read tells nothing. Shapes: contract 2.3, 2.4 and 2.9.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

import msgspec
from attrs import evolve, frozen
from msgspec import Raw

from foreman.protocol import lenient_json
from foreman.protocol.endpoints import DONE_EVENT, DONE_MEMBER, ENDPOINTS
from foreman.protocol.framing import BodyFraming

T = TypeVar("T")

_NANOSECONDS = 1e9
#: The types of the events that end a stream of these endpoints; a stream of the others ends with ``[DONE]``.
_END_EVENTS_BY_PATH = {
    path: endpoint.end_marker
    for path, endpoint in ENDPOINTS.items()
    if endpoint.end_marker and endpoint.end_marker not in (DONE_MEMBER, DONE_EVENT)
}
_END_EVENTS = tuple(chain.from_iterable(_END_EVENTS_BY_PATH.values()))
_LINE_END = re.compile(rb"\r?\n")
#: Stands in no string of JSON, where quotes are escaped.
_DONE_MEMBER = re.compile(rb'"done"[ \t]*+:[ \t]*+true')
_ABSENT = Raw()


@frozen
class AnswerEnd:
    """What was found out; None where nothing was said.

    :ivar done: the end marker was seen that answers of this kind have; an error counts as an end.
    :ivar error: the target reported one within the answer.
    :ivar prompt_tokens: of the whole prompt; :ivar cached_tokens: how many of those the engine had in its cache.
    """

    done: bool = False
    error: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    eval_seconds: float | None = None
    prompt_seconds: float | None = None
    load_seconds: float | None = None
    total_seconds: float | None = None
    done_reason: str | None = None


class _Details(msgspec.Struct):
    """Of what OpenAI's prompt, or the input of Responses, is made up."""

    cached_tokens: Any = None


class _Usage(msgspec.Struct):
    """OpenAI counts prompt and completion; Responses and Messages count input and output.

    The input of Messages is without what came from the cache, all others include it (contract 2.9).
    """

    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    prompt_tokens_details: Raw = _ABSENT
    input_tokens_details: Raw = _ABSENT


class _Value(msgspec.Struct):
    """The fields that matter of every JSON value that may stand at the end of an answer."""

    done: Any = None
    done_reason: Any = None
    status: Any = None
    type: Any = None
    text: Raw = _ABSENT
    error: Raw = _ABSENT
    usage: Raw = _ABSENT
    response: Raw = _ABSENT
    prompt_eval_count: Any = None
    prompt_eval_cached_count: Any = None
    eval_count: Any = None
    eval_duration: Any = None
    prompt_eval_duration: Any = None
    load_duration: Any = None
    total_duration: Any = None


#: The names of those fields.
MEMBERS = _Value.__struct_fields__

_value_decoder = msgspec.json.Decoder(_Value)
_usage_decoder = msgspec.json.Decoder(_Usage)
_details_decoder = msgspec.json.Decoder(_Details)
_whole_decoder = msgspec.json.Decoder(Raw)


def answer_end(kind: BodyFraming, last: bytes, path: str | None = None) -> AnswerEnd:
    """Judge the end of an answer.

    :param last: of NDJSON the last line, of a stream of events the last of them, else the whole body.
    :param path: of the route, as in ``routes.Route``; None where the end marker of any route counts.
    """
    if kind == "sse":
        return _of_events(last, path)
    value = _decode(_value_decoder, last)
    if value is None:
        return AnswerEnd(done=_looks_whole(kind, last))
    if kind == "ndjson":
        # Transcriptions are one line of another shape (contract 1.4).
        return _of_value(value, done=value.status == "success" or _says_something(value.text))
    # A chat that was broken off by itself says "done":false in a whole answer (contract 2.3).
    return _of_value(value, done=value.done is None)


def _looks_whole(kind: BodyFraming, last: bytes) -> bool:
    """Of what is no readable object: whether it is the whole of an answer all the same."""
    if kind == "other":
        if len(last) > lenient_json.MAX_REPAIRED and last.rstrip().endswith((b"}", b"]")):
            return True  # it may hold a bad character, and is too large to be repaired
        return _decode(_whole_decoder, last) is not None
    # The end of a line that was too long to be kept whole, or one that is too large to be repaired.
    is_part = len(last) > lenient_json.MAX_REPAIRED or not last.lstrip().startswith(b"{")
    return is_part and _DONE_MEMBER.search(last) is not None


def _of_events(last: bytes, path: str | None) -> AnswerEnd:
    found = AnswerEnd()
    end_events = _END_EVENTS if path is None else _END_EVENTS_BY_PATH.get(path, ())
    for data in _data_lines(last):
        if data == b"[DONE]":
            found = evolve(found, done=found.done or path not in _END_EVENTS_BY_PATH)
        elif (value := _decode(_value_decoder, data)) is not None:
            said = _of_value(value, done=value.type in end_events)
            found = AnswerEnd(
                done=found.done or said.done,
                error=found.error or said.error,
                prompt_tokens=found.prompt_tokens if said.prompt_tokens is None else said.prompt_tokens,
                completion_tokens=found.completion_tokens if said.completion_tokens is None else said.completion_tokens,
                cached_tokens=found.cached_tokens if said.cached_tokens is None else said.cached_tokens,
            )
    return found


def _data_lines(events: bytes) -> Iterator[bytes]:
    for line in _LINE_END.split(events):
        field, colon, data = line.partition(b":")
        if colon and field == b"data":
            yield data.strip(b" ")


def _of_value(value: _Value, *, done: bool) -> AnswerEnd:
    nested = _decode(_value_decoder, value.response) if value.type in _END_EVENTS else None
    error = _says_something(value.error) or (nested is not None and _says_something(nested.error))
    usage = _decode(_usage_decoder, value.usage if nested is None else nested.usage) or _Usage()
    return AnswerEnd(
        done=done or value.done is True or error,
        error=error or value.type == "response.failed",
        prompt_tokens=_count(value.prompt_eval_count, usage.prompt_tokens, _input(usage)),
        completion_tokens=_count(value.eval_count, usage.completion_tokens, usage.output_tokens),
        cached_tokens=_count(
            value.prompt_eval_cached_count,
            usage.cache_read_input_tokens,
            _cached(usage.prompt_tokens_details),
            _cached(usage.input_tokens_details),
        ),
        eval_seconds=_seconds(value.eval_duration),
        prompt_seconds=_seconds(value.prompt_eval_duration),
        load_seconds=_seconds(value.load_duration),
        total_seconds=_seconds(value.total_duration),
        done_reason=value.done_reason if isinstance(value.done_reason, str) else None,
    )


def _input(usage: _Usage) -> int | None:
    fresh, cached = _count(usage.input_tokens), _count(usage.cache_read_input_tokens)
    return fresh if fresh is None or cached is None else fresh + cached


def _cached(details: Raw) -> Any:
    found = _decode(_details_decoder, details)
    return None if found is None else found.cached_tokens


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | Raw) -> T | None:
    if not len(data):  # a member that is not there; nothing of it could be repaired
        return None
    try:
        return lenient_json.decode(decoder, data)
    except ValueError:
        return None


def _says_something(raw: Raw) -> bool:
    return bytes(raw) not in {b"", b"null", b'""'}


def _count(*values: Any) -> int | None:
    """The first that is a number of tokens, as Go can hold it."""
    return next((value for value in values if type(value) is int and 0 <= value < 2**63), None)


def _seconds(value: Any) -> float | None:
    nanoseconds = _count(value)
    return None if nanoseconds is None else nanoseconds / _NANOSECONDS
