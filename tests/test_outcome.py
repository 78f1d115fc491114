"""What a try has come to: every combination of what may be heard."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman import errors
from foreman.errors import FailureReason
from foreman.jobs.artifacts import ERROR, PARTIAL, RESPONSE, STREAM
from foreman.jobs.job import Usage
from foreman.jobs.retry_policy import AttemptError
from foreman.protocol.framing import BodyFraming, framer_for, framing_of
from foreman.store.sqlite.statements.rows import usage_from, usage_text
from foreman.util.slices import at_once
from foreman.worker import outcome
from foreman.worker.outcome import AttemptResponse, Success, partial_artifacts
from support import recordings


def judge(one: AttemptResponse) -> Success | AttemptError:
    return at_once(outcome.classify(one))


LINE = b'{"model":"m","message":{"role":"assistant","content":"a"},"done":false}\n'
LAST = b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","eval_count":2}\n'
JSON = "application/json; charset=utf-8"
COMPLETION = b'{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'


def heard(status: int | None = 200, *pieces: bytes, kind: BodyFraming = "ndjson", **more: Any) -> AttemptResponse:
    types = {"ndjson": "application/x-ndjson", "sse": "text/event-stream", "other": JSON}
    return AttemptResponse(status=status, kind=kind, pieces=list(pieces), **{"content_type": types[kind], **more})


def class_of(one: AttemptResponse) -> str:
    """``success``, or the class of the mishap."""
    found = judge(one)
    return "success" if isinstance(found, Success) else found.error_class


def broken(why: FailureReason) -> errors.ConnectionError:
    return errors.ConnectionError(why, "it broke off")


@pytest.mark.parametrize("why", get_args(FailureReason))
def test_without_a_head_it_depends_on_whether_the_target_had_taken_the_request(why: FailureReason) -> None:
    found = judge(heard(None, problem=broken(why)))
    assert isinstance(found, AttemptError)
    assert found.error_class == ("silent" if why == "silence" else "unreachable")
    assert found.reached is (why in {"reset", "garbage", "status"})
    assert found.message == "it broke off"


@pytest.mark.parametrize("bad", [b"\\ud83d", b"\xff", b"\x00", b"\xed\xa0\xbd"])
def test_a_bad_character_does_not_throw_an_answer_away(bad: bytes) -> None:
    found = judge(heard(200, LINE.replace(b'"a"', b'"a%b"' % bad), LAST.replace(b'"m"', b'"m%b"' % bad)))
    assert isinstance(found, Success)
    response, stream = found.artifacts
    text = json.loads(response.data)["message"]["content"]
    assert text.strip("\ufffd\0") == "a"
    assert bad in stream.data
    assert found.usage.completion_tokens == 2
    whole = judge(heard(200, COMPLETION.replace(b"chat.", b"chat%b." % bad), kind="other", in_lines=False))
    assert isinstance(whole, Success)
    assert whole.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (400, b'{"error":"bad option"}', "refused"),
        (404, b'{"error":"model \'x\' not found"}', "model_missing"),
        (404, b'{"error":{"message":"model \\"x\\" not found, try pulling it first"}}', "model_missing"),
        (404, b"404 page not found", "refused"),
        (401, b'{"error":"unauthorized"}', "unauthorized"),
        (403, b"", "unauthorized"),
        (413, b"", "refused"),
        (422, b"", "refused"),
        (307, b"", "refused"),
        (429, b"", "busy"),
        (503, b'{"error":"server busy, please try again."}', "busy"),
        (500, b'{"error":"model runner has unexpectedly stopped"}', "target_error"),
        (502, b"<html>", "target_error"),
        (504, b"", "target_error"),
    ],
)
@pytest.mark.parametrize("problem", [None, broken("reset")])
def test_a_refusal_is_judged_by_its_status_whether_or_not_it_came_whole(
    status: int, body: bytes, error_class: str, problem: errors.ForemanError | None
) -> None:
    one = heard(status, body, kind="other", problem=problem, retry_after=7.0)
    found = judge(one)
    assert isinstance(found, AttemptError)
    assert found.error_class == error_class
    assert found.retry_after == (None if error_class == "model_missing" else 7.0)
    assert found.message.startswith(f"{status}: ")
    (kept,) = partial_artifacts(one, found)
    assert (kept.name, kept.type, kept.data) == (ERROR, JSON, body)


@pytest.mark.parametrize(
    ("one", "came_to"),
    [
        (heard(200, LINE, LAST), "success"),
        (heard(200, LINE, LAST, b"\n"), "success"),
        (heard(200, LINE, LAST.rstrip()), "success"),
        (heard(201, LAST), "success"),
        (heard(200, LINE), "truncated"),
        (heard(200), "truncated"),
        (heard(200, b"\n"), "truncated"),
        (heard(200, LINE, LAST[:20]), "truncated"),
        (heard(200, LINE, problem=broken("reset")), "truncated"),
        (heard(200, LINE, LAST, problem=broken("reset")), "truncated"),
        (heard(200, LINE, problem=broken("silence")), "silent"),
        (heard(200, LINE, problem=errors.ReaderStalled("?")), "target_error"),
        (heard(200, LINE, b'{"error":"model runner has unexpectedly stopped"}\n'), "target_error"),
        (heard(200, LINE, b"[]\n", LAST), "target_error"),
        (heard(200, COMPLETION, kind="other"), "success"),
        (heard(200, COMPLETION[:-1], kind="other"), "truncated"),
        (heard(200, b'{"done":false}', kind="other"), "truncated"),
        (heard(200, LAST, kind="other"), "success"),
        (heard(200, b'{"error":{"message":"no"}}', kind="other"), "target_error"),
        (heard(200, b"", kind="other"), "truncated"),
        (heard(200, b"", kind="other", content_type=""), "truncated"),
        (heard(200, b"<html>sign in</html>", kind="other", content_type="text/html"), "truncated"),
        (heard(200, b"spoken words", kind="other", content_type="text/plain; charset=utf-8"), "success"),
        (heard(200, b"WEBVTT\n", kind="other", content_type="Text/VTT"), "success"),
        (heard(200, b"spoken", kind="other", content_type="text/plain", problem=broken("reset")), "truncated"),
        (heard(200, b'data: {"x":1}\n\n', b"data: [DONE]\n\n", kind="sse"), "success"),
        (heard(200, b'data: {"x":1}\n\n', kind="sse"), "truncated"),
    ],
)
def test_a_success_has_its_whole_and_its_end(one: AttemptResponse, came_to: str) -> None:
    assert class_of(one) == came_to


def test_a_stream_becomes_the_answer_and_its_lines() -> None:
    found = judge(heard(200, LINE, LINE, LAST))
    assert isinstance(found, Success)
    response, stream = found.artifacts
    assert (response.name, response.type, stream.name, stream.type) == (RESPONSE, JSON, STREAM, "application/x-ndjson")
    assert json.loads(response.data)["message"]["content"] == "aa"
    assert stream.data == LINE + LINE + LAST
    assert found.usage == Usage(completion_tokens=2)


def test_a_line_that_came_in_parts_is_one() -> None:
    found = judge(heard(200, LINE, LINE[:30], LINE[30:], LAST[:9], LAST[9:]))
    assert isinstance(found, Success)
    assert json.loads(found.artifacts[0].data)["message"]["content"] == "aa"


@pytest.mark.parametrize("body", [b'{"text":"spoken words"}\n', b"spoken words\n", b"two\nlines"])
def test_a_transcription_is_called_a_stream_and_stays_as_it_came(body: bytes) -> None:
    one = heard(200, *body.splitlines(keepends=True), in_lines=False)
    found = judge(one)
    assert isinstance(found, Success)
    (response,) = found.artifacts
    assert (response.name, response.type, response.data) == (RESPONSE, "application/x-ndjson", body)
    assert class_of(heard(200, b"\n", in_lines=False)) == "truncated"
    assert class_of(heard(200, b'{"error":"crashed"}\n', in_lines=False)) == "target_error"
    assert class_of(heard(200, b"spoken", in_lines=False, problem=broken("reset"))) == "truncated"


def test_a_whole_answer_stays_byte_for_byte() -> None:
    found = judge(heard(200, COMPLETION[:9], COMPLETION[9:], kind="other"))
    assert isinstance(found, Success)
    (response,) = found.artifacts
    assert (response.data, response.type) == (COMPLETION, JSON)
    assert found.usage == Usage(3, 4)


def test_what_came_from_the_cache_is_kept_with_the_usage() -> None:
    found = judge(
        heard(200, b'{"usage":{"input_tokens":1,"cache_read_input_tokens":205,"output_tokens":4}}', kind="other")
    )
    assert isinstance(found, Success)
    assert found.usage == Usage(206, 4, cached_tokens=205)
    assert usage_from(usage_text(found.usage)) == found.usage


def test_a_usage_of_another_version_is_read_as_far_as_it_is_known() -> None:
    kept = '{"prompt_tokens":3,"completion_tokens":4,"load_ms":null,"total_ms":5}'
    assert usage_from(kept) == Usage(3, 4, None, 5)
    assert usage_from(kept[:-1] + ',"of_a_later_version":1}') == Usage(3, 4, None, 5)


def test_of_a_try_that_broke_off_the_lines_are_kept_and_what_went_wrong() -> None:
    one = heard(200, LINE, LINE, problem=broken("reset"))
    found = judge(one)
    assert isinstance(found, AttemptError)
    error, partial = partial_artifacts(one, found)
    assert (error.name, json.loads(error.data)) == (ERROR, {"class": "truncated", "message": "it broke off"})
    assert (partial.name, partial.type, partial.data) == (PARTIAL, "application/x-ndjson", LINE + LINE)


def test_of_a_try_that_heard_nothing_only_what_went_wrong_is_kept() -> None:
    one = heard(None, problem=broken("refused"))
    assert [kept.name for kept in partial_artifacts(one, AttemptError("unreachable", "x"))] == [ERROR]


def test_a_count_that_no_number_of_gos_can_be_is_none() -> None:
    found = judge(heard(200, b'{"done":true,"eval_count":%d,"total_duration":%d}\n' % (2**63, 10**400)))
    assert isinstance(found, Success)
    assert found.usage == Usage()


STATUSES = st.one_of(st.none(), st.integers(100, 599))
PROBLEMS = st.one_of(
    st.none(),
    st.sampled_from(get_args(FailureReason)).map(broken),
    st.sampled_from([errors.ReaderStalled("slow"), errors.Draining("stops"), errors.TargetError("no")]),
)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([2**63, 2**64, -(2**70), 10**400]))
NEARLY = st.dictionaries(
    st.sampled_from("done done_reason error message status type text usage response eval_count total_duration".split()),
    st.one_of(
        st.booleans(), st.none(), NUMBERS, st.text(max_size=4), st.just({}), st.just({"role": None, "content": 1})
    ),
).map(lambda value: json.dumps(value).encode() + b"\n")
PIECES = st.lists(
    st.one_of(st.binary(max_size=40), NEARLY, st.sampled_from([LINE, LAST, COMPLETION, b"\n"])), max_size=5
)


@given(STATUSES, st.sampled_from(get_args(BodyFraming)), st.text(max_size=20), PIECES, PROBLEMS)
def test_whatever_comes_is_judged_and_can_be_stored(
    status: int | None, kind: BodyFraming, content_type: str, pieces: list[bytes], problem: errors.ForemanError | None
) -> None:
    one = AttemptResponse(status=status, content_type=content_type, kind=kind, pieces=pieces, problem=problem)
    found = judge(one)
    if isinstance(found, Success):
        assert status is not None
        assert 200 <= status < 300
        assert problem is None
        assert usage_from(usage_text(found.usage)) == found.usage
        assert found.artifacts[0].name == RESPONSE
    else:
        found.message.encode("utf-8")
        assert partial_artifacts(one, found)[0].name == ERROR


def recorded(name: str) -> AttemptResponse:
    """A recorded answer as a try hears it."""
    said = recordings.load(name)["response"]
    status = int(said["status_line"].split()[1])
    content_type = dict(said["headers"]).get("Content-Type", "")
    kind = framing_of(content_type.encode())
    cutter = framer_for(kind)
    chunks = said.get("chunks")
    parts = [recordings.as_bytes(text) for _, text in chunks] if chunks else [recordings.as_bytes(said["body"])]
    pieces = [piece for part in parts for piece in cutter.feed(part)]
    rest = cutter.rest()
    torn = said.get("torn") or said.get("aborted_by_client")
    problem = broken("reset") if torn else None
    return heard(status, *pieces, *([rest] if rest else []), kind=kind, content_type=content_type, problem=problem)


@pytest.mark.parametrize(
    ("name", "came_to"),
    [
        ("chat-stream", "success"),
        ("generate-stream", "success"),
        ("chat-nonstream", "success"),
        ("v1-chat-nonstream", "success"),
        ("v1-completions-nonstream", "success"),
        ("v1-responses-nonstream", "success"),
        ("messages-nonstream", "success"),
        ("embed-single", "success"),
        ("embeddings-legacy", "success"),
        ("v1-embeddings", "success"),
        ("v0.33.0-rc2/chat-stream-repetition", "truncated"),
        ("chat-stream-repetition-long", "target_error"),
        ("crash-midstream-chat", "target_error"),
        ("crash-midstream-generate", "target_error"),
        ("load-failure-chat", "target_error"),
        ("chat-missing-model", "model_missing"),
        ("v1-chat-missing-model", "model_missing"),
        ("messages-missing-model", "model_missing"),
        ("v1-responses-missing-model", "model_missing"),
        ("queue-full-chat", "busy"),
        ("queue-full-v1-chat", "busy"),
        ("chat-format-bad", "target_error"),
        ("chat-malformed-json", "refused"),
        ("chat-tools-unsupported", "refused"),
        ("v1-chat-wrong-type", "refused"),
    ],
)
def test_recorded_answers_come_to_what_they_are(name: str, came_to: str) -> None:
    assert class_of(recorded(name)) == came_to


def test_the_end_of_a_large_stream_of_events_tells_and_its_beginning_too() -> None:
    start = b'event: message_start\ndata: {"type":"message_start","usage":{"input_tokens":5}}\n\n'
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta"}\n\n'
    end = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":9}}\n\n'
    stop = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    one = heard(200, start, *[delta] * 50_000, end, stop, kind="sse", endpoint="/v1/messages")
    found = judge(one)
    assert isinstance(found, Success)
    assert found.usage.completion_tokens == 9
    assert isinstance(judge(heard(200, start, *[delta] * 50_000, end, kind="sse")), AttemptError)


@pytest.mark.parametrize(
    ("filler", "whole"),
    [(b'"a"', True), (b'"' + rb"\n" * 8_000_000 + b'"', True), (b"[" + b"0," * 400_000 + b"0]", True), (b'"' + rb"\n" * 8_000_000, False)],
)  # fmt: skip
def test_a_large_answer_in_one_piece_is_looked_at_in_slices(filler: bytes, whole: bool) -> None:
    body = (
        b'{"object":"chat.completion","choices":[{"text":%b}],"usage":{"prompt_tokens":3,"completion_tokens":4}}'
        % filler
    )
    slices = outcome.classify(heard(200, *(body[at : at + 65536] for at in range(0, len(body), 65536)), kind="other"))
    if len(body) > 10_000_000:
        next(slices)
    found = at_once(slices)
    assert isinstance(found, Success) == whole
    if isinstance(found, Success):
        assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 4)


@pytest.mark.parametrize(
    ("behind", "tokens"),
    [(b',"total_duration":5,"load_duration":1,"prompt_eval_count":7}', 7), (b',"usage":{"prompt_tokens":7,"total_tokens":7}}', 7),
     (b"}", None), (b',"x":{"y":[1]}}', None)],
)  # fmt: skip
def test_embeddings_with_more_numbers_than_are_looked_at_are_whole(behind: bytes, tokens: int | None) -> None:
    body = b'{"model":"m","embeddings":[[' + b"-0.1234567," * 2_500_000 + b"0]]" + behind
    found = judge(heard(200, body, kind="other", in_lines=False))
    assert isinstance(found, Success)
    assert found.usage.prompt_tokens == tokens


def test_many_lines_and_a_large_refusal_are_judged_in_slices() -> None:
    slices = outcome.classify(heard(200, *[LINE] * 50_000, LAST))
    assert sum(1 for _ in slices) > 20
    large = heard(500, *[b"x" * 65536] * 500, kind="other", content_type="text/html")
    found = judge(large)
    assert isinstance(found, AttemptError)
    assert len(found.message) < 3000


def test_a_line_in_parts_is_judged_whole() -> None:
    long = b'{"model":"m","message":{"content":"' + b"a" * 9_000_000 + b'"},"done":true,"eval_count":2}\n'
    found = judge(heard(200, LINE, *(long[at : at + 65536] for at in range(0, len(long), 65536)), b"\n", b" \n"))
    assert isinstance(found, Success)
    assert found.usage.completion_tokens == 2
