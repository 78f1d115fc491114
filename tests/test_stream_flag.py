"""A body that asks for a stream, or for none, whatever it asked for before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol import go_json, request_body
from foreman.protocol.stream_flag import with_stream as in_slices
from foreman.util.slices import at_once

#: Spellings that Go takes for ``stream``, and some that it does not.
SAME = ("stream", "Stream", "STREAM", "sTrEaM", "\\u0073tream", "ſtream", "strea\\u006d")
OTHERS = ("model", "messages", "prompt", "streams", "strea", "stream ", "ﬆream", "options", "", "\\u0000", "keep_alive")
SPACES = st.text(" \t\r\n", max_size=3)
VALUES = st.recursive(
    st.one_of(
        st.sampled_from(
            ["null", "true", "false", "0", "-1.5e3", '""', '"x"', '"}"', '"\\"stream\\":false"', '"\\ud800"']
        ),
        st.text(max_size=5).map(json.dumps),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + " , ".join(items) + "]"),
        st.lists(st.tuples(st.sampled_from([*SAME, *OTHERS]), inner), max_size=3).map(
            lambda members: "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"
        ),
    ),
    max_leaves=6,
)
FLAGS = st.sampled_from(["null", "true", "false"])


def with_stream(body: bytes, *, stream: bool) -> bytes:
    return at_once(in_slices(body, stream=stream))


@st.composite
def members(draw: Any) -> list[tuple[str, str]]:
    """Names and values, as they are written: several of them ``stream``, perhaps."""
    count = draw(st.integers(0, 6))
    found = []
    for _ in range(count):
        if draw(st.booleans()):
            found.append((draw(st.sampled_from(SAME)), draw(FLAGS)))
        else:
            found.append((draw(st.sampled_from(OTHERS[3:-1])), draw(VALUES)))
    return found


def written(pairs: list[tuple[str, str]], spaces: Iterator[str]) -> str:
    """An object with white space at every place where it may stand."""
    inside = ",".join(
        f'{next(spaces)}"{name}"{next(spaces)}:{next(spaces)}{value}{next(spaces)}' for name, value in pairs
    )
    return f"{next(spaces)}{{{inside or next(spaces)}}}{next(spaces)}"


def reads(body: bytes, path: str = "/api/chat") -> bool:
    found = request_body.read(path, body)
    assert found.readable
    return found.stream


@given(
    members(), st.lists(SPACES, min_size=30, max_size=30), st.sampled_from(["", "x", " {", "}}", "\x00"]), st.booleans()
)
def test_go_reads_what_was_wanted_and_everything_else_keeps_its_bytes(
    pairs: list[tuple[str, str]], spaces: list[str], behind: str, stream: bool
) -> None:
    body = (written(pairs, iter(spaces)) + behind).encode("utf-8", "surrogatepass")
    made = with_stream(body, stream=stream)
    assert reads(made) is stream
    assert go_json.members(made, ("stream",)).spans["stream"]
    if any(name in SAME for name, _ in pairs):
        wanted = "true" if stream else "false"
        changed = [(name, wanted if name in SAME else value) for name, value in pairs]
        assert made == (written(changed, iter(spaces)) + behind).encode("utf-8", "surrogatepass")
    else:
        flag = b'"stream":true' if stream else b'"stream":false'
        at = body.index(b"{") + 1
        assert made in (body[:at] + flag + b"," + body[at:], body[:at] + flag + body[at:])


@given(members(), st.lists(SPACES, min_size=30, max_size=30), st.booleans())
def test_what_is_too_intricate_for_the_careful_reader_gets_the_member_where_it_counts(
    pairs: list[tuple[str, str]], spaces: list[str], stream: bool
) -> None:
    pairs = [*pairs, ("format", "[1,2]")]
    body = written(pairs, iter(spaces)).encode("utf-8", "surrogatepass")
    with patch("foreman.protocol.go_json.MAX_STEPS", 1):
        try:
            made = with_stream(body, stream=stream)
        except ValueError:  # only of bytes that msgspec does not take for JSON
            assert b"\\ud800" in body
            return
    assert reads(made) is stream
    assert made.startswith(body.rstrip(b" \t\r\n")[:-1])


@pytest.mark.parametrize(
    ("body", "made"),
    [
        (b"{}", b'{"stream":true}'),
        (b" { } ", b' {"stream":true } '),
        (b'{"model":"m"}', b'{"stream":true,"model":"m"}'),
        (b'{"model":"m","stream":false}', b'{"model":"m","stream":true}'),
        (b'{"stream": null ,"STREAM":false}', b'{"stream": true ,"STREAM":true}'),
        (b'{"options":{"stream":false}}', b'{"stream":true,"options":{"stream":false}}'),
        (b'{"stream":"yes"}', b'{"stream":true}'),
        (b'{"stream":{"a":[1,{}]}} and more', b'{"stream":true} and more'),
    ],
)
def test_the_member_is_changed_where_it_stands_and_put_in_front_where_it_does_not(body: bytes, made: bytes) -> None:
    assert with_stream(body, stream=True) == made


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"null {}",
        b"[]",
        b'[{"stream":true}]',
        b'"{}"',
        b"7",
        b"{",
        b'{"a"',
        b'{"a":1',
        b'{"a":}',
        b"\xff",
    ],
)
def test_what_is_no_object_is_told(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        with_stream(body, stream=True)


def test_a_large_body_is_not_searched_value_by_value() -> None:
    body = b'{"model":"m","prompt":"x","context":[' + b",".join([b"1"] * 100_000) + b'],"stream":false}'
    assert reads(with_stream(body, stream=True), "/api/generate")
