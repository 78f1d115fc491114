"""What a body asks for, held against a plain reader with Go's rules."""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Iterable
from typing import Any

import pytest
import zstandard
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from foreman.errors import BadBody
from foreman.protocol import body_values, go_json
from foreman.protocol.body_values import MAX_DECOMPRESSED
from foreman.protocol.request_body import Intent, RequestBody, read, read_in_slices
from foreman.util.byte_budget import ByteBudget
from support import recordings

CHAT, GENERATE = "/api/chat", "/api/generate"
V1 = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/embeddings"]
#: Read more strictly by Ollama from v0.34 on.
STRICT = ["/v1/responses", "/v1/responses/compact"]
NATIVE = [CHAT, GENERATE, "/api/embed", "/api/embeddings", "/api/show", "/api/pull", "/api/create", "/api/delete"]
MESSAGES = '"messages":[{"role":"user","content":"hi"}]'

#: As Go's ``time.ParseDuration`` reads them: nothing, something, or an error.
DURATIONS: dict[str, bool | None] = {
    "0": True,
    "-0": True,
    "+0": True,
    "0s": True,
    "-0h0m0s": True,
    "0.0ms": True,
    ".0h": True,
    "0.9ns": True,
    "0µs": True,
    "0μs": True,
    "00000m": True,
    "5m": False,
    "-1m": False,
    "1ns": False,
    "0h0.1s": False,
    "1.s": False,
    "": None,
    "-": None,
    "00": None,
    "10": None,
    "-1": None,
    "abc": None,
    "1x": None,
    ".s": None,
    "1e3s": None,
    "1 s": None,
    "s": None,
    "9999999999h": None,
    "9" * 5000 + "s": None,
}


# --- the plain reader: members as pairs of a key as written and a value ---


@frozen
class Member:
    key: str
    value: Any


class Refused(Exception):
    """Ollama answers 400."""


def plainly(path: str, members: Iterable[Member]) -> RequestBody:
    """What Go finds, and Ollama makes of it."""
    is_v1 = path.startswith("/v1/")
    model = name = prompt = ""
    stream: bool | None = None
    messages: list[Any] | None = None
    unloads = False
    streams = {CHAT, GENERATE, "/api/pull", "/api/create"}
    for member in members:
        key = "".join(
            {"ſ": "s", "\u212a": "k"}.get(letter, letter.lower() if letter.isascii() else letter)
            for letter in member.key
        )
        value = member.value
        if key == "model" or (key == "name" and path in {"/api/show", "/api/pull", "/api/create", "/api/delete"}):
            if value is None:
                continue
            if not isinstance(value, str):
                raise Refused
            if key == "model":
                model = value
            else:
                name = value
        if key == "stream" and (path in streams or (is_v1 and path != "/v1/embeddings")):
            if not isinstance(value, bool | None):
                raise Refused
            if value is not None or path in streams:
                stream = value
        if key == "messages" and path == CHAT:
            if not isinstance(value, list | None):
                raise Refused
            messages = value
        if key == "prompt" and path == GENERATE and value is not None:
            if not isinstance(value, str):
                raise Refused
            prompt = value
        if key == "keep_alive" and path in {CHAT, GENERATE}:
            if isinstance(value, bool | list | dict) or (isinstance(value, str) and DURATIONS.get(value) is None):
                raise Refused
            unloads = DURATIONS[value] is True if isinstance(value, str) else value is not None and 0 <= value < 1e-9
    idle = (path == CHAT and not messages) or (path == GENERATE and not prompt)
    intent = Intent.RUN if not idle else Intent.UNLOAD if unloads else Intent.LOAD
    named = model or name
    return RequestBody(named if named.strip() else None, path in streams if stream is None else stream, intent)


def outcome(path: str, body: bytes | mmap.mmap | memoryview) -> RequestBody | str:
    """What was read, or the text of the refusal."""
    try:
        return read(path, body)
    except BadBody as problem:
        return str(problem)


# --- bodies in every spelling ---


