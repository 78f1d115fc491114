"""Malformed and doubtful requests, each by its rule (tests/requests): none reaches the target in doubt."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import Factory, define

from support.in_memory_foreman import InMemoryClient, InMemoryForeman, in_memory_foreman
from support.raw_http import Response

FOLDER = Path(__file__).parent / "requests"

#: Sent byte by byte up to this size; larger ones in pieces only.
SMALL = 5_000


@define
class Doubtful:
    """One request of the corpus, see tests/requests/README.md."""

    rule: str
    send: str
    answers: list[int]
    closes: bool = False
    bare: bool = False
    continues: bool = False
    plain: bool = False
    aborts: bool = False
    shape: str = "ollama"
    after: float = 0.0
    reaches: list[str] = Factory(list)
    has: list[str] = Factory(list)
    lacks: list[str] = Factory(list)

    def __attrs_post_init__(self) -> None:
        assert self.rule.startswith(("RFC ", "contract ", "design ")), self.rule

    def bytes(self) -> bytes:
        return _unescape(self.send.replace("\n", "\r\n"))


_NAMED = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def _unescape(text: str) -> bytes:
    def one(match: re.Match[str]) -> str:
        if match["times"]:
            return (_unescape(match["what"]) * int(match["times"])).decode("latin-1")
        if match["hex"]:
            return chr(int(match["hex"], 16))
        return _NAMED[match["name"]].decode("latin-1")

    pattern = r"\\(?:\{(?P<what>.+?)\*(?P<times>\d+)\}|x(?P<hex>[0-9a-f]{2})|(?P<name>[rnt0\\]))"
    return re.sub(pattern, one, text).encode("latin-1")


CORPUS = {
    f"{path.stem}-{name}": Doubtful(**entry)
    for path in sorted(FOLDER.glob("*.toml"))
    for name, entry in tomllib.loads(path.read_text("utf-8")).items()
}


def pieces(data: bytes, seed: str) -> list[bytes]:
    """``data`` cut at a few places; the same for the same ``seed``."""
    random = Random(seed)
    cuts = sorted(random.sample(range(1, len(data)), min(6, len(data) - 1)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def send(step: InMemoryForeman, data: list[bytes], after: float) -> InMemoryClient:
    caller = step.call()
    for piece in data:
        caller.transport.deliver(piece)
        step.turn(2)
    step.turn()
    if after:
        step.wait(after)
    return caller


def is_readable(response: Response, shape: str) -> bool:
    """Whether a refusal is JSON as the clients of ``shape`` read it (contract 1.5)."""
    assert (response.header("Content-Type") or "").startswith("application/json")
    value: Any = json.loads(response.body)
    if shape == "ollama":
        return list(value) == ["error"] and isinstance(value["error"], str) and bool(value["error"])
    if shape == "openai":
        return list(value["error"]) == ["message", "type", "param", "code"] and bool(value["error"]["message"])
    assert re.fullmatch("req_[0-9a-f]{24}", value["request_id"])
    return list(value["error"]) == ["type", "message"] and value["type"] == "error"


def check(step: InMemoryForeman, caller: InMemoryClient, doubtful: Doubtful) -> None:
    answers = caller.answers()
    assert [answer.status for answer in answers] == doubtful.answers, caller.received[:500]
    assert caller.closed == doubtful.closes
    asked = step.target.request_connections
    if doubtful.aborts:
        assert all(one.transport.ended == "reset" and one.read() is None for one in asked)
    else:
        assert all(one.read() is not None for one in asked)
    heard = step.target.requests
    assert [f"{one.method} {one.target}|{one.body.decode('latin-1')}" for one in heard] == doubtful.reaches
    for one in heard:
        headers = [f"{name}: {value}" for name, value in one.headers]
        assert set(doubtful.has) <= set(headers)
        assert not any(one.named(name) for name in doubtful.lacks)
    for answer in answers:
        assert not answer.torn
        if answer.status in (301, 307):
            assert (answer.header("Location") or "").startswith("/api/")
        elif doubtful.plain:
            assert (answer.header("Content-Type") or "").startswith("text/plain")
        elif answer.status >= 300:
            assert (answer.body == b"") if doubtful.bare else is_readable(answer, doubtful.shape)
    if doubtful.closes:
        assert [value for name, value in answers[-1].headers if name == "Connection"] == ["close"]
    assert bool(answers and answers[0].interim) == doubtful.continues


def ways(name: str, data: bytes) -> Iterator[list[bytes]]:
    """``data`` whole, in a few pieces, and byte by byte where that does not take long."""
    yield [data]
    yield pieces(data, name)
    if len(data) <= SMALL:
        yield [bytes([one]) for one in data]


@pytest.mark.parametrize("name", CORPUS)
def test_a_doubtful_request_does_what_its_rule_says(name: str) -> None:
    doubtful = CORPUS[name]
    for sent in ways(name, doubtful.bytes()):
        with in_memory_foreman() as step:
            caller = send(step, sent, doubtful.after)
            check(step, caller, doubtful)
            step.wait(1000, 10)
            assert caller.transport.lost
            assert step.service.connections.bodies.used == 0
            assert len(step.service.connections.open) == 0


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 100
