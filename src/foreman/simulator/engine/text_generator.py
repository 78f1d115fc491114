"""What a pretended model says: one token after the other, each following from the seed and the one before."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, cycle, repeat
from random import Random
from typing import Any, Literal

from attrs import Factory, frozen

from foreman.simulator.engine.go_json import dumps

Speech = Literal["babble", "greek", "slow", "loop", "tools", "think", "plain", "embed", "bad", "compact"]
Kind = Literal["content", "thinking", "call", "silent"]

_BABBLE = (
    " jobs day bells then blue <b> foreman town café while & rain by moon new line 🙂 paper red runs three nobody and"
    ' before water opens each night counts a hurries stone turns four naïve "quoted" Zürich'
).split(" ")[1:]
_GREEK = " mu lambda nu phi alpha beta gamma delta".split(" ")[1:]
_CALL = ('{"name":', ' "get_weather",', ' "parameters":', ' {"city":', ' "Paris"}}')
_COMPACT = (
    '{"name":', ' "create_summary",', ' "parameters":', ' {"summary":', ' "All', " was", ' said.",', ' "retain_item_ids": []}}',
)  # fmt: skip
_OPENS, _CLOSES = "<think>", "</think>"
_THOUGHT = (_OPENS, " let", " me", " see", " now", " then", _CLOSES)
_ANSWER = (" Here", " is", " the", " whole", " answer", ".")
_CHANCE_TO_STOP = 0.05
#: How often in a row a token may come again before the answer is broken off: up to v0.33, and since.
SAME_AT_MOST, SAME_AT_MOST_SINCE = 30, 100


@frozen
class Call:
    """A tool that the model wants used."""

    name: str
    arguments: Mapping[str, Any]


@frozen
class Piece:
    """One token of an answer; a silent one is counted, but has nothing to show."""

    text: str
    kind: Kind = "content"
    call: Call | None = None


@frozen
class Prompt:
    """What a model is asked, as far as it shapes the answer.

    :ivar last: what the last message says; :ivar answered: that message is the result of a tool.
    :ivar form: ``None``, ``"json"`` or a JSON schema.
    """

    last: str = ""
    temperature: float = 0.8
    seed: int = 0
    think: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    answered: bool = False
    form: Any = None
    stop: Sequence[str] = Factory(tuple)
    limit: int = -1
    repeats_end: bool = True
    same_at_most: int = SAME_AT_MOST


def _walk(words: Sequence[str], prompt: Prompt, *, endless: bool = False) -> Iterator[str]:
    random = Random(f"{prompt.seed} {prompt.last}")  # noqa: S311 - for words
    while endless or random.random() >= _CHANCE_TO_STOP:
        yield f" {random.choice(words)}"


def _plain(prompt: Prompt) -> Iterator[str]:
    """An answer for people who try it: it says what was asked, so that it can be told from others."""
    asked = " ".join(prompt.last.split())[:80] or "nothing"
    text = f'You said: "{asked}". I am only a simulator, but this is how a real answer would arrive: word by word.'
    words = text.split(" ")
    return chain((words[0],), (f" {word}" for word in words[1:]))


def _thoughtful(prompt: Prompt) -> Iterator[str]:
    words = "".join(_plain(prompt)).split()
    thought = (" The", " question", " is", " plain", ".")
    return chain((_OPENS,), thought, (_CLOSES,), (f" {word}" for word in words))


def instance(schema: Any) -> Any:
    """A value that satisfies the ordinary parts of a JSON schema."""
    if not isinstance(schema, Mapping):
        return {}
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return instance(schema[key][0])
    types = schema.get("type", "object" if "properties" in schema else "string")
    type_ = types[0] if isinstance(types, list) and types else types
    if type_ == "object":
        return {name: instance(part) for name, part in (schema.get("properties") or {}).items()}
    if type_ == "array":
        return [instance(schema["items"])] if "items" in schema else []
    samples: dict[Any, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return samples.get(type_, "Paris")


def _formed(speech: Speech, form: Any) -> Iterator[str]:
    """Tokens of an answer in a form. The recorded models know no JSON: their grammar lets them say only tabs."""
    if speech in {"plain", "think"}:
        text = dumps(instance(form) if isinstance(form, Mapping) else {"answer": "a simulated answer"})
        return (text[at : at + 6] for at in range(0, len(text), 6))
    first = next(iter((form.get("properties") or {}) if isinstance(form, Mapping) else ()), None)
    return chain("{" if first is None else f'{{"{first}":', repeat("\t"))


def tokens(speech: Speech, prompt: Prompt) -> Iterator[str]:
    """The raw tokens of a model, special ones included; their end is the model's own."""
    if prompt.form is not None:
        return _formed(speech, prompt.form)
    greedy = prompt.temperature == 0
    match speech:
        case "babble":
            return chain((" jobs",), repeat(" day")) if greedy else chain((" jobs",), _walk(_BABBLE, prompt))
        case "slow":
            return chain((" each",), cycle((" before", " foreman"))) if greedy else _walk(_BABBLE, prompt, endless=True)
        case "greek":
            return chain((" mu",), cycle((" lambda", " nu", " phi"))) if greedy else _walk(_GREEK, prompt)
        case "loop":
            return repeat(" la")
        case "tools":
            return iter(_CALL)
        case "compact":
            return iter(_COMPACT)
        case "think":
            return chain(_THOUGHT, _ANSWER)
        case _:
            return _thoughtful(prompt) if prompt.think else _plain(prompt)