@st.composite
def written(draw: st.DrawFn, text: str) -> str:
    """``text`` as a JSON string, some letters escaped."""
    letters = []
    for letter in text:
        escaped = draw(st.integers(0, 9)) == 0 and ord(letter) < 0x10000
        letters.append(f"\\u{ord(letter):04x}" if escaped else json.dumps(letter, ensure_ascii=False)[1:-1])
    return '"' + "".join(letters) + '"'


@st.composite
def format_name(draw: st.DrawFn, name: str) -> str:
    """A key in a spelling that Go takes for ``name``, or not."""
    match draw(st.integers(0, 9)):
        case 0:
            return name.replace("s", "ſ").replace("k", "\u212a")
        case 1 | 2:
            return "".join(draw(st.sampled_from([letter, letter.upper()])) for letter in name)
        case 3:
            return name + draw(st.sampled_from(["s", " ", "ß", "\0", '"', "\\", "ı"]))
        case _:
            return name


SPACE = st.sampled_from(["", "", "", " ", "\n", "\t\r\n "])
NAMES = ["model", "model", "stream", "keep_alive", "messages", "prompt", "name", "options", "input", "made_up"]
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1e-10, 1.5])
    | st.sampled_from(["", "x", "0"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["model", "stream", "Model", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FITTING: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["llama3", " x:7b ", "", " \u2028", "é", None]),
    "name": st.sampled_from(["other", "", None]),
    "stream": st.sampled_from([True, False, None]),
    "keep_alive": st.sampled_from([0, 0.0, -0.0, -1, 5, 1.5, 1e-10, 1e-9, None, *DURATIONS]),
    "messages": st.sampled_from([[], [{}], [{"role": "user", "content": "hi", "model": "y", "Stream": 1}], None]),
    "prompt": st.sampled_from(["", "hi", "\0", None]),
}  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, list[Member]]:
    """The text of a body, and what is in it."""
    members, texts = [], []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=7)):
        key = draw(format_name(name))
        fits = draw(st.integers(0, 9)) > 0
        value = draw(FITTING[name] if fits and name in FITTING else ANY_JSON)
        text = (
            draw(written(value))
            if isinstance(value, str)
            else json.dumps(value, indent=draw(st.sampled_from([None, 1])))
        )
        members.append(Member(key, value))
        texts.append(draw(SPACE) + draw(written(key)) + draw(SPACE) + ":" + draw(SPACE) + text + draw(SPACE))
    return "{" + (",".join(texts) or draw(SPACE)) + "}", members


PATHS = st.sampled_from([*NATIVE, *V1])


@given(PATHS, SPACE, bodies(), st.sampled_from(["", "", "\n", " and more", "}", "{}", "\0", "\ufeff"]))
def test_a_body_is_read_as_go_reads_it(path: str, before: str, body: tuple[str, list[Member]], after: str) -> None:
    text, members = body
    data = (before + text + after).encode()
    found = read(path, data)
    try:
        assert found == plainly(path, members)
    except Refused:
        # A value that Ollama refuses may go unseen where the same key says something else later.
        last = {member.key: member for member in members}
        assert not found.readable or (len(last) < len(members) and found == plainly(path, last.values()))


@given(PATHS, SPACE, bodies(), st.integers(0))
def test_a_body_that_stops_early_is_refused_with_ollamas_text(
    path: str, before: str, body: tuple[str, list[Member]], at: int
) -> None:
    data = body[0].encode()
    with pytest.raises(BadBody, match=r"^unexpected EOF$"):
        read(path, before.encode() + data[: 1 + at % (len(data) - 1)])


