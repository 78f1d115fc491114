"""What may come back: statuses with their bodies and headers, those of every route and those of some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from foreman.config.settings import SETTINGS
from foreman.web.openapi.schemas import TEXT, Schema, ref
from foreman.web.server.responses import PHRASES

Shape = Literal["Problem", "Error"]

_HELP = {setting.variable: setting.help for setting in SETTINGS}

#: Headers of answers.
HEADERS: dict[str, Schema] = {
    "Location": {"description": "Where it is. A token that was in the path stands in front.", "schema": TEXT},
    "Retry-After": {
        "description": "Seconds until trying again is worth it.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Idempotency-Replayed": {
        "description": "Nothing is new: it was handed over before.",
        "schema": {"type": "string", "const": "true"},
    },
    "Preference-Applied": {
        "description": "Of an answer elsewhere, to `Prefer: respond-async`.",
        "schema": {"type": "string", "const": "respond-async"},
    },
    "X-Foreman-Attempt": {
        "description": "Of NDJSON: the number of the try whose lines begin.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "ETag": {
        "description": "Of the whole artifact: its SHA-256.",
        "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
    },
    "Accept-Ranges": {"description": "Parts can be had.", "schema": {"type": "string", "const": "bytes"}},
    "Content-Range": {"description": "Which part it is, and of how many bytes.", "schema": TEXT},
    "Content-Disposition": {"description": "A download, by its name.", "schema": TEXT},
    "WWW-Authenticate": {"description": "How to show the token.", "schema": TEXT},
}


def setting(variable: str) -> str:
    """A setting, and what it is."""
    return f"`{variable}` ({_HELP[variable]})"


#: What may come of a request to any route, before the route is asked.
_COMMON: dict[int, tuple[str, Sequence[str]]] = {
    400: ("It cannot be read.", ()),
    401: ("A token is required, and this is none.", ("WWW-Authenticate",)),
    403: (
        f"The `Host` is none of {setting('FOREMAN_ALLOWED_HOSTS')}; or the `Origin`, then without a body.",
        (),
    ),
    408: (f"It came too slowly: {setting('FOREMAN_HEAD_TIMEOUT')}, {setting('FOREMAN_BODY_TIMEOUT')}.", ()),
    413: (f"The body is too large: {setting('FOREMAN_MAX_BODY')}.", ()),
    414: ("The address is too long.", ()),
    417: ("An `Expect` that is not `100-continue`; without a body.", ()),
    431: ("The headers are too large.", ()),
    500: ("foreman failed; its log says why.", ()),
    503: (f"foreman is stopping, or has too much to hold: {setting('FOREMAN_MAX_CONNECTIONS')}.", ("Retry-After",)),
}
_ERROR_TYPES = {"Problem": "application/problem+json", "Error": "application/json"}


def answer(
    description: str, schema: Schema | None = None, *headers: str, kind: str = "application/json", example: Any = None
) -> Schema:
    """An answer; without ``schema`` it has no body."""
    response: Schema = {"description": description}
    if headers:
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    if schema is not None:
        content: Schema = {"schema": schema}
        response["content"] = {kind: content if example is None else {**content, "example": example}}
    return response


def error(shape: Shape, description: str, *headers: str) -> Schema:
    """What went wrong."""
    return answer(description, ref(shape), *headers, kind=_ERROR_TYPES[shape])


def common(shape: Shape, *, is_open: bool = False) -> dict[str, Schema]:
    """What may come of any request; ``is_open``: it asks for no token."""
    return {
        str(status): {"$ref": f"#/components/responses/{shape}{status}"}
        for status in _COMMON
        if not (is_open and status == 401)
    }


def responses() -> dict[str, Schema]:
    """Those of the components."""
    return {
        f"{shape}{status}": answer(text) if status == 417 else error(shape, text, *headers)
        for shape in ("Problem", "Error")
        for status, (text, headers) in _COMMON.items()
    }


def title(status: int) -> str:
    """The phrase of a status."""
    return PHRASES[status].decode("ascii")
