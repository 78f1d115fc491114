"""The members of an object, held against a slow reader that follows Go's scanner letter by letter."""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol import go_json
from foreman.protocol.go_json import SLICE, Body, Empty, Truncated, Unreadable, members, members_in_slices, text

WANTED = ("model", "stream", "keep_alive", "messages", "name", "prompt")

#: The values of the wanted members by folded name, or which error.
Outcome = dict[str, list[bytes]] | type[ValueError]


def outcome(body: Body) -> Outcome:
    try:
        return {
            name: [bytes(body[start:end]) for start, end in spans]
            for name, spans in members(body, WANTED).spans.items()
        }
    except (Empty, Truncated) as problem:
        return type(problem)
    except Unreadable:
        return Unreadable


# --- the slow reader ---


class SlowReader:
    """One value, read as Go's ``encoding/json`` reads it: a byte at a time, no regular expressions, no parser."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        if self.at == len(self.data):
            raise Truncated
        return self.data[self.at]

    def expect(self, allowed: bytes) -> int:
        if (byte := self.byte()) not in allowed:
            raise Unreadable
        self.at += 1
        return byte

    def blank(self) -> None:
        while self.at < len(self.data) and self.data[self.at] in b" \t\r\n":
            self.at += 1

    def string(self) -> bytes:
        start = self.at
        self.expect(b'"')
        while (byte := self.byte()) != 0x22:
            self.at += 1
            if byte < 0x20:
                raise Unreadable
            if byte == 0x5C and self.expect(b'"\\/bfnrtu') == 0x75:
                for _ in range(4):
                    self.expect(b"0123456789abcdefABCDEF")
        self.at += 1
        return self.data[start : self.at]

    def digits(self) -> None:
        self.expect(b"0123456789")
        while self.at < len(self.data) and self.data[self.at] in b"0123456789":
            self.at += 1

    def there(self, allowed: bytes) -> bool:
        found = self.at < len(self.data) and self.data[self.at] in allowed
        self.at += found
        return found

    def number(self) -> None:
        self.there(b"-")
        if not self.there(b"0"):
            self.digits()
        if self.there(b"."):
            self.digits()
        if self.there(b"eE"):
            self.there(b"+-")
            self.digits()

    def separated(self, end: bytes, item: Callable[[], object]) -> None:
        self.at += 1
        self.blank()
        if self.there(end):
            return
        while True:
            item()
            self.blank()
            if self.expect(b"," + end) == end[0]:
                return
            self.blank()

    def value(self) -> bytes:
        self.blank()
        start = self.at
        match self.byte():
            case 0x22:
                self.string()
            case 0x5B:
                self.separated(b"]", self.value)
            case 0x7B:
                self.members(lambda *_: None)
            case byte if byte in b"tfn":
                for letter in {0x74: b"true", 0x66: b"false", 0x6E: b"null"}[byte]:
                    self.expect(bytes([letter]))
            case _:
                self.number()
        return self.data[start : self.at]

    def members(self, found: Callable[[bytes, bytes], None]) -> None:
        def member() -> None:
            key = self.string()
            self.blank()
            self.expect(b":")
            found(key, self.value())

        self.separated(b"}", member)


def slow_text(raw: bytes) -> str:
    """A string, quotes included, as Go's ``unquote`` gives it."""
    left, units = raw[1:-1], ""
    while left:
        if left[:1] != b"\\":
            length = next((n for n in range(1, 5) if _is_utf8(left[:n])), 0)
            units += left[:length].decode() if length else "\ufffd"
            left = left[length or 1 :]
        elif left[1:2] != b"u":
            units += {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(chr(left[1]), chr(left[1]))
            left = left[2:]
        else:
            unit, left = int(left[2:6], 16), left[6:]
            if 0xD800 <= unit < 0xDC00 and left[:2] == b"\\u" and 0xDC00 <= (low := int(left[2:6], 16)) < 0xE000:
                unit, left = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), left[6:]
            units += "\ufffd" if 0xD800 <= unit < 0xE000 else chr(unit)
    return units


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def slow_outcome(data: bytes) -> Outcome:
    reader = SlowReader(data)
    reader.blank()
    if reader.at == len(data):
        return Empty
    found: dict[str, list[bytes]] = {}

    def note(key: bytes, value: bytes) -> None:
        folded = "".join({"\u017f": "s", "\u212a": "k"}.get(c, c.lower() if c.isascii() else c) for c in slow_text(key))
        if folded in WANTED:
            found.setdefault(folded, []).append(value)

    try:
        if reader.byte() == 0x7B:
            reader.members(note)
        elif reader.value() != b"null":
            return Unreadable
    except (Truncated, Unreadable) as problem:
        return type(problem)
    return found


