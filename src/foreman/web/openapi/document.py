"""The OpenAPI document of foreman's own routes, and the bytes of it that are served."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import msgspec

from foreman import DISTRIBUTION
from foreman.web.openapi import jobs, status
from foreman.web.openapi.responses import HEADERS, responses
from foreman.web.openapi.schemas import SCHEMAS, Schema

_DESCRIPTION = """\
The routes that foreman adds to those of the Ollama server behind it. The routes of Ollama pass through foreman unchanged \
and are not described here.

Times are RFC 3339, in UTC, with milliseconds. Errors are problem details (RFC 9457); on `/`, `/healthz` and `/queue` they \
have Ollama's shape, because its clients use these paths.

Where foreman requires a token, send it in one of the ways below, or in front of the path: `/k/TOKEN/jobs`. \
Where no token is required, every caller may do everything. A path that is not normalized (`//`, `..`) is redirected to the \
normalized one, and a method that a path of `/jobs` does not have is answered `405` with `Allow`.
"""


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of foreman's own routes."""
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
            {"name": "foreman", "description": "The state of foreman, and the queue."},
            {"name": "jobs", "description": "Requests that are stored and run without an open connection."},
        ],
        "security": [{"bearer": []}, {"key": []}, {"basic": []}],
        "paths": {path: _with_head(item) for path, item in (status.PATHS | jobs.PATHS).items()},
        "components": {
            "schemas": SCHEMAS | status.SCHEMAS,
            "headers": HEADERS,
            "responses": responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer TOKEN`"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "`x-api-key: TOKEN`"},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "HTTP Basic: the token is the password; the user name is ignored.",
                },
            },
        },
    }


def _with_head(item: Schema) -> Schema:
    """The path item with HEAD for its GET: the same answers without their bodies."""
    item = {name: _with_sorted_responses(value) if "responses" in value else value for name, value in item.items()}
    if "get" not in item:
        return item
    head = {name: value for name, value in item["get"].items() if name != "description"}
    head |= {
        "operationId": f"{head['operationId']}Head",
        "summary": "The headers of the answer to GET, without its body.",
        "responses": {status: _without_body(answer) for status, answer in head["responses"].items()},
    }
    return {**item, "head": head}


def _with_sorted_responses(operation: Schema) -> Schema:
    return {**operation, "responses": dict(sorted(operation["responses"].items()))}


def _without_body(answer: Schema) -> Schema:
    return {name: value for name, value in answer.items() if name not in {"content", "links"}}


#: The document as it is served.
BYTES = msgspec.json.encode(document())
