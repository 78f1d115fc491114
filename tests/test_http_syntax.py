"""What leaves no doubt where a request ends, and whom it is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.web.server.http_syntax import authority, field_problem, is_allowed_trailer, is_clean, says_close

TEXT = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cc", "Cs"]))


@pytest.mark.parametrize("byte", [byte for byte in range(256) if byte not in b"\t" and (byte < 32 or byte == 127)])
def test_control_bytes_have_no_place_in_a_head(byte: int) -> None:
    assert not is_clean(b"X-A: a" + bytes([byte]) + b"b")


def test_everything_else_has() -> None:
    assert is_clean(bytes(byte for byte in range(256) if byte == 9 or (byte >= 32 and byte != 127)))


@pytest.mark.parametrize("value", [b"0", b"13", b"0013", b"999999999999999999"])
def test_a_length_is_digits(value: bytes) -> None:
    assert field_problem(b"content-length", value) is None


@given(st.text(max_size=20).filter(lambda text: not (text.isascii() and text.isdigit() and len(text) <= 18)))
def test_nothing_else_is_a_length(text: str) -> None:
    assert field_problem(b"content-length", text.encode())


@given(st.binary(max_size=10).filter(lambda value: value.lower() != b"chunked"))
def test_one_coding_is_known(value: bytes) -> None:
    assert field_problem(b"transfer-encoding", value)
    assert field_problem(b"transfer-encoding", b"Chunked") is None


@pytest.mark.parametrize(
    "host",
    [
        b"", b"localhost", b"localhost:8080", b"LOCALHOST", b"a-b_c.d~e", b"127.0.0.1:1", b"[::1]", b"[::1]:8080", b":8080",
        b"[fe80::1%25en0]", b"[fe80::1%en0]:1", b"xn--bcher-kva.example", b"a..b", b"a%20b",
    ],
)  # fmt: skip
def test_a_name_and_a_port_are_a_host(host: bytes) -> None:
    assert field_problem(b"host", host) is None


@pytest.mark.parametrize(
    "host",
    [
        b"a b", b"a@b", b"a:b", b"a:1:2", b"a/b", b"a?b", b"a#b", b"a\\b", b"http://a", b"[::1", b"::1", b"[::1]x", b"[a b]", b"<a>",
        b'"a"', b"a|b", b"\xc3\xb6", b"a\tb", b"[::1]:", b"[]",
    ],
)  # fmt: skip
def test_other_things_are_none(host: bytes) -> None:
    assert (field_problem(b"host", host) is None) == (host == b"[::1]:")


@given(TEXT)
def test_a_value_in_utf_8_is_good(text: str) -> None:
    assert field_problem(b"x-a", text.encode()) is None


@given(st.binary(max_size=10), st.binary(max_size=10))
def test_a_line_end_of_unicode_is_not_however_it_is_written(before: bytes, after: bytes) -> None:
    assert field_problem(b"x-a", before.replace(b"\xc2", b"") + b"\xc2\x85" + after)
    assert field_problem(b"x-a", b"caf\xe9\x85")
    assert field_problem(b"x-a", b"caf\xe9") is None


@pytest.mark.parametrize("line", [b"X-Sum: 1", b"x-sum:", b"X: \xc3\xa9", b"Authorization: Bearer x"])
def test_a_trailer_is_a_header(line: bytes) -> None:
    assert is_allowed_trailer(line)


@pytest.mark.parametrize(
    "line",
    [b"X-Sum", b"X Sum: 1", b" X: 1", b"X : 1", b": 1", b"", b"X: a\nb", b"X: a\rb", b"X: \0", b"content-LENGTH: 5", b"Host: a",
     b"Transfer-Encoding: chunked", b"X: \xc2\x85"],
)  # fmt: skip
def test_other_lines_are_not(line: bytes) -> None:
    assert not is_allowed_trailer(line)


@pytest.mark.parametrize(
    ("values", "closes"),
    [
        ([], False),
        ([b"keep-alive"], False),
        ([b"close"], True),
        ([b"Close"], True),
        ([b"keep-alive", b"close"], True),
        ([b"x,close"], True),
        ([b"close, x"], True),
        ([b"\tclose\t,"], True),
        ([b"closed"], False),
        ([b"x close"], False),
    ],
)
def test_close_may_stand_anywhere_in_the_list(values: list[bytes], closes: bool) -> None:
    assert says_close(values) == closes


@pytest.mark.parametrize(
    ("target", "server"),
    [
        (b"/api/tags", None),
        (b"*", None),
        (b"localhost:80", None),
        (b"/x?http://a/", None),
        (b"http://a", b"a"),
        (b"HTTPS://a:1/x", b"a:1"),
        (b"http://a?x", b"a"),
        (b"http:///x", b""),
        (b"http://u:p@a/x", b"u:p@a"),
    ],
)
def test_a_target_in_absolute_form_names_a_server(target: bytes, server: bytes | None) -> None:
    assert authority(target) == server
