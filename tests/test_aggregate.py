"""The unstreamed answer made of the lines of a stream, against what a real Ollama answers unstreamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol.aggregate import LONGEST_LINE
from foreman.protocol.aggregate import aggregate as in_slices
from foreman.util.slices import at_once
from support import recordings


def aggregate(lines: list[bytes]) -> bytes:
    return at_once(in_slices(lines))


#: What differs from one answer to the next.
MEASURED = (
    "created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "prompt_eval_cached_count",
)  # fmt: skip


def lines_of(name: str) -> list[bytes]:
    return [
        line for line in recordings.as_bytes(recordings.load(name)["response"]["body"]).split(b"\n") if line.strip()
    ]


def unmeasured(value: Any) -> Any:
    return {name: None if name in MEASURED else member for name, member in value.items()}


def order(value: Any) -> Any:
    """The names of the members of all objects, in order."""
    if isinstance(value, dict):
        return [(name, order(member)) for name, member in value.items()]
    return [order(member) for member in value] if isinstance(value, list) else None


@pytest.mark.parametrize(
    ("stream", "whole"),
    [
        ("chat-stream", "chat-nonstream"),
        ("chat-stream-engine-template", "chat-nonstream-engine-template"),
        ("chat-think-stream", "chat-think-nonstream"),
        ("chat-tools-stream", "chat-tools-nonstream"),
        ("generate-stream", "generate-nonstream"),
    ],
)
def test_it_has_the_members_of_a_real_one_in_their_order(stream: str, whole: str) -> None:
    streamed, asked = recordings.load(stream)["request"]["body"], recordings.load(whole)["request"]["body"]
    made = json.loads(aggregate(lines_of(stream)))
    real = json.loads(recordings.as_bytes(recordings.load(whole)["response"]["body"]))
    assert order(made) == order(real)
    same = json.loads(recordings.as_bytes(streamed))
    same.pop("stream", None)
    other = json.loads(recordings.as_bytes(asked))
    other.pop("stream", None)
    if same == other:
        made, real = unmeasured(made), unmeasured(real)
        for call in (*made.get("message", {}).get("tool_calls", ()), *real.get("message", {}).get("tool_calls", ())):
            call["id"] = None
        assert made == real


def test_the_lines_of_a_stream_are_put_together_member_by_member() -> None:
    lines = [
        b'{"model":"m","message":{"role":"assistant","content":"","thinking":"Hm"},"logprobs":[{"a":1}],"done":false}',
        b'{"model":"m","message":{"role":"assistant","content":"","thinking":"m."},"done":false}',
        b'{"model":"m","message":{"role":"assistant","content":"He <"},"logprobs":[{"a":2},{"a":3}],"done":false}',
        b'{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"f":1}]},"done":false}',
        b'{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"f":2}]},"done":false}',
        b'{"model":"m","message":{"role":"assistant","content":"b"},"done":true,"done_reason":"stop","eval_count":7}',
    ]
    assert aggregate(lines) == (
        b'{"model":"m","message":{"role":"assistant","content":"He \\u003cb","thinking":"Hmm.",'
        b'"tool_calls":[{"f":1},{"f":2}]},"done":true,"done_reason":"stop","logprobs":[{"a":1},{"a":2},{"a":3}],'
        b'"eval_count":7}'
    )


def test_what_is_null_says_nothing() -> None:
    lines = [
        b'{"response":null,"thinking":null,"logprobs":null,"done":false}',
        b'{"response":"a","thinking":null,"done":false}',
        b'{"response":"","logprobs":null,"done":true,"context":[1,2]}',
    ]
    assert aggregate(lines) == b'{"response":"a","logprobs":null,"done":true,"context":[1,2]}'


@given(st.lists(st.text(), min_size=1, max_size=6))
def test_the_text_is_that_of_all_lines(texts: list[str]) -> None:
    last = len(texts) - 1
    lines = [
        json.dumps({"response": text, "done": number == last}, ensure_ascii=False).encode()
        for number, text in enumerate(texts)
    ]
    made = aggregate(lines)
    assert json.loads(made) == {"response": "".join(texts), "done": True}
    assert not any(character in made.decode() for character in "<>&\u2028\u2029")


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"[]"],
        [b"{"],
        [b'{"done":true}', b"\xff"],
        [b'{"response":7}'],
        [b'{"message":[]}'],
        [b'{"logprobs":{}}'],
        [b"[" * 100_000],
    ],
)
def test_what_cannot_be_read_is_told(lines: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        aggregate(lines)


@given(st.lists(st.binary(max_size=30), max_size=4))
def test_whatever_comes_gives_an_answer_or_a_plain_refusal(lines: list[bytes]) -> None:
    try:
        aggregate(lines)
    except ValueError as problem:
        assert type(problem) is ValueError  # noqa: PT017


def test_many_lines_are_put_together_in_slices() -> None:
    line = '{"message":{"role":"assistant","content":"é<\u2028"},"done":false}'.encode()
    last = b'{"message":{"role":"assistant","content":""},"done":true}'
    slices = in_slices([*[line] * 20_000, last])
    assert sum(1 for _ in slices) > 10
    made = aggregate([*[line] * 20_000, last])
    assert json.loads(made)["message"]["content"] == "é<\u2028" * 20_000
    assert made.count(rb"\u003c") == made.count(rb"\u2028") == 20_000


def test_a_line_that_nobody_could_read_is_refused() -> None:
    long = b'{"message":{"role":"assistant","content":"' + b"a" * LONGEST_LINE + b'"},"done":true}'
    with pytest.raises(ValueError, match="a line has"):
        aggregate([long])
