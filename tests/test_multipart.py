"""One field of a form."""

from __future__ import annotations

import mmap
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.protocol import multipart
from foreman.protocol.go_json import Body
from foreman.protocol.multipart import MAX_BYTES, MAX_PARTS
from foreman.util.slices import at_once

TYPE = b"multipart/form-data; boundary=X"


def field(name: str, body: Body, content_type: bytes) -> str | None:
    return at_once(multipart.field(name, body, content_type))


def part(name: bytes, value: bytes, *more: bytes) -> bytes:
    """One part of a form whose boundary is X."""
    lines = [b"--X", b"Content-Disposition: form-data; name=" + name, *more, b"", value, b""]
    return b"\r\n".join(lines)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--X--\r\n"


AUDIO = part(b'"file"; filename="a.wav"', b"\0\xff\r\n--Y\r\n--", b"Content-Type: audio/wav")


def test_a_field_is_found_before_and_behind_a_file() -> None:
    model = part(b'"model"', b"whisper:latest")
    assert field("model", form(model, AUDIO), TYPE) == "whisper:latest"
    assert field("model", form(AUDIO, part(b'"language"', b"en"), model), TYPE) == "whisper:latest"


def test_the_first_of_two_fields_counts() -> None:
    assert field("model", form(part(b'"model"', b"a"), part(b'"model"', b"b")), TYPE) == "a"


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data; boundary=X",
        b'Multipart/Form-Data;charset=utf-8; BOUNDARY="X"',
        b"multipart/form-data;boundary=X;",
    ],
)
def test_the_boundary_is_found_in_the_content_type(content_type: bytes) -> None:
    assert field("model", form(part(b'"model"', b"m")), content_type) == "m"


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"application/json; boundary=X",
        b"multipart/mixed; boundary=X",
    ],
)
def test_without_a_boundary_nothing_is_read(content_type: bytes) -> None:
    assert field("model", form(part(b'"model"', b"m")), content_type) is None


@pytest.mark.parametrize("name", [b"model", b'"model"; charset="utf-8"', b' "model"'])
def test_a_name_may_be_written_in_some_ways(name: bytes) -> None:
    found = field("model", form(part(name.strip(), "é".encode(), b"Content-Type: text/plain")), TYPE)
    assert found == "é"


@pytest.mark.parametrize(
    "other",
    [
        part(b'"Model"', b"x"),
        part(b'"model"; filename="model"', b"x"),
        part(b'"file"; filename="; name=model"', b"x"),
        part(b'"x\\"; name=model"', b"x"),
        b"--X\r\nX-Content-Disposition: form-data; name=model\r\n\r\nx\r\n",
        b"--X\r\n\r\nContent-Disposition: form-data; name=model\r\n\r\nx\r\n",
    ],
)
def test_what_only_looks_like_the_field_is_not_it(other: bytes) -> None:
    assert field("model", form(other, part(b"model", b"right")), TYPE) in {"right", None}
    assert field("model", form(other), TYPE) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--X",
        b"--X--\r\n",
        b"preamble\r\n" + form(part(b"model", b"m")),
        form(part(b"model", b"m")).replace(b"\r\n", b"\n"),
        part(b"model", b"m"),
        form(part(b"model", b"\xff")),
        form(part(b"model", b"m" * (MAX_BYTES + 1))),
        form(*[part(b"x", b"")] * MAX_PARTS, part(b"model", b"m")),
        b"--X\r\n" + b"A: b\r\n" * 100 + b"\r\nx\r\n" + form(part(b"model", b"m")),
        form(AUDIO),
    ],
)
def test_a_form_that_is_not_understood_says_nothing(body: bytes) -> None:
    assert field("model", body, TYPE) is None


def test_a_mapped_file_is_read_and_let_go() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(form(AUDIO, part(b'"model"', b"m")))
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert field("model", mapped, TYPE) == "m"


@pytest.mark.parametrize("more", range(-10, 130, 7))
@pytest.mark.parametrize("blanks", [b"", b" " * 100])
def test_a_large_file_is_searched_in_slices(more: int, blanks: bytes) -> None:
    audio = part(b'"file"; filename="a.wav"', b"a" * (3 * 1024 * 1024 - more))
    body = form(audio, part(b'"model"', b"m").replace(b"--X\r\n", b"--X" + blanks + b"\r\n"))
    assert field("model", body, TYPE) == "m"
    assert sum(1 for _ in multipart.field("model", body, TYPE)) >= 2


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_any_bytes_do_no_harm(body: bytes, content_type: bytes) -> None:
    field("model", body, content_type)
    field("model", form(body), TYPE)
    field("model", b"--X\r\n" + body, TYPE)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: "--X" not in text),
    st.integers(0, 3),
)
def test_a_value_is_taken_as_it_is(value: str, files: int) -> None:
    assert field("model", form(*[AUDIO] * files, part(b'"model"', value.encode())), TYPE) == value
