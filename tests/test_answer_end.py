"""What the end of an answer tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol.answer_end import AnswerEnd, answer_end
from foreman.protocol.framing import BodyFraming, framer_for, framing_of
from support import recordings

CHAT_END: dict[str, Any] = {
    "model": "m",
    "message": {"role": "assistant", "content": "", "done": False},
    "done": True,
    "done_reason": "stop",
    "total_duration": 3_000_000_000,
    "load_duration": 1_000_000_000,
    "prompt_eval_count": 30,
    "eval_count": 6,
    "eval_duration": 1_500_000_000,
}
KINDS: list[BodyFraming] = ["ndjson", "sse", "other"]


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def recorded(name: str) -> AnswerEnd:
    """What the last pieces of a recorded answer tell."""
    heard = recordings.load(name)["response"]
    kind = framing_of(dict(heard["headers"]).get("Content-Type", "").encode())
    cutter = framer_for(kind)
    pieces = cutter.feed(recordings.as_bytes(heard["body"]))
    if kind == "sse":  # all events of a recording are one piece
        pieces = [event + b"\n\n" for event in pieces[0].split(b"\n\n")[:-1]] if pieces else []
    kept = {"ndjson": 1, "sse": 2, "other": len(pieces)}[kind]
    return answer_end(kind, b"".join(pieces[-kept:]))


@pytest.mark.parametrize("kind", ["ndjson", "other"])
def test_the_last_object_of_a_chat_tells_what_it_cost(kind: BodyFraming) -> None:
    assert answer_end(kind, line(**CHAT_END)) == AnswerEnd(
        done=True,
        prompt_tokens=30,
        completion_tokens=6,
        eval_seconds=1.5,
        load_seconds=1.0,
        total_seconds=3.0,
        done_reason="stop",
    )


@pytest.mark.parametrize(
    "answer",
    [
        ("ndjson", line(**CHAT_END)),
        ("other", line(**CHAT_END)),
        ("sse", b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n'),
        ("sse", b'data: {"type":"response.completed","response":{"usage":{"input_tokens":1}}}\n\n'),
    ],
    ids=["ndjson", "other", "sse", "responses"],
)
def test_nothing_of_an_ordinary_answer_is_repaired(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[BodyFraming, bytes]
) -> None:
    repaired: list[bytes] = []

    def repair(data: bytes) -> bytes:
        repaired.append(data)
        return data

    monkeypatch.setattr("foreman.protocol.lenient_json.repair", repair)
    assert answer_end(*answer).done
    assert repaired == []


@pytest.mark.parametrize("kind", ["ndjson", "other"])
def test_a_chat_that_broke_off_by_itself_is_not_done(kind: BodyFraming) -> None:
    assert not answer_end(kind, line(**CHAT_END | {"done": False})).done


def test_a_line_without_an_end_marker_is_no_end() -> None:
    assert answer_end("ndjson", line(model="m", message={"content": '"done":true'}, done=False)) == AnswerEnd()
    assert answer_end("ndjson", line(status="pulling manifest")) == AnswerEnd()


def test_success_ends_a_pull() -> None:
    assert answer_end("ndjson", line(status="success")).done
    assert answer_end("other", line(status="success")).done


def test_an_error_is_an_end_and_an_error() -> None:
    for kind in ("ndjson", "other"):
        assert answer_end(kind, line(error="no")) == AnswerEnd(done=True, error=True)
    for data in (
        b'data: {"error":{"message":"no"}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"x"}}\n\n',
    ):
        found = answer_end("sse", data)
        assert (found.done, found.error) == (True, True)


def test_no_error_is_none() -> None:
    assert not answer_end("other", line(id="resp_1", error=None, usage={"input_tokens": 1})).error


@pytest.mark.parametrize(
    "last",
    [
        b'data: {"choices":[]}\n\ndata: [DONE]\n\n',
        b"data:[DONE]\n\n",
        b"data: [DONE]\r\n\r\n",
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n',
        b'event: response.incomplete\ndata: {"type":"response.incomplete"}\n\n',
        b'event: response.failed\ndata: {"type":"response.failed"}\n\n',
    ],
)
def test_each_family_has_its_end(last: bytes) -> None:
    assert answer_end("sse", last).done


def test_a_failed_response_is_an_error() -> None:
    assert answer_end("sse", b'data: {"type":"response.failed","response":{"error":{"code":"x"}}}\n\n').error


@pytest.mark.parametrize(
    "last",
    [
        b'data: {"choices":[{"delta":{"content":"[DONE]"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n',
        b": [DONE]\n\n",
        b"event: message_stop\n\n",
        b'data: {"type":"message_delta","usage":{"output_tokens":6}}\n\n',
    ],
)
def test_what_only_looks_like_an_end_is_none(last: bytes) -> None:
    assert not answer_end("sse", last).done


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("sse", b'data: {"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":6,"total_tokens":36}}\n\ndata: [DONE]\n\n'),
        ("sse", b'data: {"type":"message_delta","usage":{"input_tokens":30,"output_tokens":6}}\n\ndata: {"type":"message_stop"}\n\n'),
        ("sse", b'data: {"type":"response.completed","response":{"usage":{"input_tokens":30,"output_tokens":6}}}\n\n'),
        ("other", b'{"object":"chat.completion","usage":{"prompt_tokens":30,"completion_tokens":6}}\n'),
        ("other", b'{"type":"message","usage":{"input_tokens":30,"output_tokens":6}}\n'),
    ],
)  # fmt: skip
def test_usage_is_found_in_every_family(kind: BodyFraming, last: bytes) -> None:
    found = answer_end(kind, last)
    assert (found.done, found.prompt_tokens, found.completion_tokens) == (True, 30, 6)


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("ndjson", b'{"done":true,"prompt_eval_count":206,"prompt_eval_cached_count":205}\n'),
        ("other", b'{"prompt_eval_count":206,"prompt_eval_cached_count":205}'),
        ("other", b'{"usage":{"prompt_tokens":206,"prompt_tokens_details":{"cached_tokens":205}}}\n'),
        ("other", b'{"usage":{"input_tokens":206,"input_tokens_details":{"cached_tokens":205}}}\n'),
        ("other", b'{"type":"message","usage":{"input_tokens":1,"cache_read_input_tokens":205}}\n'),
        ("sse", b'data: {"usage":{"prompt_tokens":206,"prompt_tokens_details":{"cached_tokens":205}}}\n\ndata: [DONE]\n\n'),
        ("sse", b'data: {"type":"message_delta","usage":{"input_tokens":1,"cache_read_input_tokens":205}}\n\n'),
        ("sse", b'data: {"usage":{"input_tokens":206,"input_tokens_details":{"cached_tokens":205}}}\n\n'),
    ],
)  # fmt: skip
def test_what_came_from_the_cache_is_a_part_of_the_prompt(kind: BodyFraming, last: bytes) -> None:
    found = answer_end(kind, last)
    assert (found.prompt_tokens, found.cached_tokens) == (206, 205)


@pytest.mark.parametrize(
    "usage",
    [
        b'{"input_tokens":7,"cache_read_input_tokens":null}',
        b'{"input_tokens":7,"cache_read_input_tokens":"5"}',
        b'{"input_tokens":7,"cache_read_input_tokens":-5}',
        b'{"input_tokens":7,"input_tokens_details":null}',
        b'{"input_tokens":7,"input_tokens_details":[]}',
        b'{"input_tokens":7,"input_tokens_details":{"cached_tokens":1e400}}',
    ],
)
def test_a_cache_that_cannot_be_counted_counts_for_nothing(usage: bytes) -> None:
    found = answer_end("other", b'{"usage":' + usage + b"}")
    assert (found.prompt_tokens, found.cached_tokens) == (7, None)


def test_a_whole_value_is_a_whole_answer() -> None:
    for last in (b"{}", b"[1]", b"null\n", b' {"embeddings":[[1.5]],"prompt_eval_count":3} '):
        assert answer_end("other", last).done
    for last in (b"", b"{", b"[1", b'{"embeddings":[[1.5]', b"{} x", b'{"done":true', b"plain text"):
        assert answer_end("other", last) == AnswerEnd()
    assert answer_end("other", b'{"embeddings":[[1.5]],"prompt_eval_count":3}').prompt_tokens == 3


def test_a_transcription_is_one_line_of_another_shape() -> None:
    assert answer_end("ndjson", b'{"text":"hello"}\n').done


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None, [], {}, 10**30])
def test_a_count_that_is_none_is_not_counted(value: Any) -> None:
    found = answer_end("ndjson", line(**CHAT_END | {"eval_count": value, "usage": value, "eval_duration": value}))
    assert found.done
    assert found.prompt_tokens == 30
    if value != 10**30:
        assert (found.completion_tokens, found.eval_seconds) == (None, None)


@pytest.mark.parametrize("value", [1, "x", [], {"usage": 3}, None])
def test_a_field_of_another_shape_does_not_hide_the_end(value: Any) -> None:
    fields = {"done_reason": value, "status": value, "usage": value, "response": value, "type": value}
    assert answer_end("ndjson", line(**fields, done=True)).done
    event = json.dumps({"type": "response.completed", "response": value, "usage": value}).encode()
    assert answer_end("sse", b"data: " + event + b"\n\n").done


@given(st.sampled_from(KINDS), st.binary())
def test_garbage_tells_nothing_and_does_no_harm(kind: BodyFraming, last: bytes) -> None:
    answer_end(kind, last)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["done", "error", "usage", "response", "type", "eval_count", "status", "text"]), inner
        )
    ),
    max_leaves=10,
)


@given(st.sampled_from(KINDS), JSON)
def test_any_json_is_judged(kind: BodyFraming, value: Any) -> None:
    text = json.dumps(value).encode()
    found = answer_end(kind, b"data: " + text + b"\n\n" if kind == "sse" else text)
    if kind == "other":
        says = value.get("done") if isinstance(value, dict) else None
        assert found.done == (says is None or says is True or found.error)


def test_brackets_without_end_are_no_answer() -> None:
    for kind in KINDS:
        assert not answer_end(kind, b'data: {"usage":' + b"[" * 100_000).done
        assert not answer_end(kind, b'{"usage":' + b"[" * 100_000 + b"]" * 100_000 + b"}").done


#: Recorded answers of status 200 that do not come to an end by themselves.
UNFINISHED = {
    "generate-debug-render",
    "crash-midstream-v1-chat",
    "crash-midstream-v1-completions",
    "crash-midstream-v1-responses",
    "crash-midstream-messages",
    "disconnect-midstream",
    "stop-midstream-chat",
    "v1-chat-stream-repetition-long",
    "v1-completions-stream-repetition-long",
    "v1-responses-stream-repetition-long",
    "messages-stream-repetition-long",
}
#: Up to v0.33 these broke off in silence after 30 equal tokens.
UNFINISHED_BEFORE = {"chat-stream-repetition", "chat-nonstream-repetition", "generate-stream-repetition"}


def test_recorded_answers_are_done_but_for_those_that_broke_off() -> None:
    judged = 0
    for name in recordings.everything():
        recording = recordings.load(name)
        said, heard = recording["request"], recording["response"]
        if heard["status"] != 200 or said["method"] != "POST" or not heard["body"] or "/codex-" in name:
            continue
        judged += 1
        version, _, exchange = name.partition("/")
        unfinished = UNFINISHED if version == recordings.NEWEST else UNFINISHED | UNFINISHED_BEFORE
        assert recorded(name).done == (exchange not in unfinished), name
    assert judged > 100


@pytest.mark.parametrize(
    "name",
    [
        "chat-stream",
        "chat-nonstream",
        "generate-stream",
        "v1-chat-nonstream",
        "v1-chat-stream-usage",
        "v1-completions-stream-usage",
        "v1-responses-stream",
        "v1-responses-nonstream",
        "messages-stream",
        "messages-nonstream",
    ],
)
def test_recorded_answers_tell_their_tokens(name: str) -> None:
    found = recorded(name)
    assert found.prompt_tokens in {15, 30}
    assert found.completion_tokens in {5, 6}


@pytest.mark.parametrize("name", ["embed-batch", "embed-single", "v1-embeddings"])
def test_recorded_embeddings_tell_their_tokens(name: str) -> None:
    assert recorded(name).prompt_tokens


@pytest.mark.parametrize("name", ["crash-midstream-chat", "push-missing-model", "pull-unreachable-stream"])
def test_recorded_errors_within_a_stream_are_errors(name: str) -> None:
    assert recorded(name).error


@pytest.mark.parametrize(
    ("name", "prompt", "cached"),
    [
        ("chat-prompt-repeated", 206, 205),
        ("chat-prompt-repeated-stream", 206, 205),
        ("generate-prompt-repeated", 206, 205),
        ("v1-chat-prompt-repeated", 206, 205),
        ("v1-chat-prompt-repeated-stream-usage", 206, 205),
        ("v1-completions-prompt-repeated", 206, 205),
        ("v1-responses-prompt-repeated", 206, 205),
        ("v1-responses-prompt-repeated-stream", 206, 205),
        ("messages-prompt-repeated", 206, 205),
        ("messages-prompt-repeated-stream", 206, 205),
        ("v1-compact-nonstream", 1207, 0),
        ("v1-responses-compaction-trigger-stream", 1207, 0),
    ],
)
def test_recorded_answers_tell_what_came_from_the_cache(name: str, prompt: int, cached: int) -> None:
    found = recorded(name)
    assert (found.done, found.prompt_tokens, found.cached_tokens) == (True, prompt, cached)