# --- bodies ---

KEYS = st.sampled_from([
    '"model"', '"MODEL"', r'"\u006dodel"', r'"mode\u006C"', '"name"', '"ſtream"', r'"\u017Ftream"', '"Keep_Alive"',
    '"Keep_alive"', r'"\u212Aeep_alive"', '"messageſ"', '"PROMPT"', '"ﬁ"', '"modelo"', '"model "', '""', r'"\n"', '"x"',
    r'"\ud83d"', '"İ"', '"' + "m" * 70 + '"',
])  # fmt: skip
SCALARS = st.sampled_from([
    "null", "true", "false", "0", "-0", "1", "-12.5", "1e5", "1E-5", "0.0e+0", "123456789012345678901234567890",
    '""', '"x"', r'"\\"', r'"\""', r'"a\/b\u00e9"', '"é😀"', r'"\ud83d\ude00"', '"}"', '"],"',
])  # fmt: skip
BLANKS = st.sampled_from(["", "", "", " ", "\n", "\t\r "])


def _array(items: list[tuple[str, str]]) -> str:
    return "[" + ",".join(blank + item + blank for blank, item in items) + "]"


def _object(items: list[tuple[str, str, str]]) -> str:
    return "{" + ",".join(f"{blank}{key}{blank}:{blank}{item}{blank}" for blank, key, item in items) + "}"


