"""The paths and schemas of the document about foreman itself: health, the queue, and the document."""

from __future__ import annotations

from typing import get_args

from foreman.errors import FailureReason
from foreman.store.errors import Condition
from foreman.web.openapi import examples
from foreman.web.openapi.parameters import parameter
from foreman.web.openapi.responses import answer, common, error
from foreman.web.openapi.schemas import (
    COUNT,
    ID,
    SECONDS,
    TEXT,
    TIMESTAMP,
    Schema,
    array_of,
    described,
    object_of,
    or_null,
    ref,
)

_REQUEST_ID = parameter("path", "id", "The id of the request, as in `/queue` and in the log.", ID)

PATHS: dict[str, Schema] = {
    "/": {
        "get": {
            "operationId": "root",
            "summary": "Answer like Ollama, for clients that probe this path.",
            "tags": ["foreman"],
            "security": [],
            "responses": {
                "200": answer(
                    "The text that Ollama answers.",
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
            "summary": "The health of foreman and Ollama.",
            "tags": ["foreman"],
            "security": [],
            "responses": {
                **common("Error", is_open=True),
                "200": answer("foreman works, whether or not Ollama does.", ref("Health")),
                "503": {
                    "description": "foreman is stopping, or it has reached a limit.",
                    "content": {"application/json": {"schema": {"anyOf": [ref("Health"), ref("Error")]}}},
                },
            },
        }
    },
    "/queue": {
        "get": {
            "operationId": "queue",
            "summary": "The running requests and the queue, in its order; never the content of a request.",
            "tags": ["foreman"],
            "responses": {"200": answer("The queue.", ref("Queue")), **common("Error")},
        }
    },
    "/queue/{id}": {
        "parameters": [_REQUEST_ID],
        "delete": {
            "operationId": "cancelRequest",
            "summary": "Cancel a queued or running request: your own, or any as an admin.",
            "tags": ["foreman"],
            "responses": {
                **common("Error"),
                "204": answer("The request was cancelled."),
                "404": error("Error", "You have no queued or running request with this id."),
            },
        },
    },
    "/openapi.json": {
        "get": {
            "operationId": "openapi",
            "summary": "This document.",
            "tags": ["foreman"],
            "responses": {
                "200": answer(
                    "The document, OpenAPI 3.1.", {"type": "object", "required": ["openapi", "info", "paths"]}
                ),
                **common("Problem"),
            },
        }
    },
}

_QUEUE_ENTRY = {
    "id": described(TEXT, "The id of the request, as in the log."),
    "caller": described(TEXT, "The name of the token of the caller; without a token the address."),
    "model": or_null(TEXT, "The model, as it was requested."),
    "route": described(TEXT, "The path of the request."),
    "since": described(TIMESTAMP, "When the request began to wait, or to run."),
    "seconds": described({"type": "number"}, "How long ago that is."),
}

SCHEMAS: dict[str, Schema] = {
    "Health": object_of(
        "The health of foreman and Ollama.",
        {
            "status": {"type": "string", "enum": ["ok", "draining"]},
            "degraded": {"type": "boolean"},
            "reason": {
                "type": "string",
                "enum": [
                    *get_args(FailureReason),
                    "slow",
                    "jobs_held",
                    *(f"store_{condition}" for condition in get_args(Condition) if condition not in {"ok", "off"}),
                ],
            },
            "since": TIMESTAMP,
        },
        optional=("reason", "since"),
        example={"status": "ok", "degraded": False},
    ),
    "Queue": object_of(
        "The running requests and the queue, in its order.",
        {
            "turns": described(COUNT, "How many requests may run at once (`FOREMAN_TURNS`)."),
            "running": array_of(
                object_of(
                    "A request that has a turn.",
                    {
                        **_QUEUE_ENTRY,
                        "state": {
                            "type": "string",
                            "enum": ["loading", "reading", "answering"],
                            "description": "Loading the model, reading the prompt, or answering.",
                        },
                        "overtime": {
                            "type": "boolean",
                            "description": "Whether the request has taken longer than usual.",
                        },
                        "job": or_null(TEXT, "The id of the job that has this turn; null for a request of a client."),
                        "usual_load": or_null(
                            SECONDS, "How long this model usually takes to load, in seconds; only while it loads."
                        ),
                    },
                    optional=("usual_load",),
                )
            ),
            "waiting": array_of(
                object_of(
                    "A request that waits for its turn.",
                    {
                        **_QUEUE_ENTRY,
                        "position": {"type": "integer", "minimum": 1, "description": "1 is next."},
                        "estimate": or_null(
                            ref("Estimate"), "When its turn is likely to come; null where that is not known."
                        ),
                    },
                )
            ),
            "embedding": object_of(
                "The embeddings that run at Ollama.",
                {"running": COUNT, "cap": described(COUNT, "How many may run at once (`FOREMAN_EMBED_CAP`).")},
            ),
            "jobs": ref("QueueOfJobs"),
        },
        optional=("jobs",),
        example=examples.QUEUE,
    ),
    "Estimate": object_of(
        "The estimated time until the turn of the request, in seconds: probably between `low` and `high`.",
        {"low": SECONDS, "high": SECONDS},
    ),
    "QueueOfJobs": object_of(
        "The running jobs, the numbers of waiting ones, and the condition of their store.",
        {
            "running": array_of(
                object_of(
                    "A running job.", {"id": ID, "model": TEXT, "endpoint": TEXT, "owner": TEXT, "seconds": SECONDS}
                )
            ),
            "queued": described(COUNT, "How many jobs are queued."),
            "scheduled": described(COUNT, "How many jobs are to run later."),
            "store": described({"type": "string", "enum": list(get_args(Condition))}, "The condition of the store."),
        },
    ),
}
