"""What is said beside a body: which preferences (RFC 7240), under which key, and by which headers for the target."""

from __future__ import annotations

import re
from collections.abc import Iterator

from foreman.protocol.headers import to_client
from foreman.web.jobs.problems import FieldError, Problem
from foreman.web.server.request import ClientRequest

KEY_LENGTH = 255

_RESPOND_ASYNC = "respond-async"
#: What matters to a list whose elements may have quoted strings in them.
_MARK = re.compile(r'[,"\\]')
#: A structured string (RFC 8941 section 3.3.3) may escape each of its characters, and has quotes around them.
_LONGEST_STRUCTURED = 2 * KEY_LENGTH + 2
_STRUCTURED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')


def wants_job(request: ClientRequest) -> bool:
    """Whether the request asks not to be waited for."""
    values = (value.decode("latin-1").lower() for value in request.headers_named(b"prefer"))
    return any(
        _is_respond_async(element) for value in values if _RESPOND_ASYNC in value for element in _elements(value)
    )


def header_key(request: ClientRequest) -> str | None:
    """The ``Idempotency-Key``, with or without the quotes that its draft asks for and hardly anybody sends.

    :raises Problem: when it cannot be one.
    """
    values = request.headers_named(b"idempotency-key")
    if not values:
        return None
    try:
        text = values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "Idempotency-Key: is not UTF-8") from None
    if len(values) > 1:
        raise Problem(400, "Idempotency-Key: is given more than once")
    structured = _STRUCTURED.fullmatch(text) if len(text) <= _LONGEST_STRUCTURED else None
    key = re.sub(r"\\(.)", r"\1", structured[1]) if structured else text
    if not 1 <= len(key) <= KEY_LENGTH:
        raise Problem(400, f"Idempotency-Key: must have 1 to {KEY_LENGTH} characters")
    return key


def one_key(in_header: str | None, in_body: str | None, pointer: str) -> str | None:
    """The key of a job that may be named twice.

    :raises Problem: when the two differ.
    """
    if in_header is not None and in_body is not None and in_header != in_body:
        field_error = FieldError(pointer, "is not that of the header Idempotency-Key")
        raise Problem(400, "idempotency_key: is not that of the header Idempotency-Key", [field_error])
    return in_header if in_body is None else in_body


def check_plain(request: ClientRequest, advice: str) -> None:
    """Whether the body is what it says, and not a compressed form of it.

    :raises Problem: with ``advice`` where it is.
    """
    if any(value.strip().lower() not in {b"", b"identity"} for value in request.headers_named(b"content-encoding")):
        raise Problem(415, f"Content-Encoding: {advice}")


def kept_headers(request: ClientRequest) -> tuple[tuple[str, str], ...]:
    """The headers that matter to the target; never who asks, nor what is between the client and foreman."""
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in to_client(request.raw_headers)
        if name.lower().startswith(b"anthropic-") or name.lower() in {b"openai-beta", b"user-agent"}
    )


def header(request: ClientRequest, name: bytes, default: str) -> str:
    """The first header of a name, lower case, as text."""
    values = request.headers_named(name)
    return values[0].decode("latin-1") if values and values[0] else default


def _elements(text: str) -> Iterator[str]:
    """The elements of a comma-separated list; a comma within a quoted string separates nothing (RFC 9110 section 5.6)."""
    start, quoted, escaped = 0, False, -1
    for found in _MARK.finditer(text):
        at, mark = found.start(), found[0]
        if at == escaped:
            continue
        if mark == '"':
            quoted = not quoted
        elif mark == "\\":
            escaped = at + 1 if quoted else -1
        elif not quoted:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _is_respond_async(element: str) -> bool:
    """Whether this is that preference; its value may only be empty, and its parameters mean nothing to foreman."""
    name, _, value = element.partition(";")[0].partition("=")
    return name.strip(" \t") == _RESPOND_ASYNC and value.strip(" \t") in {"", '""'}
