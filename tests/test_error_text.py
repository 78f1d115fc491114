"""What an error says, in whatever shape it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol.error_text import LONGEST, error_text
from support import recordings


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        (b'{"error":{"message":"too long","type":"invalid_request_error"}}', "too long"),
        (b'{"type":"error","error":{"type":"not_found_error","message":"no model"}}', "no model"),
        (b'{"error":{"code":7}}', "{'code': 7}"),
        (b'{"status":"odd"}', "{'status': 'odd'}"),
        (b'"only text"', "only text"),
        (b"502 Bad Gateway\r\n", "502 Bad Gateway"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_sentence_is_found_in_every_familys_shape(body: bytes, sentence: str) -> None:
    assert error_text(body) == sentence


@pytest.mark.parametrize(
    "name",
    ["chat-missing-model", "messages-missing-model", "v1-chat-missing-model", "queue-full-chat", "queue-full-v1-chat"],
)
def test_recorded_refusals_are_sentences(name: str) -> None:
    sentence = error_text(recordings.as_bytes(recordings.load(name)["response"]["body"]))
    assert sentence.startswith(("model '", "server busy"))


def test_no_more_of_it_is_repeated_than_somebody_reads() -> None:
    assert len(error_text(b"x" * 10_000_000)) == LONGEST
    assert len(error_text(b'{"error":"' + b"x" * 100_000 + b'"}')) == LONGEST


@pytest.mark.parametrize("depth", [*range(900, 1010), 100_000])
def test_a_deep_one_is_no_trap(depth: int) -> None:
    assert error_text(b"[" * depth + b"]" * depth)


@given(st.one_of(st.binary(), st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_whatever_comes_gives_a_text_that_can_be_stored(body: bytes) -> None:
    error_text(body).encode("utf-8")
    error_text(b'{"error":' + body + b"}").encode("utf-8")
