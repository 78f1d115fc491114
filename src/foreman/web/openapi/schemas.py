"""What is sent and shown, as JSON Schema: named by what it is, its members in the order in which they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from foreman.errors import FailureReason
from foreman.jobs.artifacts import OWN_ARTIFACTS
from foreman.jobs.job import PRIORITIES, STATES, ErrorClass, JobLane
from foreman.protocol.endpoints import OF_JOBS, SUBMITTABLE
from foreman.store.errors import Condition
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

#: Crockford's alphabet, in either case.
ID_PATTERN = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"

ID: Schema = {"type": "string", "pattern": ID_PATTERN, "description": "A ULID, in either case."}
TIMESTAMP: Schema = {"type": "string", "format": "date-time"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string"}
SECONDS: Schema = {"type": "number", "minimum": 0}


def ref(name: str) -> Schema:
    """A schema of the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(schema: Schema, description: str) -> Schema:
    """``schema`` with a few words."""
    return {**schema, "description": description}


def or_null(schema: Schema, description: str = "") -> Schema:
    """``schema``, or nothing."""
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

    :param optional: those that may be missing; :param closed: nothing else may be in it.
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
    """An array of these."""
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
    "A job to be handed over. What is none of these members is refused, and `null` is as good as nothing.",
    {
        "endpoint": {"type": "string", "enum": list(SUBMITTABLE), "description": "Where the payload goes."},
        "payload": {
            "type": "object",
            "required": ["model"],
            "properties": {"model": described({"type": "string", "minLength": 1}, "One that Ollama has.")},
            "additionalProperties": True,
            "description": "The object that one would send there; its bytes go to Ollama as they are.",
        },
        "priority": or_null(_PRIORITY, "0, most urgent, to 9; each step is worth a minute of waiting. 5 without it."),
        "run_at": or_null(TIMESTAMP, "Not before this moment."),
        "deadline": or_null(TIMESTAMP, "Of no use after this moment: then it is discarded. Later than `run_at`."),
        "max_attempts": or_null(
            _ATTEMPTS, "How often it may be tried; what is not its fault does not count. 5 without it."
        ),
        "metadata": or_null(_METADATA, "Texts by name, to find it by."),
        "idempotency_key": or_null(_KEY, "What tells a repetition from another job; as the header."),
    },
    optional=("priority", "run_at", "deadline", "max_attempts", "metadata", "idempotency_key"),
    example=examples.NEW_JOB,
    closed=True,
)
_JOB = object_of(
    "A job.",
    {
        "id": ID,
        "state": {"type": "string", "enum": list(STATES)},
        "endpoint": {"type": "string", "enum": list(OF_JOBS)},
        "model": described(TEXT, "As it was asked for."),
        "owner": described(TEXT, "Whose token handed it over; without one the address."),
        "priority": _PRIORITY,
        "metadata": _METADATA,
        "run_at": described(TIMESTAMP, "When it could run first, or tries again."),
        "deadline": or_null(TIMESTAMP),
        "attempt": described(COUNT, "Tries that count; the `attempt` of events is another number."),
        "max_attempts": _ATTEMPTS,
        "idempotency_key": or_null(_KEY),
        "created_at": TIMESTAMP,
        "started_at": or_null(TIMESTAMP, "When its last try began."),
        "finished_at": or_null(TIMESTAMP),
        "position": or_null(
            {"type": "integer", "minimum": 1}, "Its place among the queued ones, as far as it is known."
        ),
        "error": or_null(ref("JobError"), "What went wrong in its last try, or keeps it waiting."),
        "usage": or_null(ref("Usage")),
        "artifacts": array_of(ref("ArtifactOfJob")),
    },
    example=examples.JOB,
)
_QUEUE_ENTRY = {
    "id": described(TEXT, "Of the request, as in the log."),
    "caller": TEXT,
    "model": or_null(TEXT),
    "route": TEXT,
    "since": TIMESTAMP,
    "seconds": {"type": "number"},
}

