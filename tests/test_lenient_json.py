"""JSON with bad characters, as Go and most clients read it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol import error_text, lenient_json
from foreman.protocol.aggregate import aggregate as in_slices
from foreman.util.slices import at_once


def aggregate(lines: list[bytes]) -> bytes:
    return at_once(in_slices(lines))


BAD = {
    "half of an emoji": (b"\\ud83d", "\ufffd"),
    "the other half": (b"\\ude00", "\ufffd"),
    "halves in the wrong order": (b"\\ude00\\ud83d", "\ufffd\ufffd"),
    "no UTF-8": (b"\xff\xfe", "\ufffd\ufffd"),
    "half of it in UTF-8": (b"\xed\xa0\xbd", "\ufffd\ufffd\ufffd"),
    "NUL": (b"\x00", "\0"),
    "a control character": (b"\x1b", "\x1b"),
    "a tab": (b"\t", "\t"),
    "sound": (b"\\ud83d\\ude00 \\\\ud83d", "\U0001f600 \\ud83d"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_character_is_replaced_and_all_else_stays(name: str) -> None:
    raw, text = BAD[name]
    data = b'{"a":["x%by",1.5,true,null],"b":"\xc3\xa9"}' % raw
    value: Any = {"a": [f"x{text}y", 1.5, True, None], "b": "é"}
    assert lenient_json.read(data) == value
    assert lenient_json.decode(msgspec.json.Decoder(Any), data) == value
    assert json.loads(lenient_json.repair(data)) == value


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_json_stays_none(name: str) -> None:
    for data in (b"", b"{", b'{"a":"%b"' % BAD[name][0], b'{"a":1}x%b' % BAD[name][0], b"[" * 100_000):
        with pytest.raises(ValueError, match=r"."):
            lenient_json.read(data)
        with pytest.raises(ValueError, match=r"."):
            lenient_json.decode(msgspec.json.Decoder(Any), data)


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_sound_json_is_read_as_it_is(value: Any) -> None:
    for ascii_ in (True, False):
        assert lenient_json.read(json.dumps(value, ensure_ascii=ascii_)) == value


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("member", ["message", "response"])
def test_lines_with_a_bad_character_are_put_together(name: str, member: str) -> None:
    raw, text = BAD[name]
    said_ = (b'{"content":"a%b"}' if member == "message" else b'"a%b"') % raw
    lines = [
        b'{"model":"m%b","%b":%b,"done":false}\n' % (raw, member.encode(), said_),
        b'{"model":"m%b","%b":%b,"done":true,"eval_count":2}\n' % (raw, member.encode(), said_),
    ]
    whole = json.loads(aggregate(lines))
    words = whole[member]["content"] if member == "message" else whole[member]
    assert (words, whole["model"], whole["eval_count"]) == (f"a{text}" * 2, f"m{text}", 2)


@pytest.mark.parametrize("name", BAD)
def test_the_words_of_an_error_are_found_beside_a_bad_character(name: str) -> None:
    raw, text = BAD[name]
    assert error_text.error_text(b'{"error":"it broke %b"}' % raw) == f"it broke {text}"
    assert error_text.error_text(b'{"error":{"message":"it broke %b"}}' % raw) == f"it broke {text}"


def test_a_value_that_is_too_large_to_be_repaired_is_refused_at_once() -> None:
    data = b'{"a":"\\ud83d' + b"x" * lenient_json.MAX_REPAIRED + b'"}'
    with pytest.raises(ValueError, match="surrogate"):
        lenient_json.decode(msgspec.json.Decoder(Any), data)
