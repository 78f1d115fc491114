"""Parameters of the document: in paths, queries and headers."""

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
    """A parameter; ``place`` is ``path``, ``query`` or ``header``."""
    needed = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": description, **needed, "schema": schema, **more}


def query(name: str, description: str, schema: Schema, **more: Any) -> Schema:
    """A query parameter."""
    return parameter("query", name, description, schema, **more)


def header(name: str, description: str, schema: Schema) -> Schema:
    """A request header."""
    return parameter("header", name, description, schema)


def _list_of(words: tuple[str, ...]) -> Schema:
    """One or several of ``words``."""
    return {"type": "array", "items": {"type": "string", "enum": list(words)}, "minItems": 1}


_COMMA_SEPARATED = {"style": "form", "explode": False}

JOB_ID = parameter("path", "id", "The id of the job.", ID, example=examples.ID)
ARTIFACT_NAME = parameter(
    "path",
    "name",
    "The name of the artifact.",
    {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": r"^[^/\x00-\x1f\x7f]+$"},
    example="response",
)

#: The parameters of the list, in the order of docs/jobs.md. The last one stands for any number of ``metadata.NAME``.
LIST: list[Schema] = [
    query(
        "state",
        "One or several states, separated by commas. `active` means scheduled, queued and running; `ended` means all others.",
        _list_of((*STATES, "active", "ended")),
        **_COMMA_SEPARATED,
    ),
    query("model", "The model, in any spelling: `m` also finds `m:latest`.", TEXT),
    query("endpoint", "The endpoint, as in the job.", TEXT),
    query("lane", "The lane of the job.", ref("Lane")),
    query("owner", "The owner of the jobs. Only admins may list the jobs of others.", TEXT),
    query("created_after", "Submitted at this time or later.", TIMESTAMP),
    query("created_before", "Submitted before this time.", TIMESTAMP),
    query(
        "limit",
        f"How many jobs a page has; the default is {DEFAULT_LIMIT}.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
    ),
    query("before", "The id of a job: only jobs older than it.", {"type": "string", "pattern": ID_PATTERN}),
    query(
        "metadata",
        "`metadata.NAME=TEXT`: jobs whose metadata has this text under this name. May be given for several names.",
        {"type": "object", "maxProperties": 0, "additionalProperties": TEXT},
        style="form",
        explode=True,
    ),
]
PRUNE: list[Schema] = [
    query(
        "state",
        "The states of the jobs to delete: one or several, separated by commas. `ended` means all of them.",
        _list_of((*ENDED, "ended")),
        required=True,
        **_COMMA_SEPARATED,
    ),
    query("ended_before", "Only jobs that ended before this time.", TIMESTAMP),
]
WAIT = query(
    "wait",
    f"Answer when the job has ended, or after this many seconds, at most {MAX_WAIT:g}.",
    {"type": "number", "minimum": 0},
)
FOLLOW = query(
    "follow",
    "`0`: send only the events so far. The default is `1`.",
    {"type": "string", "enum": ["0", "1"]},
)
_EVENT_ID: Schema = {"type": "string", "pattern": "^[0-9]{1,18}$"}
_LINE_ID: Schema = {"type": "string", "pattern": "^[0-9]{1,9}-([0-9]{1,18}|end)$"}
AFTER_EVENT = [
    query("after", "The id of an event: send only those after it.", _EVENT_ID),
    header("Last-Event-ID", "The same as `after`, sent by a browser that reconnects. It takes precedence.", _EVENT_ID),
]
AFTER_LINE = [
    query(
        "after",
        "`ATTEMPT-LINE`: send only what comes after this line of this attempt; `ATTEMPT-end`: after all of it.",
        _LINE_ID,
    ),
    header("Last-Event-ID", "The same as `after`, sent by a browser that reconnects. It takes precedence.", _LINE_ID),
]
PREFER = header(
    "Prefer",
    "`respond-async` has no effect here. It makes a job of an ordinary request to one of Ollama's routes for chats and "
    "embeddings.",
    TEXT,
)
IDEMPOTENCY_KEY = header(
    "Idempotency-Key",
    "Makes a request safe to repeat: a request with the key and the content of an earlier one is answered with the job "
    "of the earlier one. For a single job; in an array each job has its own `idempotency_key`.",
    {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
)
RANGE = header("Range", "One range, such as `bytes=0-99`.", TEXT)
IF_RANGE = header(
    "If-Range", "Send the range only if the artifact still has this `ETag`, else the whole artifact.", TEXT
)
IF_NONE_MATCH = header("If-None-Match", "Send the artifact only if it has none of these `ETag`s.", TEXT)
