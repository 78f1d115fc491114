"""Builders of JSON Schemas, and the schemas of jobs and errors; members are in the order in which they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from foreman.jobs.artifacts import OWN_ARTIFACTS
from foreman.jobs.job import PRIORITIES, STATES, ErrorClass, JobLane
from foreman.protocol.endpoints import OF_JOBS, SUBMITTABLE
from foreman.web.jobs.fields import (
    MAX_ATTEMPTS,
    MAX_JOBS,
    MAX_METADATA,
    MAX_METADATA_NAME,
    MAX_METADATA_TEXT,
)
from foreman.web.jobs.request_headers import MAX_KEY
from foreman.web.openapi import examples

Schema = dict[str, Any]

#: A ULID: Crockford's base 32, in upper or lower case.
ID_PATTERN = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"

ID: Schema = {"type": "string", "pattern": ID_PATTERN, "description": "A ULID, in upper or lower case."}
TIMESTAMP: Schema = {"type": "string", "format": "date-time"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}
SECONDS: Schema = {"type": "number", "minimum": 0}


def ref(name: str) -> Schema:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(schema: Schema, description: str) -> Schema:
    """``schema`` with a description."""
    return {**schema, "description": description}


def or_null(schema: Schema, description: str = "") -> Schema:
    """``schema``, or null."""
    either = {"anyOf": [schema, {"type": "null"}]} if "$ref" in schema else {**schema, "type": [schema["type"], "null"]}
    return described(either, description) if description else either


def object_of(
    description: str,
    members: Mapping[str, Schema],
    *,
    optional: Sequence[str] = (),
    example: Any = None,
    closed: bool = False,
) -> Schema:
    """An object with these members.

    :param optional: members that may be missing; :param closed: whether other members are forbidden.
    """
    found: Schema = {
        "type": "object",
        "description": description,
        "required": [name for name in members if name not in optional],
        "properties": dict(members),
    }
    if closed:
        found["additionalProperties"] = False
    return found if example is None else {**found, "examples": [example]}


def array_of(schema: Schema, description: str = "", **bounds: int) -> Schema:
    """An array of ``schema``."""
    array: Schema = {"type": "array", "items": schema, **bounds}
    return described(array, description) if description else array


_METADATA: Schema = {
    "type": "object",
    "maxProperties": MAX_METADATA,
    "propertyNames": {"minLength": 1, "maxLength": MAX_METADATA_NAME},
    "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_TEXT},
}
_PRIORITY: Schema = {"type": "integer", "minimum": PRIORITIES[0], "maximum": PRIORITIES[-1]}
_ATTEMPTS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS}
_KEY: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_KEY}

_NEW_JOB = object_of(
    "A job to submit. Other members are refused; `null` means the same as a missing member.",
    {
        "endpoint": {
            "type": "string",
            "enum": list(SUBMITTABLE),
            "description": "The path of Ollama that the payload is for.",
        },
        "payload": {
            "type": "object",
            "required": ["model"],
            "properties": {"model": described({"type": "string", "minLength": 1}, "A model that Ollama has.")},
            "additionalProperties": True,
            "description": "The request body for this endpoint. Its bytes go to Ollama unchanged.",
        },
        "priority": or_null(
            _PRIORITY, "From 0, most urgent, to 9; one step counts as much as a minute of waiting. The default is 5."
        ),
        "run_at": or_null(TIMESTAMP, "The job does not run before this time."),
        "deadline": or_null(TIMESTAMP, "The job is discarded after this time. Must be later than `run_at`."),
        "max_attempts": or_null(
            _ATTEMPTS,
            "How many attempts may fail; outages of Ollama and restarts of foreman do not count. The default is 5.",
        ),
        "metadata": or_null(_METADATA, "Texts by name, by which the job can be found."),
        "idempotency_key": or_null(_KEY, "As the header `Idempotency-Key`."),
    },
    optional=("priority", "run_at", "deadline", "max_attempts", "metadata", "idempotency_key"),
    example=examples.NEW_JOB,
    closed=True,
)
_JOB = object_of(
    "A job.",
    {
        "id": ID,
        "state": described({"type": "string", "enum": list(STATES)}, "The state; `docs/jobs.md` explains them."),
        "endpoint": {"type": "string", "enum": list(OF_JOBS)},
        "model": described(TEXT, "The name of the model, as it was submitted."),
        "owner": described(TEXT, "The name of the token that submitted the job; without a token the address."),
        "priority": described(_PRIORITY, "From 0, most urgent, to 9."),
        "metadata": _METADATA,
        "run_at": described(TIMESTAMP, "When the job may run first, or run again."),
        "deadline": or_null(TIMESTAMP, "When the job is discarded if it has not ended."),
        "attempt": described(
            COUNT,
            "How many attempts count towards `max_attempts`; the `attempt` of events counts all attempts.",
        ),
        "max_attempts": described(_ATTEMPTS, "How many attempts may fail."),
        "idempotency_key": or_null(_KEY),
        "created_at": described(TIMESTAMP, "When the job was submitted."),
        "started_at": or_null(TIMESTAMP, "When the last attempt began."),
        "finished_at": or_null(TIMESTAMP, "When the job ended."),
        "position": or_null(
            {"type": "integer", "minimum": 1},
            "The position among the queued jobs, 1 is next; null where it is not known.",
        ),
        "error": or_null(ref("JobError"), "Why the job waits now, or else why its last attempt failed."),
        "usage": or_null(ref("Usage")),
        "artifacts": array_of(ref("ArtifactOfJob")),
    },
    example=examples.JOB,
)
SCHEMAS: dict[str, Schema] = {
    "NewJob": _NEW_JOB,
    "NewJobs": array_of(
        ref("NewJob"), "Jobs that are accepted as a whole or not at all.", minItems=1, maxItems=MAX_JOBS
    ),
    "Job": _JOB,
    "JobError": object_of(
        "The error of a job.",
        {
            "class": {"type": "string", "enum": list(get_args(ErrorClass))},
            "message": TEXT,
            "attempt": described(COUNT, "The `attempt` of the job at that time."),
        },
    ),
    "Usage": object_of(
        "What the answer cost, as Ollama reports it; null where it does not.",
        {
            "prompt_tokens": described(or_null(COUNT), "The tokens of the whole prompt, also for `/v1/messages`."),
            "completion_tokens": described(or_null(COUNT), "The tokens of the answer."),
            "cached_tokens": described(
                or_null(COUNT), "How many of `prompt_tokens` came from the cache (Ollama 0.34 and later)."
            ),
            "load_ms": described(or_null(COUNT), "How long the model took to load, in milliseconds."),
            "total_ms": described(or_null(COUNT), "How long Ollama worked in all, in milliseconds."),
        },
    ),
    "ArtifactOfJob": object_of(
        f"An artifact of a job. Those that foreman writes itself are {', '.join(sorted(OWN_ARTIFACTS))}.",
        {"name": TEXT, "type": described(TEXT, "The `Content-Type`."), "bytes": COUNT},
    ),
    "Artifact": object_of(
        "An artifact of a job, without its bytes.",
        {
            "name": TEXT,
            "type": TEXT,
            "bytes": COUNT,
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "created_at": TIMESTAMP,
        },
        example=examples.ARTIFACT,
    ),
    "Artifacts": object_of("The artifacts of a job.", {"artifacts": array_of(ref("Artifact"))}),
    "JobsTaken": object_of("The jobs of a submitted array, in its order.", {"jobs": array_of(ref("Job"))}),
    "Page": object_of(
        "A page of the list, newest first. A job whose record is damaged has only `id`, `state` and `unreadable`.",
        {"jobs": array_of(ref("Job")), "next": or_null(TEXT, "The path of the next page.")},
    ),
    "Pruned": object_of("How many jobs were deleted.", {"deleted": COUNT}, example={"deleted": 17}),
    "Event": object_of(
        "An event of a job: a line of NDJSON, or an SSE event with the same `id`.",
        {
            "id": COUNT,
            "at": TIMESTAMP,
            "type": {"type": "string", "enum": [*STATES, "released", "rescued"]},
            "attempt": described(
                COUNT, "The number of the attempt; attempts that do not count towards `max_attempts` are numbered, too."
            ),
            "error": or_null(TEXT),
        },
        example=examples.EVENT,
    ),
    "Problem": object_of(
        "An error (RFC 9457).",
        {
            "type": {"type": "string", "const": "about:blank"},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "errors": array_of(ref("Flaw"), "The errors of the body.", minItems=1),
        },
        optional=("errors",),
        example=examples.PROBLEM,
    ),
    "Flaw": object_of(
        "One error of a body.",
        {"pointer": described(TEXT, "The JSON pointer of the value (RFC 6901)."), "detail": TEXT},
    ),
    "Error": object_of("An error in Ollama's shape.", {"error": TEXT}, example={"error": examples.NO_SUCH_REQUEST}),
    "Lane": {"type": "string", "enum": list(get_args(JobLane)), "description": "`gate` for chats, or `embedding`."},
}
