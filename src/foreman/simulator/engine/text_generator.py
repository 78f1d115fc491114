"""Generates the text of a simulated model, token by token; the same prompt and seed give the same text."""

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

TextStyle = Literal["babble", "greek", "slow", "loop", "tools", "think", "plain", "embed", "bad", "compact"]
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
_THINK_START, _THINK_END = "<think>", "</think>"
_THOUGHT = (_THINK_START, " let", " me", " see", " now", " then", _THINK_END)
_ANSWER = (" Here", " is", " the", " whole", " answer", ".")
_CHANCE_TO_STOP = 0.05
#: How often in a row a token may be repeated before the response is broken off: up to v0.33, and since v0.34.
MAX_REPEATS, MAX_REPEATS_SINCE_0_34 = 30, 100


@frozen
class ToolCall:
    """A call of a tool by the model."""

    name: str
    arguments: Mapping[str, Any]


@frozen
class Token:
    """One token of a response; a ``silent`` one is counted, but not shown."""

    text: str
    kind: Kind = "content"
    call: ToolCall | None = None


@frozen
class Prompt:
    """What of a request shapes the generated text.

    :ivar last: the text of the last message; :ivar after_tool_result: that message is the result of a tool.
    :ivar output_format: ``None``, ``"json"`` or a JSON schema; :ivar limit: the maximum number of tokens, -1 for none.
    :ivar repeats_end: too many equal tokens end the text; :ivar max_repeats: how many those are.
    """

    last: str = ""
    temperature: float = 0.8
    seed: int = 0
    think: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    after_tool_result: bool = False
    output_format: Any = None
    stop: Sequence[str] = Factory(tuple)
    limit: int = -1
    repeats_end: bool = True
    max_repeats: int = MAX_REPEATS


def _random_words(words: Sequence[str], prompt: Prompt, *, endless: bool = False) -> Iterator[str]:
    random = Random(f"{prompt.seed} {prompt.last}")  # noqa: S311 - for words
    while endless or random.random() >= _CHANCE_TO_STOP:
        yield f" {random.choice(words)}"


def _plain(prompt: Prompt) -> Iterator[str]:
    """A text for people who try it: it repeats the prompt, so that responses can be told apart."""
    prompt_text = " ".join(prompt.last.split())[:80] or "nothing"
    text = (
        f'You said: "{prompt_text}". I am only a simulator, but this is how a real answer would arrive: word by word.'
    )
    words = text.split(" ")
    return chain((words[0],), (f" {word}" for word in words[1:]))


def _thoughtful(prompt: Prompt) -> Iterator[str]:
    words = "".join(_plain(prompt)).split()
    thought = (" The", " question", " is", " plain", ".")
    return chain((_THINK_START,), thought, (_THINK_END,), (f" {word}" for word in words))


def schema_example(schema: Any) -> Any:
    """A value that matches a JSON schema, as far as the schema is an ordinary one."""
    if not isinstance(schema, Mapping):
        return {}
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return schema_example(schema[key][0])
    types = schema.get("type", "object" if "properties" in schema else "string")
    type_ = types[0] if isinstance(types, list) and types else types
    if type_ == "object":
        return {name: schema_example(part) for name, part in (schema.get("properties") or {}).items()}
    if type_ == "array":
        return [schema_example(schema["items"])] if "items" in schema else []
    samples: dict[Any, Any] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return samples.get(type_, "Paris")


def _formatted(text_style: TextStyle, output_format: Any) -> Iterator[str]:
    """Tokens of a text in a format. The recorded models cannot write JSON: the grammar leaves them only tabs."""
    if text_style in {"plain", "think"}:
        text = dumps(
            schema_example(output_format) if isinstance(output_format, Mapping) else {"answer": "a simulated answer"}
        )
        return (text[at : at + 6] for at in range(0, len(text), 6))
    first = next(iter((output_format.get("properties") or {}) if isinstance(output_format, Mapping) else ()), None)
    return chain("{" if first is None else f'{{"{first}":', repeat("\t"))


