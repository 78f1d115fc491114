"""The request headers that matter to jobs: ``Prefer`` (RFC 7240), ``Idempotency-Key``, and those kept for the target."""

from __future__ import annotations

import re
from collections.abc import Iterator

from foreman.protocol.headers import to_client
from foreman.web.jobs.problems import FieldError, Problem
from foreman.web.server.request import ClientRequest

MAX_KEY = 255

_RESPOND_ASYNC = "respond-async"
#: The characters with a meaning in a list whose elements may contain quoted strings.
_SYNTAX = re.compile(r'[,"\\]')
#: A structured string (RFC 8941 section 3.3.3) may escape each of its characters, and is quoted.
_MAX_STRUCTURED = 2 * MAX_KEY + 2
_STRUCTURED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')


def wants_job(request: ClientRequest) -> bool:
    """Whether the request has ``Prefer: respond-async``, and so is to become a job."""
    values = (value.decode("latin-1").lower() for value in request.headers_named(b"prefer"))
    return any(
        _is_respond_async(element) for value in values if _RESPOND_ASYNC in value for element in _elements(value)
    )


def idempotency_key_header(request: ClientRequest) -> str | None:
    """The ``Idempotency-Key``, with or without the quotes that its draft requires and few clients send.

    :raises Problem: when it is invalid.
    """
    values = request.headers_named(b"idempotency-key")
    if not values:
        return None
    try:
        text = values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "Idempotency-Key: must be UTF-8") from None
    if len(values) > 1:
        raise Problem(400, "Idempotency-Key: must be sent only once")
    structured = _STRUCTURED.fullmatch(text) if len(text) <= _MAX_STRUCTURED else None
    key = re.sub(r"\\(.)", r"\1", structured[1]) if structured else text
    if not 1 <= len(key) <= MAX_KEY:
        raise Problem(400, f"Idempotency-Key: must have 1 to {MAX_KEY} characters")
    return key


def resolve_key(header_key: str | None, body_key: str | None, pointer: str) -> str | None:
    """The key of a job, which may be given in the header, in the body, or in both.

    :raises Problem: when the two differ.
    """
    if header_key is not None and body_key is not None and header_key != body_key:
        field_error = FieldError(pointer, "differs from the header Idempotency-Key")
        raise Problem(400, "idempotency_key: differs from the header Idempotency-Key", [field_error])
    return header_key if body_key is None else body_key


def check_uncompressed(request: ClientRequest, advice: str) -> None:
    """Check that the body is not compressed.

    :raises Problem: with ``advice`` where it is.
    """
    if any(value.strip().lower() not in {b"", b"identity"} for value in request.headers_named(b"content-encoding")):
        raise Problem(415, f"Content-Encoding: {advice}")


def headers_to_store(request: ClientRequest) -> tuple[tuple[str, str], ...]:
    """The headers that are stored with a job for the target; never credentials, nor headers of the connection to foreman."""
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in to_client(request.raw_headers)
        if name.lower().startswith(b"anthropic-") or name.lower() in {b"openai-beta", b"user-agent"}
    )


def first_header(request: ClientRequest, name: bytes, default: str) -> str:
    """The value of the first header ``name`` (lower case) as text; ``default`` where it is missing or empty."""
    values = request.headers_named(name)
    return values[0].decode("latin-1") if values and values[0] else default


def _elements(text: str) -> Iterator[str]:
    """The elements of a comma-separated list; a comma within a quoted string is no separator (RFC 9110 section 5.6)."""
    start, quoted, escaped = 0, False, -1
    for found in _SYNTAX.finditer(text):
        position, character = found.start(), found[0]
        if position == escaped:
            continue
        if character == '"':
            quoted = not quoted
        elif character == "\\":
            escaped = position + 1 if quoted else -1
        elif not quoted:
            yield text[start:position]
            start = position + 1
    yield text[start:]


def _is_respond_async(element: str) -> bool:
    """Whether a preference is ``respond-async``; its value must be empty, and its parameters are ignored."""
    name, _, value = element.partition(";")[0].partition("=")
    return name.strip(" \t") == _RESPOND_ASYNC and value.strip(" \t") in {"", '""'}
