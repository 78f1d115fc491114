"""The whole document, and the bytes of it that are served."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec

from foreman import DISTRIBUTION
from foreman.web.openapi import jobs, status_routes
from foreman.web.openapi.responses import HEADERS, responses
from foreman.web.openapi.schemas import SCHEMAS, Schema

_DESCRIPTION = """\
The routes that foreman adds to those of the Ollama server behind it, which are Ollama's own and pass through it.

Times are RFC 3339, in UTC, with milliseconds. What is wrong is told as a problem (RFC 9457); at `/`, `/healthz` and \
`/queue` in Ollama's shape, since its clients ask there.

Where foreman requires a token, it is shown in one of the ways below, or stands in the path, in front: `/k/TOKEN/jobs`. \
Where none is required everybody may do everything. A path that is not clean (`//`, `..`) is redirected to the clean one, \
and a method that a path of jobs does not have is `405` with `Allow`.
"""


def document() -> dict[str, Any]:
    """OpenAPI 3.1 of foreman's own routes."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "foreman",
            "version": version(DISTRIBUTION),
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "foreman", "description": "How foreman is, and who waits."},
            {"name": "jobs", "description": "Requests that nobody waits for on a socket."},
        ],
        "security": [{"bearer": []}, {"key": []}, {"basic": []}],
        "paths": {path: _with_head(item) for path, item in (status_routes.PATHS | jobs.PATHS).items()},
        "components": {
            "schemas": SCHEMAS,
            "headers": HEADERS,
            "responses": responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer TOKEN`"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "`x-api-key: TOKEN`"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The token is the password, with any name.",
                },
            },
        },
    }


def _with_head(item: Schema) -> Schema:
    """What can be read can also be asked about: the same without its body."""
    item = {name: _with_sorted_responses(value) if "responses" in value else value for name, value in item.items()}
    if "get" not in item:
        return item
    head = {name: value for name, value in item["get"].items() if name != "description"}
    head |= {
        "operationId": f"{head['operationId']}Head",
        "summary": "The head of what GET answers.",
        "responses": {status: _without_body(answer) for status, answer in head["responses"].items()},
    }
    return {**item, "head": head}


def _with_sorted_responses(operation: Schema) -> Schema:
    return {**operation, "responses": dict(sorted(operation["responses"].items()))}


def _without_body(answer: Schema) -> Schema:
    return {name: value for name, value in answer.items() if name not in {"content", "links"}}


#: As it is served.
BYTES = msgspec.json.encode(document())
