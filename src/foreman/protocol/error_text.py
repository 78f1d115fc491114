"""The message in an error response, in the format of any family (contract 1.5)."""

from __future__ import annotations

from foreman.protocol import lenient_json

#: How much of a text is repeated, in characters; and of a body up to which size it is looked for, in bytes.
LONGEST, MAX_BYTES = 2000, 256 * 1024


def error_member(value: object) -> object:
    """The error in a body of JSON: its text, or what stands in the place of it; None where there is no error."""
    error = value.get("error") if isinstance(value, dict) else None
    return error.get("message", error) if isinstance(error, dict) else error


def error_text(body: bytes, longest: int = LONGEST) -> str:
    """The text of the error in ``body``; of a body that is not JSON, the body itself. At most ``longest`` characters."""
    try:
        value = lenient_json.read(body) if len(body) <= MAX_BYTES else None
        text = None if value is None else str(_error_in(value))
    except (ValueError, RecursionError):
        text = None
    if text is None:
        return body[:longest].decode("utf-8", "replace").strip()
    return text[:longest]


def _error_in(value: object) -> object:
    error = error_member(value)
    if error is None:
        return value.get("message", value) if isinstance(value, dict) else value  # as proxies write it
    return error
