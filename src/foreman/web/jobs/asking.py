"""What is said beside a body: which preferences (RFC 7240), under which key, and by which headers for the target."""

from __future__ import annotations

import re

from foreman.web.jobs.problems import Flaw, Problem
from foreman.web.visit import Visit

KEY_LENGTH = 255

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PIECE = re.compile(rf"(?:[^,\"]|{_QUOTED})+")
#: A name, and perhaps a value, which for this preference may only be empty; parameters of it mean nothing to foreman.
_RESPOND_ASYNC = re.compile(r'[ \t]*respond-async[ \t]*(?:=[ \t]*(?:"")?[ \t]*)?(?:;.*)?', re.IGNORECASE | re.DOTALL)
_STRUCTURED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')


def wants_job(visit: Visit) -> bool:
    """Whether the request asks not to be waited for."""
    values = visit.headers_named(b"prefer")
    return any(_RESPOND_ASYNC.fullmatch(piece) for value in values for piece in _PIECE.findall(value.decode("latin-1")))


def header_key(visit: Visit) -> str | None:
    """The ``Idempotency-Key``, with or without the quotes that its draft asks for and hardly anybody sends.

    :raises Problem: when it cannot be one.
    """
    values = visit.headers_named(b"idempotency-key")
    if not values:
        return None
    try:
        text = values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(400, "Idempotency-Key: is not UTF-8") from None
    if len(values) > 1:
        raise Problem(400, "Idempotency-Key: is given more than once")
    structured = _STRUCTURED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", structured[1]) if structured else text
    if not 1 <= len(key) <= KEY_LENGTH:
        raise Problem(400, f"Idempotency-Key: must have 1 to {KEY_LENGTH} characters")
    return key


def one_key(in_header: str | None, in_body: str | None, pointer: str) -> str | None:
    """The key of a job that may be named twice.

    :raises Problem: when the two differ.
    """
    if in_header is not None and in_body is not None and in_header != in_body:
        flaw = Flaw(pointer, "is not that of the header Idempotency-Key")
        raise Problem(400, "idempotency_key: is not that of the header Idempotency-Key", [flaw])
    return in_header if in_body is None else in_body


def check_plain(visit: Visit, advice: str) -> None:
    """Whether the body is what it says, and not a compressed form of it.

    :raises Problem: with ``advice`` where it is.
    """
    if any(value.strip().lower() not in {b"", b"identity"} for value in visit.headers_named(b"content-encoding")):
        raise Problem(415, f"Content-Encoding: {advice}")


def kept_headers(visit: Visit) -> tuple[tuple[str, str], ...]:
    """The headers that matter to the target; never who asks."""
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in visit.raw_headers
        if name.lower().startswith(b"anthropic-") or name.lower() in {b"openai-beta", b"user-agent"}
    )


def header(visit: Visit, name: bytes, default: str) -> str:
    """The first header of a name, lower case, as text."""
    values = visit.headers_named(name)
    return values[0].decode("latin-1") if values and values[0] else default
