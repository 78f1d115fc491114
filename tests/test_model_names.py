"""Model names, as Ollama reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreman.errors import InvalidName
from foreman.protocol.model_names import ModelName, canonical, parse

OLLAMA = "registry.ollama.ai"

PARTS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True)
TAGS = PARTS.filter(lambda tag: tag.lower() not in {"cloud", "local"} and not tag.lower().endswith("-cloud"))


@pytest.mark.parametrize(
    "typed",
    [
        "llama3",
        "LLAMA3:latest",
        " llama3 ",
        "\u3000llama3\u00a0\n",
        "library/llama3",
        "registry.ollama.ai/library/llama3:latest",
        "Registry.Ollama.AI/Library/LLaMA3:LATEST",
        "https://registry.ollama.ai/library/llama3",
        "http:///library/llama3",
        "llama3:local",
        "llama3:latest: LOCAL ",
    ],
)
def test_many_spellings_are_one_model(typed: str) -> None:
    assert parse(typed).key == (OLLAMA, "library", "llama3", "latest")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("hf.co/user/repo:Q4_K_M", ModelName("hf.co", "user", "repo", "Q4_K_M")),
        ("host:5000/ns/m:t", ModelName("host:5000", "ns", "m", "t")),
        ("host:5000/ns/m", ModelName("host:5000", "ns", "m", "latest")),
        ("me/m:7b", ModelName(OLLAMA, "me", "m", "7b")),
        ("_m.x-y:1.5b", ModelName(OLLAMA, "library", "_m.x-y", "1.5b")),
        ("my-cloud-model", ModelName(OLLAMA, "library", "my-cloud-model", "latest")),
        ("my-cloud", ModelName(OLLAMA, "library", "my-cloud", "latest")),
        ("m:cloudy", ModelName(OLLAMA, "library", "m", "cloudy")),
    ],
)
def test_a_name_is_taken_apart_from_its_end(typed: str, name: ModelName) -> None:
    assert parse(typed) == name


@pytest.mark.parametrize(
    ("typed", "tag"),
    [
        ("qwen3:cloud", "latest"),
        ("qwen3:CLOUD", "latest"),
        ("qwen3: cloud", "latest"),
        ("gpt-oss:20b-cloud", "20b"),
        ("gpt-oss:20b-Cloud", "20b"),
        ("gpt-oss:20b:cloud", "20b"),
        ("ns/qwen3:cloud", "latest"),
    ],
)
def test_a_suffix_sends_a_name_to_the_cloud(typed: str, tag: str) -> None:
    name = parse(typed)
    assert name.is_cloud
    assert name.tag == tag


@pytest.mark.parametrize("typed", ["m", "m:local", "m:7b", "my-cloud", "cloud", "host/cloud/m", "a:cloud/b/m"])
def test_other_names_stay_here(typed: str) -> None:
    assert not parse(typed).is_cloud


@pytest.mark.parametrize(
    "typed",
    [
        "/m",
        "m:",
        "m/",
        "ns//m",
        "/ns/m",
        "a/b/c/d",
        "http://m",
        "m@sha256:" + "0" * 64,
        "m:t@sha256:abc",
        "-m",
        ".m",
        "m:-t",
        "n.s/m",
        "m m",
        "mé",
        "m\x1c",
        "m:-cloud",
        "x" * 81,
        "m:" + "x" * 81,
        "n" * 81 + "/m",
        "h" * 351 + "/n/m",
        "m\nn",
        "m\n:t",
    ],
)
def test_a_name_that_ollama_refuses_is_refused_with_its_text(typed: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid model name$"):
        parse(typed)


@pytest.mark.parametrize("typed", ["", "  ", "\u2028\t"])
def test_no_name_at_all_is_missing(typed: str) -> None:
    with pytest.raises(InvalidName, match=r"^model is required$"):
        parse(typed)


@pytest.mark.parametrize(
    "typed", ["m:local:cloud", "m:cloud:local", "m:cloud:cloud", "m:7b-cloud:local", " m:7b-cloud:cloud "]
)
def test_here_and_the_cloud_at_once_is_refused(typed: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse(typed)
    assert str(caught.value) == f'use either :local or :cloud, not both: "{typed.strip()}"'


def test_the_longest_parts_that_ollama_takes_are_taken() -> None:
    name = parse(f"{'h' * 350}/{'n' * 80}/{'m' * 80}:{'t' * 80}")
    assert [len(part) for part in name.key] == [350, 80, 80, 80]


@given(host=PARTS, namespace=PARTS, model=PARTS, tag=TAGS)
def test_a_name_that_is_written_out_reads_as_its_parts(host: str, namespace: str, model: str, tag: str) -> None:
    name = parse(f"{host}/{namespace}/{model}:{tag}")
    assert name == ModelName(host, namespace, model, tag)
    assert parse(f"{host}/{namespace}/{model}:{tag}".swapcase()).key == name.key


@given(st.text())
def test_whatever_is_typed_is_read_or_refused(typed: str) -> None:
    try:
        name = parse(typed)
    except InvalidName:
        return
    assert all(name.key)
    assert "".join(name.key).isascii()


@given(st.text(max_size=30) | st.from_regex(r"[a-zA-Z0-9_./:-]{1,20}", fullmatch=True))
def test_the_canonical_spelling_names_the_same_model_and_is_its_own(typed: str) -> None:
    spelling = canonical(typed)
    try:
        name = parse(typed)
    except InvalidName:
        assert spelling == f"?{typed}"
        return
    assert canonical(spelling) == spelling
    assert (parse(spelling).key, parse(spelling).source) == (name.key, name.source)


@pytest.mark.parametrize(
    ("typed", "spelling"),
    [
        (" M\n", "m:latest"),
        ("registry.ollama.ai/library/M:LATEST", "m:latest"),
        ("Me/m", "me/m:latest"),
        ("https://Host:5000/library/m:7b", "host:5000/library/m:7b"),
        ("m:local", "m:latest:local"),
        ("m:120b-cloud", "m:120b:cloud"),
    ],
)
def test_the_canonical_spelling_is_the_shortest_with_its_tag(typed: str, spelling: str) -> None:
    assert canonical(typed) == spelling
