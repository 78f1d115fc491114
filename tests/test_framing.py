"""Whole lines and whole events out of arriving bytes."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol.framing import LONGEST_LINE, EventFramer, Framer, LineFramer, Passthrough, framer_for, framing_of
from support import recordings

#: Bytes that other readers take for the end of a line.
NO_NEWLINES = ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\x1d", "\x1e", "\r"]


def cut_at(data: bytes, places: set[int]) -> list[bytes]:
    """``data`` as it may arrive."""
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def fed(cutter: Framer, arriving: list[bytes]) -> list[bytes]:
    return [piece for data in arriving for piece in cutter.feed(data)]


TEXTS = st.lists(st.sampled_from(["a", "\n", "\n\n", "é", "\u2028", "\r", "\r\n", "data: "]), max_size=40).map("".join)
PLACES = st.sets(st.integers(0, 200), max_size=12)


def test_one_line_at_a_time_passes_as_it_is() -> None:
    cutter = LineFramer()
    line = b'{"done":false}\n'
    assert cutter.feed(line)[0] is line


@pytest.mark.parametrize("other", NO_NEWLINES)
def test_only_a_newline_ends_a_line(other: str) -> None:
    line = f'{{"a":"x{other}y"}}\n'.encode()
    assert LineFramer().feed(line + line) == [line, line]


@given(TEXTS, PLACES)
def test_lines_leave_whole_however_they_arrive(text: str, places: set[int]) -> None:
    data = text.encode()
    cutter = LineFramer()
    pieces = fed(cutter, cut_at(data, places))
    assert cutter.whole
    *lines, rest = data.split(b"\n")
    assert pieces == [line + b"\n" for line in lines]
    assert cutter.rest() == rest
    assert cutter.rest() == b""


@given(TEXTS, PLACES)
def test_a_line_leaves_as_soon_as_it_is_whole(text: str, places: set[int]) -> None:
    cutter = LineFramer()
    arrived = left = b""
    for data in cut_at(text.encode(), places):
        arrived += data
        left += b"".join(cutter.feed(data))
        assert left == arrived[: arrived.rfind(b"\n") + 1]


def test_the_longest_line_that_ollamas_client_takes_leaves_whole() -> None:
    line = b"x" * (LONGEST_LINE - 1) + b"\n"
    cutter = LineFramer()
    assert fed(cutter, cut_at(line, set(range(0, LONGEST_LINE, 1_000_000)))) == [line]
    assert cutter.whole


def test_a_line_without_end_is_let_out_as_it_comes() -> None:
    cutter = LineFramer()
    assert cutter.feed(b"a\nb" + b"x" * LONGEST_LINE) == [b"a\n", b"b" + b"x" * LONGEST_LINE]
    assert not cutter.whole
    assert cutter.feed(b"yy") == [b"yy"]
    assert not cutter.whole
    assert cutter.feed(b"z\nc") == [b"z\n"]
    assert cutter.whole
    assert cutter.feed(b"d\n") == [b"cd\n"]


def test_a_line_without_end_that_ends_with_the_bytes_ends() -> None:
    cutter = LineFramer()
    cutter.feed(b"x" * (LONGEST_LINE + 1))
    assert cutter.feed(b"y\n") == [b"y\n"]
    assert cutter.whole
    assert cutter.rest() == b""


def test_events_that_came_together_leave_together() -> None:
    events = b'data: {"a":1}\n\ndata: [DONE]\n\n'
    assert EventFramer().feed(events) == [events]


def test_an_event_that_has_only_begun_waits() -> None:
    cutter = EventFramer()
    assert cutter.feed(b"data: 1\n\ndata: 2") == [b"data: 1\n\n"]
    assert cutter.feed(b"3\n") == []
    assert cutter.feed(b"\nevent: x\n") == [b"data: 23\n\n"]
    assert cutter.rest() == b"event: x\n"


def test_a_blank_line_may_be_of_any_kind() -> None:
    cutter = EventFramer()
    assert fed(cutter, [b"a\r", b"\n", b"\r", b"\nb\n\r", b"\n", b"\n", b"\nc"]) == [b"a\r\n\r\n", b"b\n\r\n", b"\n\n"]
    assert cutter.rest() == b"c"


@given(TEXTS, PLACES)
def test_events_leave_up_to_the_last_blank_line(text: str, places: set[int]) -> None:
    cutter = EventFramer()
    arrived = left = b""
    for data in cut_at(text.encode(), places):
        pieces = cutter.feed(data)
        assert len(pieces) <= 1
        assert all(piece.endswith((b"\n\n", b"\n\r\n")) for piece in pieces)
        arrived += data
        left += b"".join(pieces)
        waiting = arrived[len(left) :]
        assert b"\n\n" not in waiting
        assert b"\n\r\n" not in waiting
    assert left + cutter.rest() == text.encode()
    assert cutter.whole


def test_an_event_without_end_is_let_out_as_it_comes() -> None:
    cutter = EventFramer()
    assert b"".join(fed(cutter, [b"x" * 1_000_000] * 9)) == b"x" * 9_000_000
    assert not cutter.whole
    assert cutter.feed(b"yy") == [b"yy"]
    assert cutter.feed(b"\n\nz") == [b"\n\n"]
    assert cutter.whole
    assert cutter.rest() == b"z"


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n"])
def test_an_event_without_end_ends_with_a_blank_line_in_pieces(blank: bytes) -> None:
    cutter = EventFramer()
    cutter.feed(b"x" * (LONGEST_LINE + 1))
    for byte in blank:
        assert not cutter.whole
        assert cutter.feed(bytes([byte])) == [bytes([byte])]
    assert cutter.whole
    assert cutter.feed(b"") == []
    assert cutter.feed(b"data: 1\n") == []
    assert cutter.feed(b"\n") == [b"data: 1\n\n"]
    assert cutter.rest() == b""


@given(st.sampled_from([LineFramer, EventFramer]), TEXTS, PLACES)
def test_what_is_too_long_is_said_once_and_known_to_be_unfinished(
    kind: type[Framer], text: str, places: set[int]
) -> None:
    ends = ("\n",) if kind is LineFramer else ("\n\n", "\n\r\n")
    cutter = kind()
    arrived = left = b""
    with patch("foreman.protocol.framing.LONGEST_LINE", 4):
        for data in cut_at(text.encode(), places):
            pieces = cutter.feed(data)
            arrived += data
            left += b"".join(pieces)
            assert all(pieces)
            assert arrived.startswith(left)
            assert len(arrived) - len(left) <= 4 + len(data)
            assert cutter.whole == (not left or left.decode("latin-1").endswith(ends))
    assert left + cutter.rest() == text.encode()


def test_other_bodies_pass_as_they_come_and_are_never_between_two_pieces() -> None:
    cutter = Passthrough()
    assert fed(cutter, [b"{", b'"a"\n', b"}"]) == [b"{", b'"a"\n', b"}"]
    assert cutter.rest() == b""
    assert not cutter.whole


@pytest.mark.parametrize(
    ("content_type", "kind", "cutter"),
    [
        (b"application/x-ndjson", "ndjson", LineFramer),
        (b"Application/X-NDJSON; charset=utf-8", "ndjson", LineFramer),
        (b"text/event-stream", "sse", EventFramer),
        (b"text/event-stream;charset=utf-8", "sse", EventFramer),
        (b"application/json; charset=utf-8", "other", Passthrough),
        (b"text/plain; x=application/x-ndjson", "other", Passthrough),
        (b"", "other", Passthrough),
    ],
)
def test_the_content_type_says_how_an_answer_is_cut(content_type: bytes, kind: str, cutter: type) -> None:
    found = framing_of(content_type)
    assert found == kind
    assert isinstance(framer_for(found), cutter)


def test_recorded_chunks_of_lines_leave_as_they_came() -> None:
    """A real Ollama sends a line a chunk, and so does foreman, in however many pieces the network brings them."""
    streams = 0
    for name in recordings.everything():
        heard = recordings.load(name)["response"]
        content_type = dict(heard["headers"]).get("Content-Type", "").encode()
        if framing_of(content_type) != "ndjson" or heard["framing"] != "chunked" or heard.get("torn"):
            continue
        streams += 1
        chunks = [recordings.as_bytes(text) for _, text in heard["chunks"]]
        assert fed(LineFramer(), cut_at(b"".join(chunks), set(range(0, 5000, 37)))) == chunks, name
    assert streams > 20
