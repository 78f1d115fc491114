"""The routes of jobs; docs/jobs.md tells how they belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreman.web.jobs.routes import CANCEL_WAIT
from foreman.web.openapi import parameters as params
from foreman.web.openapi.responses import answer, common, error, setting
from foreman.web.openapi.schemas import Schema, ref

_BYTES: Schema = {"description": "Bytes, of whatever type."}
_NOT_FOUND = error("Problem", "There is no such job of yours.")
_DISK_FULL = error("Problem", f"The disk is full: {setting('FOREMAN_DISK_RESERVE')}.")
_STORE_UNAVAILABLE = error(
    "Problem", "The store of the jobs cannot be used now, or foreman is stopping.", "Retry-After"
)
_BAD_REQUEST = error("Problem", "It cannot be read, or a parameter cannot be used, or is none of these.")
_WRONG_STATE = error("Problem", "The state of the job does not allow it.")
_DOWNLOAD_HEADERS = ("ETag", "Accept-Ranges", "Content-Disposition")


def _operation(
    name: str, summary: str, answers: dict[str, Schema], *, writes: bool = False, text: str = "", **more: Any
) -> Schema:
    """A route of one method; ``writes``: it changes the store."""
    on_disk = {"507": _DISK_FULL} if writes else {}
    responses = {**common("Problem"), "503": _STORE_UNAVAILABLE, **on_disk, **answers}
    description = {"description": text} if text else {}
    return {"operationId": name, "summary": summary, **description, "tags": ["jobs"], **more, "responses": responses}


def _body(schema: Schema, kind: str, description: str) -> Schema:
    return {"required": True, "description": description, "content": {kind: {"schema": schema}}}


def _stream_answer(description: str, line: str, *headers: str) -> Schema:
    """Lines of JSON, or events of SSE."""
    stream = answer(description, None, *headers)
    lines: Schema = {"description": line}
    return {**stream, "content": {"application/x-ndjson": {"schema": lines}, "text/event-stream": {"schema": lines}}}


def _links(*names: str) -> dict[str, Schema]:
    """What can be done next with a job; nothing of it waits."""
    quick = {"showJob": {"query.wait": "0"}, "jobEvents": {"query.follow": "0"}}
    whose = {"path.id": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": {**whose, **quick.get(name, {})}} for name in names}


_ALL_OF_A_JOB: Sequence[str] = ("showJob", "jobEvents", "listArtifacts", "cancelJob", "retryJob", "deleteJob")
_JOBS = {"oneOf": [ref("Job"), ref("JobsTaken")]}
_STREAM_ENDED = answer("As SSE, to who comes back for more than there is of a job that has ended: do not come again.")

PATHS: dict[str, Schema] = {
    "/jobs": {
        "get": _operation(
            "listJobs",
            "The jobs, newest first.",
            {
                "200": answer("A page.", ref("Page")),
                "400": _BAD_REQUEST,
                "403": error("Problem", "The jobs of others are asked for."),
            },
            parameters=params.LIST,
        ),
        "post": _operation(
            "submitJob",
            "Hand over one job, or an array of them that is taken whole or not at all.",
            {
                "200": answer("It was handed over before.", _JOBS, "Location", "Idempotency-Replayed"),
                "201": {
                    **answer("It is on the disk. `Location` is that of one job.", _JOBS, "Location"),
                    "links": _links(*_ALL_OF_A_JOB, "putArtifact"),
                },
                "400": error(
                    "Problem", "It cannot be read, or a field cannot be used; `errors` has all that is wrong."
                ),
                "404": error("Problem", "Ollama does not have the model."),
                "413": error("Problem", f"The payload is too large: {setting('FOREMAN_MAX_PAYLOAD')}."),
                "415": error("Problem", "The body is compressed."),
                "422": error("Problem", "The idempotency key was used for another request."),
                "429": error("Problem", f"Too many wait: {setting('FOREMAN_MAX_JOBS')}.", "Retry-After"),
            },
            writes=True,
            text=(
                "An ordinary request to one of Ollama's routes that chat or embed becomes a job with the header `Prefer: "
                "respond-async`: it is answered `202` with the job, its `Location` and `Preference-Applied: respond-async`, "
                "`200` where its `Idempotency-Key` has its job already, and its errors are in the shape of that route."
            ),
            parameters=[params.IDEMPOTENCY_KEY, params.PREFER],
            requestBody=_body(
                {"oneOf": [ref("NewJob"), ref("NewJobs")]},
                "application/json",
                "JSON, whatever its `Content-Type` says.",
            ),
        ),
        "delete": _operation(
            "pruneJobs",
            "Delete jobs that have ended, with all that belongs to them: one's own, or everybody's as an admin.",
            {"200": answer("They are gone.", ref("Pruned")), "400": _BAD_REQUEST},
            writes=True,
            text="They go a few at a time; a client that leaves stops it.",
            parameters=params.PRUNE,
        ),
    },
    "/jobs/{id}": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "showJob",
            "One job, at once or when it has ended.",
            {"200": answer("The job.", ref("Job")), "400": _BAD_REQUEST, "404": _NOT_FOUND},
            parameters=[params.WAIT],
        ),
        "delete": _operation(
            "deleteJob",
            "Delete a job that has ended, with all that belongs to it.",
            {"204": answer("It is gone."), "404": _NOT_FOUND, "409": error("Problem", "It has not ended.")},
            writes=True,
        ),
    },
    "/jobs/{id}/events": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "jobEvents",
            "What has happened to it, and what happens until it has ended.",
            {
                "200": _stream_answer("As NDJSON, or as SSE where `Accept` asks for it.", "Each is an `Event`."),
                "204": _STREAM_ENDED,
                "400": _BAD_REQUEST,
                "404": _NOT_FOUND,
            },
            text="While nothing happens a sign of life comes every 10 seconds: a comment, or a space in front of the next line.",
            parameters=[*params.AFTER_EVENT, params.FOLLOW],
        ),
    },
    "/jobs/{id}/stream": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "jobStream",
            "Its answer, line by line, for Ollama's native endpoints: live while it runs, from the store afterwards.",
            {
                "200": _stream_answer(
                    "As NDJSON, or as SSE where `Accept` asks for it.",
                    'Each is a line of Ollama\'s, but for two: `{"attempt": 3}` (event `attempt`), another try begins and '
                    'what came so far is void; `{"error": "…"}` (event `error`), it has ended without success.',
                    "X-Foreman-Attempt",
                ),
                "204": _STREAM_ENDED,
                "400": _BAD_REQUEST,
                "404": error("Problem", "There is no such job of yours, or its endpoint has no lines."),
            },
            text="Before the job runs the answer is begun and waits, with a sign of life every 10 seconds.",
            parameters=params.AFTER_LINE,
        ),
    },
    "/jobs/{id}/cancel": {
        "parameters": [params.JOB_ID],
        "post": _operation(
            "cancelJob",
            "End it; one that is cancelled already is as good.",
            {
                "200": answer("It does not run any more.", ref("Job")),
                "202": answer(f"It still runs after {CANCEL_WAIT:g} seconds.", ref("Job")),
                "404": _NOT_FOUND,
                "409": error("Problem", "It has ended otherwise."),
            },
            writes=True,
        ),
    },
    "/jobs/{id}/retry": {
        "parameters": [params.JOB_ID],
        "post": _operation(
            "retryJob",
            "Queue one again that is failed, discarded or cancelled: with new attempts, and without its deadline.",
            {"200": answer("It is queued.", ref("Job")), "404": _NOT_FOUND, "409": _WRONG_STATE},
            writes=True,
        ),
    },
    "/jobs/{id}/artifacts": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "listArtifacts",
            "What belongs to it.",
            {"200": answer("All of it, without the bytes.", ref("Artifacts")), "404": _NOT_FOUND},
        ),
    },
    "/jobs/{id}/artifacts/{name}": {
        "parameters": [params.JOB_ID, params.ARTIFACT_NAME],
        "get": _operation(
            "getArtifact",
            "One of these, as a download: whole, or in part.",
            {
                "200": answer(
                    "All of it, with the type that it was kept with.", _BYTES, *_DOWNLOAD_HEADERS, kind="*/*"
                ),
                "206": answer("The part.", _BYTES, *_DOWNLOAD_HEADERS, "Content-Range", kind="*/*"),
                "304": answer("It is known already.", None, "ETag", "Accept-Ranges"),
                "404": error("Problem", "There is no such job of yours, or no such artifact."),
                "416": error("Problem", "There is no such part.", "Content-Range"),
            },
            parameters=[params.RANGE, params.IF_RANGE, params.IF_NONE_MATCH],
        ),
        "put": _operation(
            "putArtifact",
            "Keep one of yours with it, under a name that is none of foreman's own.",
            {
                "200": answer("It replaces one.", ref("Artifact"), "Location"),
                "201": answer("It is new.", ref("Artifact"), "Location"),
                "400": error("Problem", "It cannot be read, or has a name or a type that cannot be kept."),
                "404": _NOT_FOUND,
                "409": error("Problem", "The name is one that foreman gives, or the job is gone."),
                "413": error("Problem", f"It is too large: {setting('FOREMAN_MAX_ARTIFACT')}."),
                "415": error("Problem", "It is compressed."),
            },
            writes=True,
            requestBody=_body(_BYTES, "*/*", "The bytes; their `Content-Type` is kept with them."),
        ),
    },
}
