"""How things and failures look to a client, in the shape of its family (contract 1.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman import errors
from foreman.protocol import go_json
from foreman.protocol.endpoints import Family
from foreman.proxy.request import ModelMissing
from foreman.web.server.responses import (
    PHRASES,
    error_reply,
    error_value,
    failure_reply,
    final_error,
    json_reply,
    redirect_reply,
)
from foreman.web.server.statuses import STATUS

ID = "0123456789abcdef01234567"
FAMILIES: list[Family] = ["ollama", "openai", "anthropic"]


def text_of(family: Family, body: bytes) -> str:
    """What a client of ``family`` shows of an error."""
    value: Any = json.loads(body)
    return str(value["error"] if family == "ollama" else value["error"]["message"])


# JSON


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_json_is_read_back_and_has_none_of_the_letters_that_go_escapes(value: Any) -> None:
    text = go_json.encode(value)
    assert json.loads(text) == value
    assert not set(b"<>&\n") & set(text)
    assert "\u2028".encode() not in text


def test_a_value_is_answered_as_ollama_answers_values() -> None:
    reply = json_reply(200, {"a": "<b>"}, [(b"X-A", b"b")])
    assert reply.body == b'{"a":"\\u003cb\\u003e"}'
    assert reply.headers == [(b"Content-Type", b"application/json; charset=utf-8"), (b"X-A", b"b")]


# errors


def test_an_error_has_the_shape_of_its_family() -> None:
    assert error_value("ollama", 404, "no", ID) == {"error": "no"}
    assert error_value("openai", 404, "no", ID) == {
        "error": {"message": "no", "type": "not_found_error", "param": None, "code": None}
    }
    assert error_value("anthropic", 404, "no", ID) == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "no"},
        "request_id": f"req_{ID}",
    }


@pytest.mark.parametrize(
    ("status", "openai", "anthropic"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "not_found_error", "not_found_error"),
        (408, "api_error", "api_error"),
        (413, "api_error", "request_too_large"),
        (429, "api_error", "rate_limit_error"),
        (500, "api_error", "api_error"),
        (502, "api_error", "api_error"),
        (503, "api_error", "overloaded_error"),
        (529, "api_error", "overloaded_error"),
    ],
)
def test_the_type_of_an_error_follows_its_status(status: int, openai: str, anthropic: str) -> None:
    assert error_value("openai", status, "", ID)["error"]["type"] == openai
    assert error_value("anthropic", status, "", ID)["error"]["type"] == anthropic


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("early", [False, True])
def test_an_error_ends_and_is_labelled_as_ollamas_own(family: Family, early: bool) -> None:
    reply = error_reply(family, 400, "no", ID, early=early)
    late = family != "ollama" and not early
    assert reply.body.endswith(b"\n") == late
    assert (dict(reply.headers)[b"Content-Type"] == b"application/json") == late
    assert text_of(family, reply.body) == "no"


# failures


@pytest.mark.parametrize(
    ("problem", "status", "retry"),
    [
        (ModelMissing("model 'x' not found"), 404, False),
        (errors.BadBody("EOF"), 400, False),
        (errors.InvalidName("invalid model name"), 400, False),
        (errors.QueueFull("server busy, please try again.  maximum pending requests exceeded"), 503, True),
        (errors.Draining("foreman is stopping"), 503, True),
        (errors.Cancelled("cancelled by hand"), 410, False),
        (errors.ConnectionError("refused", "the target refuses connections"), 502, True),
        (errors.ConnectionError("garbage", "the target's answer is not HTTP"), 502, True),
        (errors.ForemanError("foreman failed"), 500, False),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_failure_has_its_status_and_says_when_trying_again_helps(
    family: Family, problem: errors.ForemanError, status: int, retry: bool
) -> None:
    reply = failure_reply(family, problem, ID, 30)
    assert reply.status == status
    assert dict(reply.headers).get(b"Retry-After") == (b"30" if retry else None)
    assert text_of(family, reply.body) == str(problem)


def test_every_failure_that_can_come_before_an_answer_has_a_status() -> None:
    named = set(STATUS)
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ForemanError) and kind not in named:
            # These never come before the head of an answer: at the start, from questions of foreman's own, after it.
            assert kind in {
                errors.ForemanError,
                errors.ConfigError,
                errors.TargetError,
                errors.HTTPError,
                errors.ReaderStalled,
            }


def test_every_status_has_its_phrase() -> None:
    assert set(STATUS.values()) < set(PHRASES)
    assert all(phrase.replace(b" ", b"").isalpha() for phrase in PHRASES.values())


# redirects


def test_a_redirect_has_a_page_only_for_those_who_look_at_pages() -> None:
    reply = redirect_reply(b"GET", 307, b"/api/tags?a=1&b=2")
    assert reply.body == b'<a href="/api/tags?a=1&amp;b=2">Temporary Redirect</a>.\n\n'
    assert reply.headers == [(b"Content-Type", b"text/html; charset=utf-8"), (b"Location", b"/api/tags?a=1&b=2")]
    assert redirect_reply(b"POST", 307, b"/api/chat").body == b""
    assert redirect_reply(b"HEAD", 301, b"/").body


def test_a_redirect_cannot_carry_a_page_of_a_stranger() -> None:
    body = redirect_reply(b"GET", 307, b'/"><script>alert(1)</script>').body
    assert b"<script" not in body


# the error that ends a stream


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_that_breaks_off_ends_with_words_its_clients_read(family: Family) -> None:
    problem = errors.ConnectionError("reset", "the target broke off")
    ndjson = final_error("ndjson", family, problem, ID)
    assert ndjson == b'{"error":"the target broke off"}\n'
    sse = final_error("sse", family, problem, ID)
    assert sse is not None
    assert sse.startswith(b"event: error\ndata: {" if family == "anthropic" else b"data: {")
    assert sse.endswith(b"}\n\n")
    assert text_of(family, sse.partition(b"data: ")[2]) == "the target broke off"
    assert final_error("other", family, problem, ID) is None


def test_what_the_target_refused_keeps_its_own_words_and_type() -> None:
    problem = errors.HTTPError(404, "model 'x' not found")
    assert final_error("ndjson", "ollama", problem, ID) == b'{"error":"model \'x\' not found"}\n'
    sse = final_error("sse", "openai", problem, ID)
    assert sse is not None
    assert json.loads(sse[6:])["error"]["type"] == "not_found_error"