SCHEMAS: dict[str, Schema] = {
    "NewJob": _NEW_JOB,
    "NewJobs": array_of(ref("NewJob"), "Taken whole or not at all.", minItems=1, maxItems=MAX_JOBS),
    "Job": _JOB,
    "JobError": object_of(
        "What went wrong with a job.",
        {
            "class": {"type": "string", "enum": list(get_args(ErrorClass))},
            "message": TEXT,
            "attempt": described(COUNT, "The job's `attempt` then."),
        },
    ),
    "Usage": object_of(
        "What Ollama said that the answer cost; null where it did not say.",
        {
            "prompt_tokens": described(or_null(COUNT), "Of the whole prompt, also for `/v1/messages`."),
            "completion_tokens": or_null(COUNT),
            "cached_tokens": described(
                or_null(COUNT), "How many of `prompt_tokens` came from the cache (from Ollama 0.34 on)."
            ),
            "load_ms": or_null(COUNT),
            "total_ms": or_null(COUNT),
        },
    ),
    "ArtifactOfJob": object_of(
        f"Something that belongs to a job; foreman's own are {', '.join(sorted(OWN_ARTIFACTS))}.",
        {"name": TEXT, "type": described(TEXT, "Its `Content-Type`."), "bytes": COUNT},
    ),
    "Artifact": object_of(
        "All that is known of an artifact.",
        {
            "name": TEXT,
            "type": TEXT,
            "bytes": COUNT,
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "created_at": TIMESTAMP,
        },
        example=examples.ARTIFACT,
    ),
    "Artifacts": object_of("What belongs to a job.", {"artifacts": array_of(ref("Artifact"))}),
    "JobsTaken": object_of("The jobs of an array, in its order.", {"jobs": array_of(ref("Job"))}),
    "Page": object_of(
        "A page of the list, newest first. A job that cannot be shown has only `id`, `state` and `unreadable`.",
        {"jobs": array_of(ref("Job")), "next": or_null(TEXT, "The path of the next page.")},
    ),
    "Pruned": object_of("How many jobs are gone.", {"deleted": COUNT}, example={"deleted": 17}),
    "Event": object_of(
        "Something that happened to a job: one line, or one event of SSE with `id` as its id.",
        {
            "id": COUNT,
            "at": TIMESTAMP,
            "type": {"type": "string", "enum": [*STATES, "released", "rescued"]},
            "attempt": described(
                COUNT, "The number of the try, which grows with each, also with one that does not count."
            ),
            "error": or_null(TEXT),
        },
        example=examples.EVENT,
    ),
    "Problem": object_of(
        "What went wrong (RFC 9457).",
        {
            "type": {"type": "string", "const": "about:blank"},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "errors": array_of(ref("Flaw"), "All that is wrong with the body.", minItems=1),
        },
        optional=("errors",),
        example=examples.PROBLEM,
    ),
    "Flaw": object_of("One thing that is wrong.", {"pointer": described(TEXT, "Where (RFC 6901)."), "detail": TEXT}),
    "Error": object_of(
        "What went wrong, in Ollama's shape.", {"error": TEXT}, example={"error": examples.NO_SUCH_REQUEST}
    ),
    "Health": object_of(
        "Whether foreman and Ollama are well.",
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
        "Who has a turn and who waits, in order.",
        {
            "turns": COUNT,
            "running": array_of(
                object_of(
                    "It has a turn.",
                    {
                        **_QUEUE_ENTRY,
                        "state": {"type": "string", "enum": ["loading", "reading", "answering"]},
                        "overtime": {"type": "boolean", "description": "It has taken longer than usual."},
                        "job": or_null(TEXT, "The job that has this turn."),
                        "usual_load": or_null(SECONDS, "How long this model usually loads."),
                    },
                    optional=("usual_load",),
                )
            ),
            "waiting": array_of(
                object_of(
                    "It waits.",
                    {
                        **_QUEUE_ENTRY,
                        "position": {"type": "integer", "minimum": 1},
                        "estimate": or_null(ref("Estimate")),
                    },
                )
            ),
            "embedding": object_of("Embeddings at Ollama.", {"running": COUNT, "cap": COUNT}),
            "jobs": ref("QueueOfJobs"),
        },
        optional=("jobs",),
        example=examples.QUEUE,
    ),
    "Estimate": object_of("Seconds until its turn.", {"low": SECONDS, "high": SECONDS}),
    "QueueOfJobs": object_of(
        "How many jobs there are, and how their store is.",
        {
            "running": array_of(
                object_of("It runs.", {"id": ID, "model": TEXT, "endpoint": TEXT, "owner": TEXT, "seconds": SECONDS})
            ),
            "queued": COUNT,
            "scheduled": COUNT,
            "store": {"type": "string", "enum": list(get_args(Condition))},
        },
    ),
    "Lane": {"type": "string", "enum": list(get_args(JobLane)), "description": "`gate` for chats, or `embedding`."},
}