def _called(speech: Speech, prompt: Prompt) -> Call | None:
    """The tool that the model uses, if it does."""
    if not prompt.tools or (prompt.answered and speech != "tools"):
        return None
    if speech == "compact":
        return Call("create_summary", {"summary": "All was said.", "retain_item_ids": []})
    if speech == "tools":
        return Call("get_weather", {"city": "Paris"})
    function = prompt.tools[0].get("function") or {}
    return Call(str(function.get("name", "")), instance(function.get("parameters") or {}))


@frozen
class Ending:
    """How an answer ended: ``None`` where it just broke off, as it does after too many equal tokens."""

    reason: Literal["stop", "length"] | None
    count: int


def speak(speech: Speech, prompt: Prompt) -> Iterator[Piece | Ending]:
    """The pieces of an answer, then how it ended."""
    call = _called(speech, prompt)
    spoken = _COMPACT if speech == "compact" else _CALL
    raw = iter(spoken) if call is not None else tokens(speech, prompt)
    said, same, last, count = "", 0, None, 0
    thinking, fresh = False, False
    for token in raw:
        if count == prompt.limit:
            break
        count += 1
        same, last = (same + 1 if token == last else 0), token
        if same > prompt.same_at_most and prompt.repeats_end:
            yield Ending(None, count)
            return
        if prompt.stop:
            said, cut = _stopped(said, token, prompt.stop)
            if cut is not None:
                yield Piece(cut)
                yield Ending("stop", count)
                return
        if call is not None:
            yield Piece(token, "call", call) if token is spoken[-1] else Piece(token, "silent")
        elif prompt.think and token in {_OPENS, _CLOSES}:
            thinking, fresh = token == _OPENS, True
            yield Piece(token, "silent")
        else:
            yield _shown(token.lstrip() if fresh else token, "thinking" if thinking else "content")
            fresh = False
    else:
        if count != prompt.limit:
            yield Ending("stop", count + 1)  # the token that ends a text counts
            return
    yield Ending("length", count)


@lru_cache(maxsize=4096)
def _shown(text: str, kind: Kind) -> Piece:
    return Piece(text, kind)


def _stopped(said: str, token: str, stop: Iterable[str]) -> tuple[str, str | None]:
    """What has been said with ``token``, and what may still be shown of the token if a stop text is reached."""
    after = said + token
    at = min((found for text in stop if text and (found := after.find(text)) >= 0), default=-1)
    return after, (after[len(said) : max(at, len(said))] if at >= 0 else None)


@lru_cache(maxsize=4096)
def _direction(word: str, dimensions: int) -> tuple[int, ...]:
    return struct.unpack(f"<{dimensions}h", hashlib.shake_128(word.encode("utf-8", "replace")).digest(2 * dimensions))


def vector(text: str, dimensions: int) -> list[float]:
    """A unit vector for a text, always the same one; texts that share words point in similar directions."""
    words = text.lower().split() or [""]
    rows = [_direction(word, dimensions) for word in words]
    sums = rows[0] if len(rows) == 1 else [sum(column) for column in zip(*rows, strict=True)]
    length = math.sqrt(sum(x * x for x in sums)) or 1.0
    return [round(x / length, 8) for x in sums]


def shortened(long: Sequence[float], dimensions: int) -> list[float]:
    """The first dimensions of a vector, again of length one."""
    part = long[:dimensions]
    length = math.sqrt(sum(x * x for x in part)) or 1.0
    return [round(x / length, 8) for x in part]