@given(PATHS, st.binary(max_size=60) | st.text('{}[]",:model\\u0 tr', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(path: str, body: bytes) -> None:
    found = outcome(path, body)
    assert isinstance(found, RequestBody) or found in {"EOF", "missing request body", "unexpected EOF"}


# --- one by one ---


@pytest.mark.parametrize("blank", [b"", b" ", b"\r\n\t ", b" " * 100_000])
def test_no_body_is_refused_with_ollamas_text(blank: bytes) -> None:
    for path in NATIVE:
        with pytest.raises(BadBody, match=r"^missing request body$"):
            read(path, blank)
    for path in V1:
        with pytest.raises(BadBody, match=r"^EOF$"):
            read(path, blank)


IMAGES = ["/v1/images/generations", "/v1/images/edits"]


@pytest.mark.parametrize("path", STRICT + IMAGES)
@pytest.mark.parametrize("blank", [b"", b" ", b"\r\n\t "])
def test_an_empty_body_of_responses_or_images_is_ollamas_to_refuse_and_takes_no_turn(path: str, blank: bytes) -> None:
    assert read(path, blank) == RequestBody(None, stream=False)
    assert read(path, zstandard.compress(blank), b"zstd") == RequestBody(None, stream=False)


@pytest.mark.parametrize("path", STRICT)
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","input":"x"',
        b'{"Model":"m","input":"x"}',
        b'{"model":"m","MODEL":"n","input":"x"}',
        b'{"model":"m","input":"x"} and more',
        b'{"input":"x","unheard_of":1}',
        b"{x}",
        b"null",
    ],
)
def test_what_only_some_ollamas_read_of_responses_is_left_to_them(path: str, body: bytes) -> None:
    assert not read(path, body).readable


@pytest.mark.parametrize("path", STRICT)
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","input":"x"}',
        b' {"model" :"m","unheard_of":{"model":1}} \r\n',
        b'{"unheard_of":"\\ud83d","model":"m"}',
        b'{"model":"n","model":"m","unheard_of":"\xff"}',
    ],
)
def test_a_body_of_responses_tells_its_model(path: str, body: bytes) -> None:
    assert read(path, body) == RequestBody("m", stream=False)
    assert read(path, zstandard.compress(body), b"zstd") == RequestBody("m", stream=False)