VALUES = st.recursive(
    SCALARS | st.sampled_from(["[ ]", "{ }"]),
    lambda inner: (
        st.lists(st.tuples(BLANKS, inner), max_size=3).map(_array)
        | st.lists(st.tuples(BLANKS, KEYS, inner), max_size=3).map(_object)
    ),
    max_leaves=6,
)
OBJECTS = st.lists(st.tuples(BLANKS, KEYS, VALUES), max_size=5).map(_object)
#: Bytes that mean something to a scanner, and some that are no text.
TELLING = st.sampled_from([bytes([byte]) for byte in b'"{}[]:,\\ \n\t0-.eEtu/\x00\x1f\x7f\x80\xc5\xff\xef'])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Mostly objects, whole or not, with a byte or two that do not belong, and whatever may stand behind."""
    data = draw(st.one_of(OBJECTS, OBJECTS, OBJECTS, VALUES)).encode()
    data = draw(BLANKS).encode() + data
    for _ in range(draw(st.integers(0, 2)) if draw(st.booleans()) else 0):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.one_of(TELLING, st.just(b""))) + data[at + draw(st.integers(0, 1)) :]
    if draw(st.integers(0, 3)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    return data + draw(st.sampled_from([b"", b"", b" ", b"}", b" and more", b"\0", b"\xef\xbb\xbf", b"{"]))


@given(bodies())
def test_members_are_found_where_go_finds_them(data: bytes) -> None:
    assert outcome(data) == slow_outcome(data)


@given(st.binary(max_size=30) | st.text('{}[]":,\\ua1-.e ', max_size=30).map(str.encode))
def test_any_bytes_are_read_or_refused_as_go_does(data: bytes) -> None:
    assert outcome(data) == slow_outcome(data)


ESCAPES = st.sampled_from([
    rb"\ud83d", rb"\ude00", rb"\u0041", rb"\uFFFF", rb"\n", rb"\\", rb"\"", rb"\/", b"a", "é😀\u2028".encode(), b"\x80", b"\xff",
    b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xef\xbf\xbd", b"\x7f",
])  # fmt: skip


@given(st.lists(ESCAPES, max_size=8).map(b"".join))
def test_text_reads_as_go_reads_it(letters: bytes) -> None:
    raw = b'"' + letters + b'"'
    assert text(raw) == slow_text(raw)
    text(raw).encode()


# --- one by one ---


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"{}", {}),
        (b" null x", {}),
        (b'{"model":"m"}', {"model": [b'"m"']}),
        (b'{"MODEL":1,"model" : [2] ,"Model":null}', {"model": [b"1", b"[2]", b"null"]}),
        ('{"meſſageſ":1,"Keep_alive":2}'.encode(), {"messages": [b"1"], "keep_alive": [b"2"]}),
        (rb'{"\u006D\u006f\u0064\u0065\u006C":"m"}', {"model": [b'"m"']}),
        (b'{"a":{"model":1},"b":[{"model":2}]}', {}),
        (b'{"model":"m"}{"model":"n"', {"model": [b'"m"']}),
        ('{"ＭＯＤＥＬ":1,"mödel":2,"model\ufeff":3}'.encode(), {}),
        (b'{"mod\xffel":1}', {}),
    ],
)
def test_members_of(body: bytes, found: dict[str, list[bytes]]) -> None:
    assert outcome(body) == slow_outcome(body) == found


@pytest.mark.parametrize(("body", "problem"), [
    (b"", Empty), (b" \t\r\n", Empty),
    (b"{", Truncated), (b'{"a', Truncated), (b'{"a\\', Truncated), (b'{"a\\u00', Truncated), (b'{"a" ', Truncated),
    (b'{"a": ', Truncated), (b'{"a":1', Truncated), (b'{"a":-', Truncated), (b'{"a":1e+', Truncated),
    (b'{"a":nul', Truncated), (b'{"a":[1, ', Truncated), (b'{"a":{}', Truncated), (b'{"a":1, ', Truncated), (b"tru", Truncated),
    (b'"', Truncated), (b"[", Truncated), (b'{"a":"\xff', Truncated),
    (b"\v", Unreadable), (b"\xef\xbb\xbf{}", Unreadable), (b"[]", Unreadable), (b"7", Unreadable), (b'"x"', Unreadable),
    (b"{,}", Unreadable), (b"{1:2}", Unreadable), (b'{"a":1,}', Unreadable), (b'{"a":+1}', Unreadable), (b'{"a":.5}', Unreadable),
    (b'{"a":01}', Unreadable), (b'{"a":1.}', Unreadable), (b'{"a":"\t"}', Unreadable), (b'{"a":"\\u12G"}', Unreadable),
    (b'{"a":nulL', Unreadable), (b'{"a":1]', Unreadable), (b'{"a":[1}', Unreadable), (b'{"a":"\x00', Unreadable),
])  # fmt: skip
def test_what_is_no_object_says_why(body: bytes, problem: type[ValueError]) -> None:
    assert outcome(body) is slow_outcome(body) is problem


def test_a_mapped_file_and_a_view_are_read_like_bytes() -> None:
    for body in (b'{"Model":"m","x":[{}]}', b'{"model":', b"[]"):
        expected = outcome(body)
        assert outcome(memoryview(body)) == expected
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                assert outcome(mapped) == expected


def test_no_more_than_so_many_values_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go_json, "MAX_STEPS", 50)

    def body(values: int) -> bytes:
        return b'{"model":"m","x":[' + b",".join([b"1"] * (values - 2)) + b"]}"

    assert outcome(body(50)) == {"model": [b'"m"']}
    assert outcome(body(51)) is Unreadable


@pytest.mark.parametrize("length", [0, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("letter", [b"a", rb"\n", rb"\u00e9", "é".encode(), b"\xff"])
def test_strings_and_blanks_of_any_length_are_passed_over(letter: bytes, length: int) -> None:
    blank, string = b" \n" * length, b'"' + letter * length + b'"'
    body = b"%b{%b%b%b:%b%b%b,%b%b%b:%b[%b%b]%b}%b" % (
        blank, blank, string, blank, blank, string, blank, blank, b'"model"', blank, blank, blank, string, blank, blank,
    )  # fmt: skip
    assert outcome(body) == {"model": [b"[" + blank + string + b"]"]}
    assert outcome(body[: body.rindex(b"}")]) is Truncated
    assert outcome(body[: body.rindex(b'"')]) is Truncated
    assert outcome(body[: body.rindex(b'"')] + b"\x00") is Unreadable


def test_a_member_that_stands_there_again_and_again_is_not_read() -> None:
    def body(count: int) -> bytes:
        return b"{" + b",".join([b'"model":"m"'] * count) + b"}"

    assert outcome(body(64)) == {"model": [b'"m"'] * 64}
    with pytest.raises(go_json.TooComplex):
        members(body(65), WANTED)


def test_the_end_of_the_object_is_known() -> None:
    for body, end in ((b'{"a":1}', 7), (b' {"a":{}} \n{"b', 9), (b"null \n", 4), (b"{}x", 2)):
        assert members(body, WANTED).end == end


HOSTILE = [
    b" ", b"[", b"[],", b"{},", b"0,", b'"",', b'{"":0},', b"-1.5e-7,", rb'"\n",', b'"a', rb"\n", rb"\u00e9", b"a", b"1", b",", b"\x00",
]  # fmt: skip


@pytest.mark.parametrize("frame", [b"%b", b'{"x":[%b0],"model":"m"}', b'{"x":"%b","model":"m"}'])
@pytest.mark.parametrize("piece", HOSTILE)
def test_the_work_is_done_in_slices_of_a_bounded_size(piece: bytes, frame: bytes) -> None:
    def slices(length: int) -> int:
        scan = members_in_slices(frame % (piece * (length // len(piece))), WANTED)
        count = 0
        while True:
            try:
                next(scan)
            except (StopIteration, ValueError):
                return count
            count += 1

    few, many = slices(2 * SLICE), slices(8 * SLICE)
    assert few <= 600
    assert many <= 4 * (few + 1)
    assert many >= few


def test_a_long_string_is_passed_over_with_pauses() -> None:
    scan = members_in_slices(b'{"x":"' + b"a" * 8 * SLICE + b'"}', WANTED)
    assert sum(1 for _ in scan) >= 7


def test_a_large_value_is_passed_over() -> None:
    image = json.dumps({"x": "A" * 3_000_000, "Model": "m"}).encode()
    assert outcome(image) == {"model": [b'"m"']}
    assert outcome(image[:2_000_000]) is Truncated


@pytest.mark.parametrize("depth", [100, 9_999])
def test_brackets_may_stand_in_each_other(depth: int) -> None:
    body = b'{"x":' + b"[" * depth + b"]" * depth + b',"model":1}'
    assert outcome(body) == {"model": [b"1"]}


def test_deeper_than_go_reads_nothing_is_found() -> None:
    body = b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b',"model":1}'
    assert outcome(body) is Unreadable
    assert outcome(body[:8_000]) is Truncated


@given(VALUES)
def test_what_it_reads_a_strict_reader_reads_too(value: str) -> None:
    data = f'{{"model":{value}}}'.encode()
    found = outcome(data)
    assert isinstance(found, dict)
    (span,) = found["model"]
    parsed: Any = json.loads(data)["model"]
    assert json.loads(span) == parsed
