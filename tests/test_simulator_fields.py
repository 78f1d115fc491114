"""Names, JSON and its mistakes, read as Ollama reads them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.simulator.engine.errors import Malformed, Refused
from foreman.simulator.engine.fields import duration
from foreman.simulator.engine.go_json import describe_error, dumps, loads
from foreman.simulator.engine.model_names import parse_reference, split_name
from support.in_memory_simulator import CHAT, InMemorySimulator

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.sampled_from(["", " and more", "}", "\x00"]))
def test_what_is_json_is_read_whatever_follows(value: Any, rest: str) -> None:
    text = json.dumps(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    assert loads((text + (rest if not number else "")).encode()) == value


@pytest.mark.parametrize("bad", ["\\ud83d", "\\ude00", "\\ude00\\ud83d", b"\xff".decode("latin-1")])
def test_what_is_no_character_is_read_as_a_replacement(bad: str) -> None:
    value = loads(f'{{"{bad}":["x{bad}y"],"b":1.5}}'.encode("latin-1"))
    text = "\ufffd" * (2 if len(bad) == 12 else 1)
    assert value == {text: [f"x{text}y"], "b": 1.5}
    assert loads(b'"\\ud83d\\ude00 \\\\ud83d"') == "\U0001f600 \\ud83d"


@given(VALUES)
def test_what_is_written_is_json_without_what_html_minds(value: Any) -> None:
    text = dumps(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


@given(st.binary(max_size=40) | st.text('{}[]",:tfn 01-.eE\\u', max_size=20).map(str.encode))
def test_what_is_not_json_is_refused_in_words(body: bytes) -> None:
    with contextlib.suppress(Malformed):
        loads(body)
    assert describe_error(body)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "missing request body"),
        (" \n", "missing request body"),
        ('{"a"', "unexpected EOF"),
        ('{"a":"', "unexpected EOF"),
        ("{x}", "invalid character 'x' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("'a'", "invalid character '\\'' looking for beginning of value"),
        ('"\n"', "invalid character '\\n' in string literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
        ("tru3", "invalid character '3' in literal true (expecting 'e')"),
        ("nulL", "invalid character 'L' in literal null (expecting 'l')"),
        ("-a", "invalid character 'a' in numeric literal"),
        ('{"a":1.a}', "invalid character 'a' after decimal point in numeric literal"),
        ('{"a":1e+a}', "invalid character 'a' in exponent of numeric literal"),
        ('{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        ("\ufeff{}", "invalid character 'ï' looking for beginning of value"),
        ("[" * 20_000, "exceeded max depth"),
    ],
)
def test_mistakes_have_gos_words(body: str, text: str) -> None:
    with pytest.raises(Malformed) as malformed:
        loads(body.encode())
    assert malformed.value.text == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5m", 300), ("1h30m", 5400), ("300ms", 0.3), ("0", 0), ("-1m", -60), ("+1.5s", 1.5), (".5s", 0.5), ("1us", 1e-6)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("abc", 'time: invalid duration "abc"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(Malformed) as malformed:
        duration(text)
    assert malformed.value.text == words


@pytest.mark.parametrize(
    "typed",
    [
        "llama3",
        "LLAMA3:latest",
        " llama3 ",
        "library/llama3",
        "registry.ollama.ai/library/llama3:latest",
        "llama3:local",
    ],
)
def test_many_spellings_mean_one_model(typed: str) -> None:
    asked = parse_reference(typed)
    assert (asked.name.key, asked.cloud) == (parse_reference("llama3").name.key, False)


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"),
        ("host:5000/ns/m:t", "host:5000/ns/m:t"),
        ("host:5000/ns/m", "host:5000/ns/m:latest"),
        ("http://host:5000/ns/m", "host:5000/ns/m:latest"),
        ("a" * 80, f"registry.ollama.ai/library/{'a' * 80}:latest"),
    ],
)
def test_the_parts_of_a_name(typed: str, full: str) -> None:
    assert parse_reference(typed).name.full == full


@pytest.mark.parametrize("typed", ["x:cloud", "x:7b-cloud", "gpt-oss:20b-CLOUD", "a/b:cloud"])
def test_a_name_may_mean_the_cloud(typed: str) -> None:
    assert parse_reference(typed).cloud


@pytest.mark.parametrize("typed", ["my-cloud-model", "my-cloud"])
def test_a_name_may_only_look_like_the_cloud(typed: str) -> None:
    assert not parse_reference(typed).cloud


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("", "model is required"),
        ("m:", "invalid model name"),
        ("/m", "invalid model name"),
        ("m/", "invalid model name"),
        ("m@sha256:abc", "invalid model name"),
        ("a" * 81, "invalid model name"),
        ("x:local:cloud", 'use either :local or :cloud, not both: "x:local:cloud"'),
    ],
)
def test_a_bad_name_is_refused_in_words(typed: str, text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_reference(typed)
    assert (refused.value.status, refused.value.text) == (400, text)


def test_a_short_name_is_as_short_as_it_goes() -> None:
    names = [split_name(text) for text in ("m", "ns/m:t", "host/ns/m")]
    assert [name.short if name else None for name in names] == ["m:latest", "ns/m:t", "host/ns/m:latest"]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/chat", {**CHAT, "keep_alive": []}, 400, "Unsupported type: '[]interface {}'"),
        ("/api/chat", {**CHAT, "think": ""}, 400, 'invalid think value: ""'),
        ("/api/chat", {**CHAT, "options": {"num_ctx": "big"}}, 500, 'option "num_ctx" must be of type integer'),
        ("/api/chat", {**CHAT, "options": {"stop": [1]}}, 500, 'option "stop" must be of an array of strings'),
        ("/api/chat", {**CHAT, "options": []}, 400, "cannot unmarshal array into Go struct field .ChatRequest.options"),
        (
            "/api/chat",
            {**CHAT, "messages": [{"content": 5}]},
            400,
            "number into Go struct field Alias.content of type string",
        ),
        ("/api/chat", {**CHAT, "top_logprobs": 1.5}, 400, "cannot unmarshal number 1.5 into Go struct field"),
        ("/api/chat", {**CHAT, "format": 5}, 500, 'expected "json" or a valid JSON Schema object'),
        ("/api/embed", {"model": "tiny-embed", "input": {"a": 1}}, 400, "invalid input type"),
        ("/v1/embeddings", {"model": "tiny-embed", "input": []}, 400, "invalid input"),
        ("/v1/messages", {"model": "tiny-chat", "max_tokens": 0, "messages": [{}]}, 400, "must be positive"),
    ],
)
def test_fields_that_take_many_forms_do_not_take_any(path: str, body: Any, status: int, text: str) -> None:
    client = InMemorySimulator().ask(path, body)
    assert client.status == status
    error = client.lines[0]["error"]
    assert text in (error if isinstance(error, str) else error["message"])
