"""How messages become a prompt, and how many tokens that is."""

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


def rendered(model: Model, messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
    """The text that a model's template makes of messages and tools."""
    if "jinja" in model.template:
        turns = (f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        return "".join((*turns, "<|im_start|>assistant\n"))
    head = f"[tools] {dumps(list(tools))}\n" if tools and "tools" in model.capabilities else ""
    turns = (f"[{m['role']}] {m['content']}{_calls(m)}\n" for m in messages)
    return "".join((head, *turns, _BEFORE_THE_ANSWER))


def _calls(message: Message) -> str:
    functions = (call.get("function") or {} for call in message.get("tool_calls") or () if isinstance(call, Mapping))
    return "".join(f'{{"name": "{f.get("name")}", "parameters": {dumps(f.get("arguments"))}}}' for f in functions)


def pieces_of(model: Model, text: str) -> int:
    """How many tokens a text is, near enough: the recorded models know single bytes and a few pairs of them."""
    if "embedding" in model.capabilities:
        return min(len(text.split()) + 2, model.context_length)
    rest, special = _SPECIAL.subn("", text)
    if model.speech in {"babble", "slow"}:
        rest, pairs = _PAIRS.subn("", rest)
        special += pairs
    if model.speech == "plain":
        return special + 1 + len(rest.encode()) // 4
    return special + 1 + len(rest.encode("utf-8", "replace"))


def kept(num_ctx: int, count: int) -> int:
    """How many tokens are left of a prompt that is too long: the newest half of the context."""
    if count <= num_ctx:
        return count
    return num_ctx - (num_ctx - 5) // 2
