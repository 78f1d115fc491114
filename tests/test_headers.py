"""Which headers cross."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol.headers import RawHeaders, has_passed_through, to_client, to_target

HOST = b"127.0.0.1:11434"

TOKENS = st.from_regex(rb"[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True)
VALUES = st.binary(max_size=20)
HEADERS = st.lists(st.tuples(TOKENS, VALUES), max_size=12)


def asked(raw: RawHeaders, *, token: str | None = None, length: int | None = None) -> RawHeaders:
    return to_target(raw, host=HOST, token=token, length=length)


def test_the_target_hears_its_own_name_first_and_no_other() -> None:
    crossing = asked([(b"Accept", b"*/*"), (b"host", b"evil.example"), (b"HOST", b"other")])
    assert crossing[0] == (b"Host", HOST)
    assert [value for name, value in crossing if name.lower() == b"host"] == [HOST]


def test_names_keep_their_case_order_and_repetition() -> None:
    raw = [
        (b"X-b", b"1"),
        (b"accept", b"a"),
        (b"x-B", b"2"),
        (b"User-Agent", b"GitHubCopilotChat/1"),
        (b"Accept", b"b"),
    ]
    assert asked(raw)[1 : 1 + len(raw)] == raw
    assert to_client(raw) == raw


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",
        b"X-Api-Key",
        b"Cookie",
        b"Origin",
        b"Prefer",
        b"X-Forwarded-Prefix",
        b"X-Forwarded-For",
        b"X-Forwarded-Host",
        b"X-Real-IP",
        b"Forwarded",
        b"Expect",
        b"Accept-Encoding",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Proxy-Authorization",
        b"Proxy-Connection",
        b"Keep-Alive",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"HTTP2-Settings",
        b"Connection",
    ],
)
def test_what_is_not_for_the_target_does_not_reach_it(name: bytes) -> None:
    for spelling in (name, name.lower(), name.upper()):
        values = [value for _, value in asked([(spelling, b"the client's")], token="t0ken", length=3)]
        assert b"the client's" not in values


def test_the_target_is_told_what_foreman_knows() -> None:
    assert asked([], token="t0ken", length=0) == [
        (b"Host", HOST),
        (b"Via", b"1.1 foreman"),
        (b"Accept-Encoding", b"identity"),
        (b"Authorization", b"Bearer t0ken"),
        (b"Content-Length", b"0"),
    ]
    assert asked([]) == [(b"Host", HOST), (b"Via", b"1.1 foreman"), (b"Accept-Encoding", b"identity")]


@pytest.mark.parametrize("value", [b"x-secret", b"close, X-Secret", b"close,\tx-SECRET ,", b" x-secret,keep-alive"])
def test_what_connection_names_does_not_cross(value: bytes) -> None:
    raw = [(b"X-Secret", b"1"), (b"Connection", b"close"), (b"CONNECTION", value), (b"X-Other", b"2")]
    assert to_client(raw) == [(b"X-Other", b"2")]
    assert (b"X-Secret", b"1") not in asked(raw)
    assert (b"X-Other", b"2") in asked(raw)


def test_connection_cannot_take_away_what_a_body_is() -> None:
    raw = [
        (b"Connection", b"content-length, content-type, content-encoding"),
        (b"Content-Length", b"5"),
        (b"Content-Type", b"application/json"),
        (b"Content-Encoding", b"zstd"),
    ]
    assert to_client(raw) == raw[1:]
    assert set(raw[2:]) <= set(asked(raw, length=5))


def test_the_client_gets_what_the_target_said_about_its_answer() -> None:
    raw = [
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        (b"Content-Length", b"17"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"Vary", b"Accept"),
        (b"X-Empty", b""),
    ]
    assert to_client(raw) == raw


@pytest.mark.parametrize(
    "name",
    [
        b"Access-Control-Allow-Origin",
        b"access-control-max-age",
        b"Transfer-Encoding",
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Authenticate",
    ],
)
def test_the_client_does_not_get_what_was_between_foreman_and_the_target(name: bytes) -> None:
    assert to_client([(name, b"x")]) == []


@pytest.mark.parametrize("value", [b"a\r\nX-Evil: 1", b"a\nb", b"a\rb", b"a\0b"])
def test_a_value_that_would_become_another_header_is_dropped(value: bytes) -> None:
    assert to_client([(b"X-A", value)]) == []
    assert (b"X-A", value) not in asked([(b"X-A", value)])


@given(HEADERS)
def test_what_crosses_is_some_of_what_came_in_its_order(raw: RawHeaders) -> None:
    for crossing in (to_client(raw), asked(raw)[1:-2]):
        remaining = iter(raw)
        assert all(pair in remaining for pair in crossing)
        assert not {name.lower() for name, _ in crossing} & {b"connection", b"transfer-encoding", b"te", b"upgrade"}


@given(HEADERS, st.integers(min_value=0), st.text("abc", min_size=1))
def test_the_target_is_told_each_thing_of_foremans_own_once(raw: RawHeaders, length: int, token: str) -> None:
    names = [name.lower() for name, _ in asked(raw, token=token, length=length)]
    for name in (b"host", b"via", b"accept-encoding", b"authorization", b"content-length"):
        assert names.count(name) == 1


@pytest.mark.parametrize(
    ("given_via", "told"),
    [
        ([], b"1.1 foreman"),
        ([b"1.0 fred, 1.1 p.example.net (Apache/1.1, of sorts)"], b"1.0 fred, 1.1 p.example.net (Apache/1.1, of sorts), 1.1 foreman"),
        ([b"1.0 fred", b"2 nginx"], b"1.0 fred, 2 nginx, 1.1 foreman"),
        ([b"1.0 a\nb", b"2 nginx"], b"2 nginx, 1.1 foreman"),
    ],
)  # fmt: skip
def test_foreman_stands_behind_those_through_whom_a_request_came(given_via: list[bytes], told: bytes) -> None:
    raw = [(b"vIa", value) for value in given_via]
    assert [value for name, value in asked(raw) if name.lower() == b"via"] == [told]


@pytest.mark.parametrize("via", [b"1.1 me", b"1.0 fred,1.1 me", b"1.1 me (a comment)", b"1.1\tme", b"HTTP/1.1 me, 2 x"])
def test_a_request_that_foreman_sent_is_known_again(via: bytes) -> None:
    assert has_passed_through([b"1.0 fred", via], b"me")


@pytest.mark.parametrize("via", [b"", b"1.1 mead", b"1.1 some", b"1.1 foreman-me", b"1.1 me.example"])
def test_a_request_of_somebody_else_is_not_taken_for_foremans(via: bytes) -> None:
    assert not has_passed_through([via], b"me")


def test_what_connection_names_does_not_stay_in_via_either() -> None:
    raw = [(b"Via", b"1.0 fred"), (b"Connection", b"close, VIA")]
    assert [value for name, value in asked(raw) if name == b"Via"] == [b"1.1 foreman"]