@pytest.mark.parametrize("path", IMAGES)
def test_a_request_for_an_image_tells_its_model(path: str) -> None:
    assert read(path, b'{"MODEL":"m","prompt":"a cat","stream":true}') == RequestBody("m", stream=False)
    assert not read(path, b'{"model":"m","prompt":"a ').readable
    assert not read(path, b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--').readable


def test_only_the_route_that_streams_listens_to_stream() -> None:
    body = b'{"model":"m","stream":true}'
    assert [read(path, body).stream for path in STRICT] == [True, False]
    assert not read(STRICT[0], b'{"model":"m","stream":true,"stream":null}').stream


@pytest.mark.parametrize(
    "body",
    [
        "tr",
        "-",
        "1.",
        "1e",
        '"a',
        '"\\',
        '"\\u12',
        "[",
        "[1",
        "[1,",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,',
        '{"a":1.',
        '{"a":[{}',
        "{",
    ],
)
def test_the_beginning_of_json_is_unexpectedly_short(body: str) -> None:
    with pytest.raises(BadBody, match=r"^unexpected EOF$"):
        read(CHAT, body.encode())


@pytest.mark.parametrize(
    "body",
    [
        b"{x}",
        b"[]",
        b"1",
        b'"model"',
        b"true",
        b"{'model':1}",
        b'{"model":"m",}',
        b'{"model":"m"x',
        b'{"model":"m" "stream":true}',
        b'{"model":"m","a":01}',
        b'{"model":"m","a":1.}',
        b'{"model":"m","a":NaN}',
        b'{"model":"m","a":"\n"}',
        b'{"model":"m","a":"\\x"}',
        b'{"model":"m","a":[1,]}',
        b'{"model":"m","a":tru}',
        b"\xef\xbb\xbf{}",
        b"\x1f\x8b\x08\x00",
        b'{"model":7}',
        b'{"model":"m","stream":"yes"}',
        b'{"model":"m","keep_alive":true}',
        b'{"model":"m","keep_alive":1e400}',
        b'{"model":"m","messages":{}}',
    ],
)
def test_what_ollama_refuses_is_left_to_it(body: bytes) -> None:
    assert read(CHAT, body) == RequestBody(None, stream=True, readable=False)


def test_a_null_is_an_empty_object() -> None:
    assert read(CHAT, b" null ") == RequestBody(None, stream=True, intent=Intent.LOAD)
    assert read("/v1/messages", b"null") == RequestBody(None, stream=False)


@pytest.mark.parametrize(
    ("raw", "model"),
    [
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\ud83d", "\ufffd"),
        (rb"\ud83dx\ude00", "\ufffdx\ufffd"),
        (b"\xff", "\ufffd"),
        (b"\xe2\x82", "\ufffd\ufffd"),
        (b"\\ud83d\x80", "\ufffd\ufffd"),
        (rb"\u0000\/", "\0/"),
    ],
)
def test_what_is_no_text_reads_as_go_reads_it(raw: bytes, model: str) -> None:
    assert read(CHAT, b'{"model":"' + raw + b'"}').model == model
    assert read(CHAT, b'{"model":"m","messages":[{"content":"' + raw + b'"}]}').model == "m"


@pytest.mark.parametrize("duration", DURATIONS, ids=lambda duration: duration[:12])
def test_a_keep_alive_is_read_as_a_duration(duration: str) -> None:
    zero = DURATIONS[duration]
    found = read(CHAT, json.dumps({"model": "m", "keep_alive": duration}).encode())
    if zero is None:
        assert not found.readable
    else:
        assert found.intent is (Intent.UNLOAD if zero else Intent.LOAD)


@pytest.mark.parametrize(
    ("path", "fields", "intent"),
    [
        (CHAT, '"keep_alive":0', Intent.UNLOAD),
        (CHAT, '"messages":[ ],"keep_alive":"0s"', Intent.UNLOAD),
        (CHAT, '"messages":null', Intent.LOAD),
        (CHAT, '"keep_alive":-1', Intent.LOAD),
        (CHAT, f'{MESSAGES},"keep_alive":0', Intent.RUN),
        (CHAT, '"prompt":"x"', Intent.LOAD),
        (GENERATE, '"keep_alive":0', Intent.UNLOAD),
        (GENERATE, '"prompt":"","keep_alive":"0"', Intent.UNLOAD),
        (GENERATE, '"prompt":"","suffix":"x"', Intent.LOAD),
        (GENERATE, '"prompt":" ","keep_alive":0', Intent.RUN),
        ("/api/embed", '"keep_alive":0', Intent.RUN),
        ("/api/embeddings", '"keep_alive":0', Intent.RUN),
        ("/v1/chat/completions", '"keep_alive":0', Intent.RUN),
        ("/v1/completions", '"keep_alive":0', Intent.RUN),
    ],
)
def test_loading_and_unloading_are_told_from_running(path: str, fields: str, intent: Intent) -> None:
    assert read(path, f'{{"model":"m",{fields}}}'.encode()).intent is intent


@pytest.mark.parametrize("path", [*NATIVE, *V1])
def test_only_the_old_management_routes_take_the_old_name(path: str) -> None:
    old = path in {"/api/show", "/api/pull", "/api/create", "/api/delete"}
    assert read(path, b'{"name":"m"}').model == ("m" if old else None)
    assert read(path, b'{"name":"m","model":"n"}').model == "n"
    assert read(path, b'{"name":"m","model":""}').model == ("m" if old else None)


@pytest.mark.parametrize("blank", ["", " ", "\t\u3000\n"])
def test_a_blank_model_is_left_to_the_target_to_miss(blank: str) -> None:
    for path in (CHAT, GENERATE, *V1):
        assert read(path, json.dumps({"model": blank}).encode()).model is None
    assert read("/api/show", json.dumps({"model": blank, "name": "m"}).encode()).model == (None if blank else "m")


def test_a_wrong_value_behind_a_right_one_is_seen() -> None:
    assert not read("/api/show", b'{"model":"m","name":[]}').readable
    assert not read(CHAT, b'{"model":"m","Model":1}').readable
    assert not read(CHAT, b'{"model":"m","keep_alive":"' + b"0" * 10_000 + b's"}').readable


def test_a_model_of_no_sensible_length_is_not_repeated() -> None:
    body = b'{"model":"' + b"m" * 100_000 + b'"}'
    assert read(CHAT, body) == RequestBody(None, stream=True, readable=False)
    assert not read(CHAT, body.replace(b"model", b"Model")).readable


def test_brackets_without_end_do_no_harm() -> None:
    for piece in (b"[", b'{"a":', b"[],", b"1,", b'"x":1,'):
        for body in (piece * 300_000, b'{"Model":"m","a":[' + piece * 300_000):
            found = outcome(CHAT, body)
            assert found == "unexpected EOF" or found == RequestBody(None, stream=True, readable=False)


def test_a_large_body_is_read_wherever_its_model_stands() -> None:
    image = b'"messages":[{"role":"user","images":["' + b"A" * 5_000_000 + b'"]}]'
    for model in (b'"model":"m"', b'"MODEL":"m"'):
        assert read(CHAT, b"{" + model + b"," + image + b"}") == RequestBody("m", stream=True)
        assert read(CHAT, b"{" + image + b"," + model + b"}") == RequestBody("m", stream=True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m",' + MESSAGES.encode() + b"}",
        b'{"Model":"m",' + MESSAGES.encode() + b"} and more",
        b'{"model":"m"',
        b"  ",
        b"{x}",
    ],
)
def test_a_mapped_file_is_read_and_let_go(body: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert outcome(CHAT, mapped) == outcome(CHAT, body)
    assert outcome(CHAT, memoryview(body)) == outcome(CHAT, body)


# --- compressed bodies and forms ---


@pytest.mark.parametrize("path", V1)
def test_a_compressed_body_is_unpacked_where_ollama_does(path: str) -> None:
    packed = zstandard.compress(b'{"model":"m","stream":false}')
    assert read(path, packed, b"zstd").model == "m"
    assert read(path, packed + zstandard.compress(b" "), b"zstd").model == "m"
    assert not read(path, packed).readable
    assert not read(path, packed, b"ZSTD").readable
    assert not read(CHAT, packed, b"zstd").readable
    assert not read(path, b'{"model":"m"}', b"zstd").readable
    with pytest.raises(BadBody, match=r"^EOF$"):
        read(path, zstandard.compress(b""), b"zstd")


def test_a_compressed_body_is_unpacked_within_bounds() -> None:
    body = b'{"model":"m","x":"' + b"A" * (MAX_DECOMPRESSED - 20) + b'"}'
    assert len(body) == MAX_DECOMPRESSED
    assert read(V1[0], zstandard.compress(body), b"zstd").model == "m"
    assert not read(V1[0], zstandard.compress(body + b" "), b"zstd").readable
    bomb = zstandard.ZstdCompressor().compressobj()
    bombs = b"".join([bomb.compress(b"\0" * 10**7) for _ in range(30)]) + bomb.flush()
    assert not read(V1[0], bombs, b"zstd").readable


def test_other_encodings_are_read_as_they_are() -> None:
    assert read(CHAT, b'{"model":"m"}', b"gzip").model == "m"
    assert read(CHAT, b'{"model":"m"}', b"identity", b"application/x-www-form-urlencoded").model == "m"


FORM = (
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="model.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b'\0\xff\r\n--X\r\n\r\n--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--XX--\r\n'
)


def test_a_transcription_names_its_model_in_a_form() -> None:
    path = "/v1/audio/transcriptions"
    form_type = b"multipart/form-data; boundary=XX"
    assert read(path, FORM, None, form_type) == RequestBody("whisper", stream=False)
    # Ollama's form reader would prefer a model of the query.
    for query in (b"model=other", b"x"):
        assert not read(path, FORM, None, form_type, query).readable
    for body, kind in (
        (FORM, None),
        (b'{"model":"m"}', b"application/json"),
        (b"", form_type),
        (FORM[:100], form_type),
    ):
        assert read(path, body, None, kind) == RequestBody(None, stream=False, readable=False)


# --- as recorded ---


def test_recorded_refusals_of_bodies_are_given_in_the_same_words() -> None:
    refused = 0
    for name in recordings.everything():
        recording = recordings.load(name)
        said, heard = recording["request"], recording["response"]
        texts = ("EOF", "missing request body")
        if said["path"] in STRICT or heard["status"] != 400 or not any(text in str(heard["body"]) for text in texts):
            continue
        with pytest.raises(BadBody) as caught:
            read(said["path"], recordings.as_bytes(said["body"]))
        refused += 1
        assert f'"{caught.value}"' in heard["body"], name
    assert refused >= 10


def test_recorded_refusals_of_responses_are_left_to_the_target() -> None:
    left = 0
    for name in recordings.everything():
        recording = recordings.load(name)
        said, heard = recording["request"], recording["response"]
        if (
            said["path"] not in STRICT
            or said["method"] != "POST"
            or '"code":"invalid_request_error"' not in str(heard["body"])
        ):
            continue
        headers = {name.lower(): value.encode() for name, value in said["headers"]}
        found = read(said["path"], recordings.as_bytes(said["body"]), headers.get("content-encoding"))
        # Of what names its model plainly the rest is the target's to judge, in its turn.
        assert found.model is None or '"model"' in str(said["body"]), name
        left += 1
    assert left >= 15


def test_recorded_answers_show_that_the_body_was_read_right() -> None:
    compared = 0
    for name in recordings.everything():
        recording = recordings.load(name)
        said, heard = recording["request"], recording["response"]
        if said["path"] not in {CHAT, GENERATE, *V1, *STRICT} or said["method"] != "POST" or heard["status"] != 200:
            continue
        if name.endswith("/generate-debug-render"):  # a stream that Ollama answers in one piece
            continue
        headers = {name.lower(): value.encode() for name, value in said["headers"]}
        found = read(said["path"], recordings.as_bytes(said["body"]), headers.get("content-encoding"))
        assert found.readable, name
        content_type = dict(heard["headers"])["Content-Type"]
        streamed = content_type in {"application/x-ndjson", "text/event-stream"}
        assert streamed == (found.stream and found.intent is Intent.RUN), name
        ends = {Intent.LOAD: '"done_reason":"load"', Intent.UNLOAD: '"done_reason":"unload"'}
        for intent, mark in ends.items():
            assert (found.intent is intent) == (mark in heard["body"]), name
        compared += 1
    assert compared > 80


@pytest.mark.parametrize("piece", [b"[],", b'{"":0},', rb'"\n\n\n\n",', b'"a",', b"0,", b" "])
def test_a_large_body_is_read_in_slices_whatever_it_is_made_of(piece: bytes) -> None:
    body = b'{"model":"m","options":[' + piece * (4 * 1024 * 1024 // len(piece)) + b"0]}"
    slices = read_in_slices(CHAT, body)
    assert sum(1 for _ in slices) >= 4


def test_a_body_of_many_values_is_not_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: object) -> object:
        raise AssertionError("decoded at once")

    monkeypatch.setattr(body_values, "_decode_ordinary", decode)
    many = b'{"model":"m","options":[' + b"[]," * 1_400_000 + b"0]}"
    monkeypatch.setattr(go_json, "MAX_STEPS", 1000)
    assert not read(CHAT, many).readable


def test_what_is_packed_is_unpacked_in_slices() -> None:
    packed = zstandard.compress(b'{"model":"m","input":"' + b"a" * (MAX_DECOMPRESSED - 100) + b'"}')
    slices = read_in_slices("/v1/responses", packed, b"zstd")
    assert sum(1 for _ in slices) >= 20


def test_a_duration_that_nobody_writes_is_left_to_ollama() -> None:
    assert not read(CHAT, b'{"model":"m","keep_alive":"' + b"1ns" * 400 + b'"}').readable
    assert read(CHAT, b'{"model":"m","keep_alive":"' + b"1ns" * 300 + b'"}').readable


def test_what_all_packed_bodies_become_is_bounded_and_given_back() -> None:
    bomb = zstandard.compress(b'{"model":"m","input":"' + b"a" * 4_000_000 + b'"}')
    room = ByteBudget(10_000_000)
    readings = [read_in_slices("/v1/responses", bomb, b"zstd", budget=room) for _ in range(20)]
    found: list[RequestBody] = []
    while readings:
        for reading in list(readings):
            try:
                next(reading)
            except StopIteration as finished:
                readings.remove(reading)
                found.append(finished.value)
        assert room.used <= 10_000_000 + 20 * 1024 * 1024
    assert room.used == 0
    assert 1 <= sum(asked.readable for asked in found) < 20
    left = read_in_slices("/v1/responses", bomb, b"zstd", budget=room)
    next(left)
    left.close()
    assert room.used == 0
    assert read("/v1/responses", bomb, b"zstd").model == "m"