def raw_tokens(text_style: TextStyle, prompt: Prompt) -> Iterator[str]:
    """The raw tokens of a model, with the special ones, until the model itself stops."""
    if prompt.output_format is not None:
        return _formatted(text_style, prompt.output_format)
    greedy = prompt.temperature == 0
    match text_style:
        case "babble":
            return chain((" jobs",), repeat(" day")) if greedy else chain((" jobs",), _random_words(_BABBLE, prompt))
        case "slow":
            return (
                chain((" each",), cycle((" before", " foreman")))
                if greedy
                else _random_words(_BABBLE, prompt, endless=True)
            )
        case "greek":
            return chain((" mu",), cycle((" lambda", " nu", " phi"))) if greedy else _random_words(_GREEK, prompt)
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


def _tool_call(text_style: TextStyle, prompt: Prompt) -> ToolCall | None:
    """The tool call of the model, if any."""
    if not prompt.tools or (prompt.after_tool_result and text_style != "tools"):
        return None
    if text_style == "compact":
        return ToolCall("create_summary", {"summary": "All was said.", "retain_item_ids": []})
    if text_style == "tools":
        return ToolCall("get_weather", {"city": "Paris"})
    function = prompt.tools[0].get("function") or {}
    return ToolCall(str(function.get("name", "")), schema_example(function.get("parameters") or {}))


@frozen
class GenerationEnd:
    """How a text ended, after ``count`` tokens; the reason is ``None`` if it broke off after too many equal tokens."""

    reason: Literal["stop", "length"] | None
    count: int


def generate(text_style: TextStyle, prompt: Prompt) -> Iterator[Token | GenerationEnd]:
    """The tokens of a text, then how it ended."""
    call = _tool_call(text_style, prompt)
    spoken = _COMPACT if text_style == "compact" else _CALL
    raw = iter(spoken) if call is not None else raw_tokens(text_style, prompt)
    text, repeats, last, count = "", 0, None, 0
    thinking, strip_next = False, False
    for token in raw:
        if count == prompt.limit:
            break
        count += 1
        repeats, last = (repeats + 1 if token == last else 0), token
        if repeats > prompt.max_repeats and prompt.repeats_end:
            yield GenerationEnd(None, count)
            return
        if prompt.stop:
            text, cut = _cut_at_stop(text, token, prompt.stop)
            if cut is not None:
                yield Token(cut)
                yield GenerationEnd("stop", count)
                return
        if call is not None:
            yield Token(token, "call", call) if token is spoken[-1] else Token(token, "silent")
        elif prompt.think and token in {_THINK_START, _THINK_END}:
            thinking, strip_next = token == _THINK_START, True
            yield Token(token, "silent")
        else:
            yield _shared_token(token.lstrip() if strip_next else token, "thinking" if thinking else "content")
            strip_next = False
    else:
        if count != prompt.limit:
            yield GenerationEnd("stop", count + 1)  # the end token counts
            return
    yield GenerationEnd("length", count)


@lru_cache(maxsize=4096)
def _shared_token(text: str, kind: Kind) -> Token:
    return Token(text, kind)


def _cut_at_stop(text: str, token: str, stop: Iterable[str]) -> tuple[str, str | None]:
    """The text including ``token``, and how much of the token is shown if a stop sequence was reached."""
    after = text + token
    at = min((found for stop_text in stop if stop_text and (found := after.find(stop_text)) >= 0), default=-1)
    return after, (after[len(text) : max(at, len(text))] if at >= 0 else None)


@lru_cache(maxsize=4096)
def _direction(word: str, dimensions: int) -> tuple[int, ...]:
    return struct.unpack(f"<{dimensions}h", hashlib.shake_128(word.encode("utf-8", "replace")).digest(2 * dimensions))


def text_vector(text: str, dimensions: int) -> list[float]:
    """A unit vector for a text, always the same; texts that share words have similar directions."""
    words = text.lower().split() or [""]
    rows = [_direction(word, dimensions) for word in words]
    sums = rows[0] if len(rows) == 1 else [sum(column) for column in zip(*rows, strict=True)]
    length = math.sqrt(sum(x * x for x in sums)) or 1.0
    return [round(x / length, 8) for x in sums]


def truncated(long: Sequence[float], dimensions: int) -> list[float]:
    """The first dimensions of a vector, normalised again."""
    part = long[:dimensions]
    length = math.sqrt(sum(x * x for x in part)) or 1.0
    return [round(x / length, 8) for x in part]
