"""What requests carry beside a body: in their paths, queries and headers."""

from __future__ import annotations

from typing import Any

from foreman.jobs.job import ENDED, STATES
from foreman.web.jobs.artifacts import MAX_NAME
from foreman.web.jobs.query_params import DEFAULT_LIMIT, MAX_LIMIT
from foreman.web.jobs.request_headers import MAX_KEY
from foreman.web.jobs.routes import MAX_WAIT
from foreman.web.openapi import examples
from foreman.web.openapi.schemas import ID, ID_PATTERN, TEXT, TIMESTAMP, Schema, ref


def parameter(place: str, name: str, description: str, schema: Schema, **more: Any) -> Schema:
    """One parameter."""
    needed = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": description, **needed, "schema": schema, **more}


def query(name: str, description: str, schema: Schema, **more: Any) -> Schema:
    """One of a query."""
    return parameter("query", name, description, schema, **more)


def header(name: str, description: str, schema: Schema) -> Schema:
    """A header."""
    return parameter("header", name, description, schema)


def _list_of(words: tuple[str, ...]) -> Schema:
    """Several of these, with commas."""
    return {"type": "array", "items": {"type": "string", "enum": list(words)}, "minItems": 1}


_COMMA_SEPARATED = {"style": "form", "explode": False}

JOB_ID = parameter("path", "id", "The job's id.", ID, example=examples.ID)
ARTIFACT_NAME = parameter(
    "path",
    "name",
    "The artifact's name.",
    {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": r"^[^/\x00-\x1f\x7f]+$"},
    example="response",
)

#: Those of the list, in the order of docs/jobs.md. The last of them stands for as many as there are names.
LIST: list[Schema] = [
    query(
        "state",
        "One or several, with commas; `active` is scheduled, queued and running, `ended` the rest.",
        _list_of((*STATES, "active", "ended")),
        **_COMMA_SEPARATED,
    ),
    query("model", "As the job has it.", TEXT),
    query("endpoint", "As the job has it.", TEXT),
    query("lane", "Which way it goes.", ref("Lane")),
    query("owner", "Whose; those of others are for admins.", TEXT),
    query("created_after", "Handed over then, or later.", TIMESTAMP),
    query("created_before", "Handed over before.", TIMESTAMP),
    query("limit", f"How many; {DEFAULT_LIMIT} without it.", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
    query("before", "The id of a job: those older than it.", {"type": "string", "pattern": ID_PATTERN}),
    query(
        "metadata",
        "`metadata.NAME=TEXT`: the text under this name; as many as are wanted, each its own parameter.",
        {"type": "object", "maxProperties": 0, "additionalProperties": TEXT},
        style="form",
        explode=True,
    ),
]
PRUNE: list[Schema] = [
    query(
        "state",
        "In which they ended; one or several, with commas; `ended` is all of them.",
        _list_of((*ENDED, "ended")),
        required=True,
        **_COMMA_SEPARATED,
    ),
    query("ended_before", "Only those that ended before this moment.", TIMESTAMP),
]
WAIT = query(
    "wait",
    f"Answer when it has ended, or after so many seconds; more than {MAX_WAIT:g} are {MAX_WAIT:g}.",
    {"type": "number", "minimum": 0},
)
FOLLOW = query("follow", "`0`: tell what has happened so far, and end.", {"type": "string", "enum": ["0", "1"]})
_EVENT_ID: Schema = {"type": "string", "pattern": "^[0-9]{1,18}$"}
_LINE_ID: Schema = {"type": "string", "pattern": "^[0-9]{1,9}-([0-9]{1,18}|end)$"}
AFTER_EVENT = [
    query("after", "The id of an event: go on behind it.", _EVENT_ID),
    header("Last-Event-ID", "The same, as a browser says it; it wins.", _EVENT_ID),
]
AFTER_LINE = [
    query("after", "`TRY-LINE`: go on behind this line of this try; `TRY-end`: behind all of it.", _LINE_ID),
    header("Last-Event-ID", "The same, as a browser says it; it wins.", _LINE_ID),
]
PREFER = header(
    "Prefer",
    "`respond-async` says nothing new here. Of an ordinary request to one of Ollama's routes that chat or embed it "
    "makes a job.",
    TEXT,
)
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "What tells a repetition from another job: a request with the key and all else of an earlier one is answered with "
    "the job of the first time. For one job; in an array each has its own.",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
)
RANGE = header("Range", "One part, such as `bytes=0-99`.", TEXT)
IF_RANGE = header("If-Range", "The part only of the artifact with this `ETag`, else all of it.", TEXT)
IF_NONE_MATCH = header("If-None-Match", "Only where it has none of these `ETag`s.", TEXT)
