"""Read the end of an answer: whether it is complete, whether it failed, and its tokens and times.

Values that cannot be read are ignored. Shapes: contract 2.3, 2.4 and 2.9.
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
#: Cannot match inside a JSON string, where quotes are escaped.
_DONE_MEMBER = re.compile(rb'"done"[ \t]*+:[ \t]*+true')
_ABSENT = Raw()


@frozen
class AnswerEnd:
    """What the end of an answer says; None where it says nothing.

    :ivar done: the end marker of the endpoint was found; an error counts as an end.
    :ivar error: the target reported an error within the answer.
    :ivar prompt_tokens: of the whole prompt; :ivar cached_tokens: how many of those came from the engine's cache.
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
    """What the prompt tokens of OpenAI, or the input tokens of Responses, consist of."""

    cached_tokens: Any = None


class _Usage(msgspec.Struct):
    """OpenAI counts prompt and completion; Responses and Messages count input and output.

    The input of Messages excludes cached tokens, all others include them (contract 2.9).
    """

    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    prompt_tokens_details: Raw = _ABSENT
    input_tokens_details: Raw = _ABSENT


class _Value(msgspec.Struct):
    """The members that matter, of every JSON value that may end an answer."""

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


#: The names of those members.
MEMBERS = _Value.__struct_fields__

_value_decoder = msgspec.json.Decoder(_Value)
_usage_decoder = msgspec.json.Decoder(_Usage)
_details_decoder = msgspec.json.Decoder(_Details)
_whole_decoder = msgspec.json.Decoder(Raw)


def answer_end(kind: BodyFraming, last: bytes, path: str | None = None) -> AnswerEnd:
    """Read the end of an answer.

    :param last: of NDJSON the last line, of an event stream the last events, else the whole body.
    :param path: of the endpoint, as in ``routes.Route``; None where the end marker of any endpoint counts.
    """
    if kind == "sse":
        return _of_events(last, path)
    value = _decode(_value_decoder, last)
    if value is None:
        return AnswerEnd(done=_looks_complete(kind, last))
    if kind == "ndjson":
        # Transcriptions are one line of another shape (contract 1.4).
        return _of_value(value, done=value.status == "success" or _is_present(value.text))
    # A chat that Ollama itself broke off has "done":false in an unstreamed answer (contract 2.3).
    return _of_value(value, done=value.done is None)


def _looks_complete(kind: BodyFraming, last: bytes) -> bool:
    """Whether something that is not a readable object is a complete answer nevertheless."""
    if kind == "other":
        if len(last) > lenient_json.MAX_REPAIRED and last.rstrip().endswith((b"}", b"]")):
            return True  # it may have a bad character, and is too large to be repaired
        return _decode(_whole_decoder, last) is not None
    # The end of a line that was too long to be kept, or a line that is too large to be repaired.
    is_part = len(last) > lenient_json.MAX_REPAIRED or not last.lstrip().startswith(b"{")
    return is_part and _DONE_MEMBER.search(last) is not None


def _of_events(last: bytes, path: str | None) -> AnswerEnd:
    found = AnswerEnd()
    end_events = _END_EVENTS if path is None else _END_EVENTS_BY_PATH.get(path, ())
    for data in _data_lines(last):
        if data == b"[DONE]":
            found = evolve(found, done=found.done or path not in _END_EVENTS_BY_PATH)
        elif (value := _decode(_value_decoder, data)) is not None:
            event = _of_value(value, done=value.type in end_events)
            found = AnswerEnd(
                done=found.done or event.done,
                error=found.error or event.error,
                prompt_tokens=found.prompt_tokens if event.prompt_tokens is None else event.prompt_tokens,
                completion_tokens=found.completion_tokens
                if event.completion_tokens is None
                else event.completion_tokens,
                cached_tokens=found.cached_tokens if event.cached_tokens is None else event.cached_tokens,
            )
    return found


def _data_lines(events: bytes) -> Iterator[bytes]:
    for line in _LINE_END.split(events):
        field, colon, data = line.partition(b":")
        if colon and field == b"data":
            yield data.strip(b" ")


def _of_value(value: _Value, *, done: bool) -> AnswerEnd:
    nested = _decode(_value_decoder, value.response) if value.type in _END_EVENTS else None
    error = _is_present(value.error) or (nested is not None and _is_present(nested.error))
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
    if not len(data):  # a missing member, which cannot be repaired
        return None
    try:
        return lenient_json.decode(decoder, data)
    except ValueError:
        return None


def _is_present(raw: Raw) -> bool:
    return bytes(raw) not in {b"", b"null", b'""'}


def _count(*values: Any) -> int | None:
    """The first value that is a number of tokens within Go's range."""
    return next((value for value in values if type(value) is int and 0 <= value < 2**63), None)


def _seconds(value: Any) -> float | None:
    nanoseconds = _count(value)
    return None if nanoseconds is None else nanoseconds / _NANOSECONDS
