"""Translates the fields of OpenAI's requests to Ollama's (contract 2.6 and 2.9)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from foreman.simulator.engine.errors import Malformed
from foreman.simulator.engine.fields import Fields

_EFFORTS: Mapping[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}
_TYPES = ("data:image/jpeg;base64,", "data:image/jpg;base64,", "data:image/png;base64,", "data:image/webp;base64,")


def effort(value: str) -> bool | str | None:
    """The ``think`` of a ``reasoning_effort``.

    :raises Malformed: if there is no such effort.
    """
    if not value:
        return None
    if value not in _EFFORTS:
        known = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise Malformed(f'invalid reasoning value: "{value}" (must be {known})')
    return _EFFORTS[value]


def check_image(url: Any) -> None:
    """Refuse an image that is not a ``data:`` URL."""
    text = str(url.get("url", "")) if isinstance(url, Mapping) else str(url)
    if text.startswith(("http://", "https://")):
        raise Malformed("image URLs are not currently supported, please use base64 encoded data instead")
    prefix = next((prefix for prefix in (*_TYPES, "data:;base64,") if text.startswith(prefix)), None)
    try:
        base64.b64decode(text[len(prefix) :] if prefix else "!", validate=True)
    except ValueError:
        raise Malformed("invalid image input") from None


def content_of(value: Any) -> tuple[str, int]:
    """The text of a message's content, and the number of its images."""
    if value is None or isinstance(value, str):
        return value or "", 0
    if not isinstance(value, list):
        raise Malformed(f"invalid message content type: {type(value).__name__}")
    texts, images = [], 0
    for part in value:
        match part:
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url" | "input_image", "image_url": url}:
                check_image(url)
                images += 1
            case {"type": "input_audio"}:
                images += 1
            case _:
                raise Malformed("invalid message format")
    return "\n".join(texts), images


def output_format_of(value: Any) -> Any:
    """The ``format`` of a ``response_format``."""
    match value:
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return schema
        case {"type": "json_schema", "schema": schema}:
            return schema
    return None


def options_of(fields: Fields, limit: int | None) -> dict[str, Any]:
    """The options of an OpenAI request; ``limit`` is the maximum number of tokens."""
    stop = fields.raw("stop")
    options: dict[str, Any] = {
        "num_predict": limit,
        "temperature": fields.number("temperature"),
        "top_p": fields.number("top_p"),
        "seed": fields.integer("seed"),
        "stop": [stop] if isinstance(stop, str) else stop,
        "frequency_penalty": fields.number("frequency_penalty"),
        "presence_penalty": fields.number("presence_penalty"),
    }
    return {name: value for name, value in options.items() if value is not None}


def messages_of(fields: Fields) -> tuple[list[dict[str, Any]], int]:
    """The messages of a chat, and the number of their images."""
    messages, images = [], 0
    for item in fields.array("messages", "[]openai.Message"):
        if not isinstance(item, dict):
            raise fields.type_error("messages", item, "openai.Message")
        text, count = content_of(item.get("content"))
        images += count
        messages.append({**item, "role": str(item.get("role", "")), "content": text})
    return messages, images
