"""The prompts of the crash tests: each is unique, and tells the target how to answer it."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from typing import Any

from attrs import frozen

CHAT_MODELS = ("llama3.2:3b", "qwen3:4b")
EMBEDDER = "nomic-embed-text:latest"
ENDPOINTS = ("/api/chat", "/api/generate", "/v1/chat/completions", "/api/embed")
#: How the target answers: correctly, with 400, with 500, or by closing the connection in the middle.
BEHAVIOURS = ("ok", "refuse", "fail", "break")
#: How many pieces an answer comes in.
PIECES = 4


@frozen
class Prompt:
    """The parts of a prompt; ``pace`` is the pause before each piece of the answer, in milliseconds."""

    name: str
    pace: int
    behaviour: str

    @classmethod
    def read(cls, text: str) -> Prompt:
        """Parse the text of a prompt."""
        name, pace, behaviour, *_ = text.split()
        return cls(name, int(pace), behaviour)


def make(name: str, rng: random.Random) -> str:
    """A prompt of that name: most are answered at once and correctly, some slowly, some with an error."""
    pace = rng.choice((0, 0, 0, 0, 1, 2, 5, 20))
    behaviour = rng.choices(BEHAVIOURS, (94, 2, 2, 2))[0]
    filler = " and more" * (rng.choice((0, 0, 0, 50, 2000)))
    return f"{name} {pace} {behaviour}{filler}"


def payload(endpoint: str, text: str, model: str) -> dict[str, Any]:
    """The body of a request with the prompt ``text`` to ``endpoint``."""
    if endpoint == "/api/generate":
        return {"model": model, "prompt": text}
    if endpoint == "/api/embed":
        return {"model": model, "input": text}
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def text_of(body: bytes) -> str:
    """The prompt in the body of a request; empty when it has none."""
    value = json.loads(body)
    if not isinstance(value, dict):
        return ""
    if "messages" in value:
        return str(value["messages"][0]["content"])
    return str(value.get("prompt") or value.get("input") or "")


def checksum(text: str) -> str:
    """What a correct answer to ``text`` begins with."""
    return sha256(text.encode()).hexdigest()[:32]


def answer(text: str, number: int) -> str:
    """The answer to the ``number``-th request that reached the target."""
    return f"{checksum(text)} {number}"


def numbers(text: str, number: int) -> list[float]:
    """The same as an embedding."""
    return [*(float(byte) for byte in bytes.fromhex(checksum(text))), float(number)]


def read_response(endpoint: str, data: bytes) -> tuple[str, int] | None:
    """The checksum and the number in a stored response; None when it cannot be parsed or is incomplete."""
    try:
        value = json.loads(data)
        if endpoint == "/api/embed":
            *head, number = value["embeddings"][0]
            return bytes(int(number) for number in head).hex(), int(number)
        if endpoint == "/api/generate":
            content, done = value["response"], value["done"]
        elif endpoint == "/api/chat":
            content, done = value["message"]["content"], value["done"]
        else:
            content, done = value["choices"][0]["message"]["content"], value["choices"][0]["finish_reason"] == "stop"
        check, _, count = content.partition(" ")
        return (check, int(count)) if done is True else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def read_stream(endpoint: str, data: bytes) -> tuple[str, int] | None:
    """The same of a response that was stored line by line."""
    try:
        lines = [json.loads(line) for line in data.splitlines()]
        parts = [line["message"]["content"] if endpoint == "/api/chat" else line["response"] for line in lines]
        check, _, count = "".join(parts).partition(" ")
        return (check, int(count)) if lines[-1]["done"] is True else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None
