"""The routes about foreman itself: whether it is well, who waits, and this document."""

from __future__ import annotations

from foreman.web.openapi.parameters import parameter
from foreman.web.openapi.responses import answer, common, error
from foreman.web.openapi.schemas import ID, Schema, ref

_REQUEST_ID = parameter("path", "id", "The request's id, as `/queue` and the log have it.", ID)

PATHS: dict[str, Schema] = {
    "/": {
        "get": {
            "operationId": "root",
            "summary": "What Ollama's own clients look for.",
            "tags": ["foreman"],
            "security": [],
            "responses": {
                "200": answer(
                    "The words of Ollama.",
                    {"type": "string", "const": "Ollama is running"},
                    kind="text/plain",
                    example="Ollama is running",
                ),
                **common("Error", is_open=True),
            },
        }
    },
    "/healthz": {
        "get": {
            "operationId": "health",
            "summary": "Whether foreman and Ollama are well.",
            "tags": ["foreman"],
            "security": [],
            "responses": {
                **common("Error", is_open=True),
                "200": answer("foreman works, whatever is to be said of Ollama.", ref("Health")),
                "503": {
                    "description": "foreman is stopping; or it has too much to hold.",
                    "content": {"application/json": {"schema": {"anyOf": [ref("Health"), ref("Error")]}}},
                },
            },
        }
    },
    "/queue": {
        "get": {
            "operationId": "queue",
            "summary": "Who has a turn, and who waits, in order; never what they ask.",
            "tags": ["foreman"],
            "responses": {"200": answer("The line.", ref("Queue")), **common("Error")},
        }
    },
    "/queue/{id}": {
        "parameters": [_REQUEST_ID],
        "delete": {
            "operationId": "cancelRequest",
            "summary": "Cancel a request that waits or runs: one's own, or any as an admin.",
            "tags": ["foreman"],
            "responses": {
                **common("Error"),
                "204": answer("It is cancelled."),
                "404": error("Error", "There is no such request of yours."),
            },
        },
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document.",
            "tags": ["foreman"],
            "responses": {
                "200": answer("OpenAPI 3.1.", {"type": "object", "required": ["openapi", "info", "paths"]}),
                **common("Problem"),
            },
        }
    },
}
