"""Responses of the document: builders for them, the headers, and the errors that every route may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from foreman.config.settings import SETTINGS
from foreman.web.openapi.schemas import TEXT, Schema, ref
from foreman.web.server.responses import PHRASES

Shape = Literal["Problem", "Error"]

_HELP = {setting.variable: setting.help for setting in SETTINGS}

#: The headers that answers may have.
HEADERS: dict[str, Schema] = {
    "Location": {
        "description": "The path of the job or the artifact, with `/k/TOKEN` in front if the request had it.",
        "schema": TEXT,
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Idempotency-Replayed": {
        "description": "Every job of the request was submitted before; nothing was stored.",
        "schema": {"type": "string", "const": "true"},
    },
    "Preference-Applied": {
        "description": "On the routes of Ollama: the answer to `Prefer: respond-async`.",
        "schema": {"type": "string", "const": "respond-async"},
    },
    "X-Foreman-Attempt": {
        "description": "With NDJSON: the number of the attempt whose lines come first.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "ETag": {
        "description": "The SHA-256 of the whole artifact.",
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
    },
    "Accept-Ranges": {"description": "Ranges are supported.", "schema": {"type": "string", "const": "bytes"}},
    "Content-Range": {"description": "The range that was sent, and the size of the artifact in bytes.", "schema": TEXT},
    "Content-Disposition": {"description": "`attachment`, with the name of the artifact.", "schema": TEXT},
    "WWW-Authenticate": {"description": "How to send the token.", "schema": TEXT},
}


def setting(variable: str) -> str:
    """A setting with its help text."""
    return f"`{variable}` ({_HELP[variable]})"


#: The errors that a request to any route may get, before it reaches the route.
_COMMON: dict[int, tuple[str, Sequence[str]]] = {
    400: ("The request is malformed.", ()),
    401: ("The token is missing or not known.", ("WWW-Authenticate",)),
    403: (
        f"The `Host` is not allowed by {setting('FOREMAN_ALLOWED_HOSTS')}; or the `Origin` is not allowed, then without a body.",
        (),
    ),
    408: (f"The request came too slowly: {setting('FOREMAN_HEAD_TIMEOUT')}, {setting('FOREMAN_BODY_TIMEOUT')}.", ()),
    413: (f"The body is too large: {setting('FOREMAN_MAX_BODY')}.", ()),
    414: ("The URL is too long.", ()),
    417: ("The `Expect` is not `100-continue`; without a body.", ()),
    429: ("The token is not known, and too many unknown tokens came from this address.", ("Retry-After",)),
    431: ("The headers are too large.", ()),
    500: ("Internal error; the log of foreman has the details.", ()),
    503: (
        f"foreman is stopping, or has reached a limit, such as {setting('FOREMAN_MAX_CONNECTIONS')}.",
        ("Retry-After",),
    ),
}
_ERROR_TYPES = {"Problem": "application/problem+json", "Error": "application/json"}


def answer(
    description: str, schema: Schema | None = None, *headers: str, kind: str = "application/json", example: Any = None
) -> Schema:
    """A response; without ``schema`` it has no body.

    :param headers: names of ``HEADERS``; :param kind: the media type of the body.
    """
    response: Schema = {"description": description}
    if headers:
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    if schema is not None:
        content: Schema = {"schema": schema}
        response["content"] = {kind: content if example is None else {**content, "example": example}}
    return response


def error(shape: Shape, description: str, *headers: str) -> Schema:
    """A response that reports an error."""
    return answer(description, ref(shape), *headers, kind=_ERROR_TYPES[shape])


def common(shape: Shape, *, is_open: bool = False) -> dict[str, Schema]:
    """The errors that any request may get; ``is_open``: the route requires no token."""
    return {
        str(status): {"$ref": f"#/components/responses/{shape}{status}"}
        for status in _COMMON
        if not (is_open and status in {401, 429})
    }


def responses() -> dict[str, Schema]:
    """The shared responses: ``components/responses`` of the document."""
    return {
        f"{shape}{status}": answer(text) if status == 417 else error(shape, text, *headers)
        for shape in ("Problem", "Error")
        for status, (text, headers) in _COMMON.items()
    }


def title(status: int) -> str:
    """The reason phrase of a status."""
    return PHRASES[status].decode("ascii")
