"""The parts that requests to and answers of ``/v1/responses`` are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreman.simulator.api.openai_fields import content_of
from foreman.simulator.engine.errors import Malformed


class Struct(dict[str, Any]):
    """An object whose members stand as they are, as Go writes structs."""


def in_order(value: Any) -> Any:
    """A value whose keys are in order, all the way down, as Go writes maps."""
    if isinstance(value, Struct):
        return value
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(item) for item in value] if isinstance(value, list) else value


def part(text: str) -> dict[str, Any]:
    """The content of a message."""
    return {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}


def message(id_: str, text: str) -> dict[str, Any]:
    """A message that was said."""
    said = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": id_, "type": "message", "status": "completed", "role": "assistant", "content": [said]}


def reasoning(id_: str, text: str) -> dict[str, Any]:
    """What was thought before."""
    return {
        "id": id_,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}],
        "encrypted_content": text,
    }


def messages(value: Any) -> tuple[list[dict[str, Any]], int]:
    """The messages that an ``input`` means, and how many images are in them."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}], 0
    if not isinstance(value, list):
        raise Malformed("input must be a string or array")
    messages, images = [], 0
    for item in value:
        if not isinstance(item, Mapping):
            raise Malformed("input items must be objects")
        match item.get("type"):
            case "function_call_output":
                messages.append({"role": "tool", "content": str(item.get("output", ""))})
            case "function_call" | "reasoning":
                messages.append({"role": "assistant", "content": ""})
            case _:
                text, count = content_of(item.get("content"))
                images += count
                messages.append({"role": str(item.get("role", "user")), "content": text})
    return messages, images


def tool(tool: Mapping[str, Any], *, newer: bool) -> dict[str, Any]:
    """A tool as the response object repeats it: since v0.34 in the client's own form."""
    parameters = in_order(tool.get("parameters"))
    if newer:
        return Struct({**tool, "parameters": parameters} if "parameters" in tool else tool)
    return {
        "description": tool.get("description"),
        "name": tool.get("name"),
        "parameters": parameters,
        "strict": tool.get("strict"),
        "type": tool.get("type"),
    }
