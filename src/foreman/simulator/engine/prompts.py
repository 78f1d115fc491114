"""Renders messages to a prompt, and counts its tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from foreman.simulator.engine.go_json import dumps
from foreman.simulator.engine.models import Model

Message = Mapping[str, Any]

_SPECIAL = re.compile(r"<\|go\|>")
_PAIRS = re.compile(" [&🙂a](?![a-z])")
_BEFORE_THE_ANSWER = "<|go|>"


def render_prompt(model: Model, messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
    """The prompt that a model's template makes of messages and tools."""
    if "jinja" in model.template:
        turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return "".join((*turns, "<|im_start|>assistant\n"))
    head = f"[tools] {dumps(list(tools))}\n" if tools and "tools" in model.capabilities else ""
    turns = (f"[{m['role']}] {m['content']}{_calls(m)}\n" for m in messages)
    return "".join((head, *turns, _BEFORE_THE_ANSWER))


def _calls(message: Message) -> str:
    functions = (call.get("function") or {} for call in message.get("tool_calls") or () if isinstance(call, Mapping))
    return "".join(f'{{"name": "{f.get("name")}", "parameters": {dumps(f.get("arguments"))}}}' for f in functions)


def count_tokens(model: Model, text: str) -> int:
    """The approximate number of tokens of a text: the tokens of the recorded models are bytes and a few pairs of bytes."""
    if "embedding" in model.capabilities:
        return min(len(text.split()) + 2, model.context_length)
    rest, special = _SPECIAL.subn("", text)
    if model.text_style in {"babble", "slow"}:
        rest, pairs = _PAIRS.subn("", rest)
        special += pairs
    if model.text_style == "plain":
        return special + 1 + len(rest.encode()) // 4
    return special + 1 + len(rest.encode("utf-8", "replace"))


def truncated_length(num_ctx: int, count: int) -> int:
    """The number of tokens of a prompt after truncation: of one that is too long, the newest half of the context is kept."""
    if count <= num_ctx:
        return count
    return num_ctx - (num_ctx - 5) // 2
