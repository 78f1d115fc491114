"""The items in requests and responses of ``/v1/responses``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foreman.simulator.api.openai_fields import content_of
from foreman.simulator.engine.errors import Malformed


class Struct(dict[str, Any]):
    """An object that keeps the order of its members, as Go writes structs."""


def in_order(value: Any) -> Any:
    """A value with all keys sorted, at every depth, as Go writes maps."""
    if isinstance(value, Struct):
        return value
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value)}
    return [in_order(item) for item in value] if isinstance(value, list) else value


def part(text: str) -> dict[str, Any]:
    """The content part of a message."""
    return {"annotations": [], "logprobs": [], "text": text, "type": "output_text"}


def message(id_: str, text: str) -> dict[str, Any]:
    """A message of the model."""
    content = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": id_, "type": "message", "status": "completed", "role": "assistant", "content": [content]}


def reasoning(id_: str, text: str) -> dict[str, Any]:
    """The reasoning of the model."""
    return {
        "id": id_,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text}],
        "encrypted_content": text,
    }


def messages(value: Any) -> tuple[list[dict[str, Any]], int]:
    """The messages of an ``input``, and the number of their images."""
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
    """A tool as the response object repeats it: since v0.34 as the client wrote it."""
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
