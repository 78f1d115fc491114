"""What the fields of OpenAI's requests mean in Ollama's terms (contract 2.6 and 2.9)."""

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
    """What a ``reasoning_effort`` means for ``think``.

    :raises Malformed: for a word that is none.
    """
    if not value:
        return None
    if value not in _EFFORTS:
        known = '"minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'
        raise Malformed(f'invalid reasoning value: "{value}" (must be {known})')
    return _EFFORTS[value]


def check_image(url: Any) -> None:
    """Nothing, or a refusal of an image that is not in the request itself."""
    text = str(url.get("url", "")) if isinstance(url, Mapping) else str(url)
    if text.startswith(("http://", "https://")):
        raise Malformed("image URLs are not currently supported, please use base64 encoded data instead")
    prefix = next((prefix for prefix in (*_TYPES, "data:;base64,") if text.startswith(prefix)), None)
    try:
        base64.b64decode(text[len(prefix) :] if prefix else "!", validate=True)
    except ValueError:
        raise Malformed("invalid image input") from None


def content_of(value: Any) -> tuple[str, int]:
    """The text of a message's content, and how many images are in it."""
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


def form_of(value: Any) -> Any:
    """The ``format`` that a ``response_format`` means."""
    match value:
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return schema
        case {"type": "json_schema", "schema": schema}:
            return schema
    return None


def options_of(fields: Fields, limit: int | None) -> dict[str, Any]:
    """The options that an OpenAI request's fields mean; ``limit`` is the most tokens."""
    stop = fields.raw("stop")
    options: dict[str, Any] = {
        "num_predict": limit,
        "temperature": fields.real("temperature"),
        "top_p": fields.real("top_p"),
        "seed": fields.number("seed"),
        "stop": [stop] if isinstance(stop, str) else stop,
        "frequency_penalty": fields.real("frequency_penalty"),
        "presence_penalty": fields.real("presence_penalty"),
    }
    return {name: value for name, value in options.items() if value is not None}


def messages_of(fields: Fields) -> tuple[list[dict[str, Any]], int]:
    """The messages of a chat, and how many images are in them."""
    messages, images = [], 0
    for item in fields.items("messages", "[]openai.Message"):
        if not isinstance(item, dict):
            raise fields.wrong("messages", item, "openai.Message")
        text, count = content_of(item.get("content"))
        images += count
        messages.append({**item, "role": str(item.get("role", "")), "content": text})
    return messages, images
