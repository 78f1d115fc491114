"""What an error of Ollama's says, in whatever family's shape it comes (contract 1.5)."""

from __future__ import annotations

from typing import Any

import msgspec

from foreman.protocol import decoding

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()

#: How much of it is repeated, in characters; and of a body up to which size the sentence is looked for, in bytes.
LONGEST, MAX_BYTES = 2000, 256 * 1024


def error_text(body: bytes) -> str:
    """The sentence in the body of an error; of what is no JSON, the text itself."""
    try:
        value = decoding.decode(_decoder, body) if len(body) <= MAX_BYTES else None
    except ValueError:
        value = None
    if value is None:
        return body[:LONGEST].decode("utf-8", "replace").strip()
    error = value.get("error", value) if isinstance(value, dict) else value
    return str(error.get("message", error) if isinstance(error, dict) else error)[:LONGEST]
