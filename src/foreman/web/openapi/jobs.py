"""The paths of the document below ``/jobs``; docs/jobs.md explains how they work together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreman.web.jobs.routes import CANCEL_WAIT
from foreman.web.openapi import parameters as params
from foreman.web.openapi.responses import answer, common, error, setting
from foreman.web.openapi.schemas import Schema, ref

_BYTES: Schema = {"description": "Bytes, of any type."}
_NOT_FOUND = error("Problem", "You have no such job.")
_DISK_FULL = error("Problem", f"The disk is full: {setting('FOREMAN_DISK_RESERVE')}.")
_STORE_UNAVAILABLE = error(
    "Problem", "The store of the jobs cannot be used now, or foreman is stopping.", "Retry-After"
)
_BAD_REQUEST = error("Problem", "The request is malformed, or a parameter is invalid or unknown.")
_WRONG_STATE = error("Problem", "The state of the job does not allow this.")
_DOWNLOAD_HEADERS = ("ETag", "Accept-Ranges", "Content-Disposition")


def _operation(
    name: str, summary: str, answers: dict[str, Schema], *, writes: bool = False, text: str = "", **more: Any
) -> Schema:
    """An operation: one method of a path; ``writes``: it changes the store."""
    on_disk = {"507": _DISK_FULL} if writes else {}
    responses = {**common("Problem"), "503": _STORE_UNAVAILABLE, **on_disk, **answers}
    description = {"description": text} if text else {}
    return {"operationId": name, "summary": summary, **description, "tags": ["jobs"], **more, "responses": responses}


def _body(schema: Schema, kind: str, description: str) -> Schema:
    return {"required": True, "description": description, "content": {kind: {"schema": schema}}}


def _stream_answer(description: str, line: str, *headers: str) -> Schema:
    """A response of lines: NDJSON, or SSE."""
    stream = answer(description, None, *headers)
    lines: Schema = {"description": line}
    return {**stream, "content": {"application/x-ndjson": {"schema": lines}, "text/event-stream": {"schema": lines}}}


def _links(*names: str) -> dict[str, Schema]:
    """Links to what can be done next with a job, with parameters that make the answers come at once."""
    quick = {"showJob": {"query.wait": "0"}, "jobEvents": {"query.follow": "0"}}
    whose = {"path.id": "$response.body#/id"}
    return {name: {"operationId": name, "parameters": {**whose, **quick.get(name, {})}} for name in names}


_ALL_OF_A_JOB: Sequence[str] = ("showJob", "jobEvents", "listArtifacts", "cancelJob", "retryJob", "deleteJob")
_JOBS = {"oneOf": [ref("Job"), ref("JobsTaken")]}
_STREAM_ENDED = answer(
    "With SSE, for a reader that resumes a job that has ended and already has everything: do not reconnect."
)

PATHS: dict[str, Schema] = {
    "/jobs": {
        "get": _operation(
            "listJobs",
            "List jobs, newest first.",
            {
                "200": answer("A page of jobs.", ref("Page")),
                "400": _BAD_REQUEST,
                "403": error("Problem", "Only admins may list the jobs of others."),
            },
            parameters=params.LIST,
        ),
        "post": _operation(
            "submitJob",
            "Submit one job, or an array of jobs that is accepted as a whole or not at all.",
            {
                "200": answer(
                    "The job, or every job of the array, was submitted before.",
                    _JOBS,
                    "Location",
                    "Idempotency-Replayed",
                ),
                "201": {
                    **answer("The jobs are on the disk. `Location` is sent for a single job.", _JOBS, "Location"),
                    "links": _links(*_ALL_OF_A_JOB, "putArtifact"),
                },
                "400": error("Problem", "The request is malformed, or a field is invalid; `errors` lists the errors."),
                "404": error("Problem", "Ollama does not have the model."),
                "413": error("Problem", f"The payload is too large: {setting('FOREMAN_MAX_PAYLOAD')}."),
                "415": error("Problem", "The body is compressed."),
                "422": error("Problem", "The idempotency key was used for a different request."),
                "429": error("Problem", f"Too many jobs are waiting: {setting('FOREMAN_MAX_JOBS')}.", "Retry-After"),
            },
            writes=True,
            text=(
                "An ordinary request to one of Ollama's routes for chats and embeddings becomes a job with the header "
                "`Prefer: respond-async`. It is answered `202` with the job, its `Location` and `Preference-Applied: "
                "respond-async`, or `200` if a job with its `Idempotency-Key` exists already. Its errors have the shape of that "
                "route."
            ),
            parameters=[params.IDEMPOTENCY_KEY, params.PREFER],
            requestBody=_body(
                {"oneOf": [ref("NewJob"), ref("NewJobs")]},
                "application/json",
                "It is read as JSON, whatever the `Content-Type`.",
            ),
        ),
        "delete": _operation(
            "pruneJobs",
            "Delete jobs that have ended, with their artifacts: your own, or everybody's as an admin.",
            {"200": answer("The jobs are deleted.", ref("Pruned")), "400": _BAD_REQUEST},
            writes=True,
            text="Jobs are deleted in small batches; deleting stops when the client disconnects.",
            parameters=params.PRUNE,
        ),
    },
    "/jobs/{id}": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "showJob",
            "Show a job, at once or when it has ended.",
            {"200": answer("The job.", ref("Job")), "400": _BAD_REQUEST, "404": _NOT_FOUND},
            parameters=[params.WAIT],
        ),
        "delete": _operation(
            "deleteJob",
            "Delete a job that has ended, with its artifacts.",
            {
                "204": answer("The job is deleted."),
                "404": _NOT_FOUND,
                "409": error("Problem", "The job has not ended."),
            },
            writes=True,
        ),
    },
    "/jobs/{id}/events": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "jobEvents",
            "The events of a job: those so far, and those to come until it has ended.",
            {
                "200": _stream_answer(
                    "NDJSON, or SSE if `Accept` has `text/event-stream`.", "Each line is an `Event`."
                ),
                "204": _STREAM_ENDED,
                "400": _BAD_REQUEST,
                "404": _NOT_FOUND,
            },
            text="While nothing happens, a heartbeat is sent every 10 seconds: an SSE comment, or a space before the next line of NDJSON.",
            parameters=[*params.AFTER_EVENT, params.FOLLOW],
        ),
    },
    "/jobs/{id}/stream": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "jobStream",
            "The answer of a job for one of Ollama's native endpoints, line by line: live while the job runs, from the store afterwards.",
            {
                "200": _stream_answer(
                    "NDJSON, or SSE if `Accept` has `text/event-stream`.",
                    'Each line is one of Ollama\'s, except two: `{"attempt": 3}` (event `attempt`) means that another '
                    'attempt begins and the lines so far are void; `{"error": "…"}` (event `error`) means that the job has ended '
                    "without success.",
                    "X-Foreman-Attempt",
                ),
                "204": _STREAM_ENDED,
                "400": _BAD_REQUEST,
                "404": error("Problem", "You have no such job, or its endpoint has no stream."),
            },
            text="The stream may be opened before the job runs; until then a heartbeat is sent every 10 seconds.",
            parameters=params.AFTER_LINE,
        ),
    },
    "/jobs/{id}/cancel": {
        "parameters": [params.JOB_ID],
        "post": _operation(
            "cancelJob",
            "Cancel a job; a job that is cancelled already is no error.",
            {
                "200": answer("The job is cancelled, and does not run any more.", ref("Job")),
                "202": answer(f"The job is being cancelled, and still runs after {CANCEL_WAIT:g} seconds.", ref("Job")),
                "404": _NOT_FOUND,
                "409": error("Problem", "The job has ended in another state."),
            },
            writes=True,
        ),
    },
    "/jobs/{id}/retry": {
        "parameters": [params.JOB_ID],
        "post": _operation(
            "retryJob",
            "Queue a failed, discarded or cancelled job again, with new attempts and without its deadline.",
            {"200": answer("The job is queued.", ref("Job")), "404": _NOT_FOUND, "409": _WRONG_STATE},
            writes=True,
        ),
    },
    "/jobs/{id}/artifacts": {
        "parameters": [params.JOB_ID],
        "get": _operation(
            "listArtifacts",
            "List the artifacts of a job.",
            {"200": answer("All artifacts, without their bytes.", ref("Artifacts")), "404": _NOT_FOUND},
        ),
    },
    "/jobs/{id}/artifacts/{name}": {
        "parameters": [params.JOB_ID, params.ARTIFACT_NAME],
        "get": _operation(
            "getArtifact",
            "Download an artifact, or a range of it.",
            {
                "200": answer(
                    "The whole artifact, with the `Content-Type` that is stored with it.",
                    _BYTES,
                    *_DOWNLOAD_HEADERS,
                    kind="*/*",
                ),
                "206": answer("The range.", _BYTES, *_DOWNLOAD_HEADERS, "Content-Range", kind="*/*"),
                "304": answer("The client has this version already.", None, "ETag", "Accept-Ranges"),
                "404": error("Problem", "You have no such job, or it has no such artifact."),
                "416": error("Problem", "The range is outside of the artifact.", "Content-Range"),
            },
            parameters=[params.RANGE, params.IF_RANGE, params.IF_NONE_MATCH],
        ),
        "put": _operation(
            "putArtifact",
            "Store an artifact of your own with a job, under a name that foreman does not use itself.",
            {
                "200": answer("An artifact with this name was replaced.", ref("Artifact"), "Location"),
                "201": answer("The artifact is new.", ref("Artifact"), "Location"),
                "400": error("Problem", "The request is malformed, or the name or the type is invalid."),
                "404": _NOT_FOUND,
                "409": error(
                    "Problem", "The name is one that foreman uses itself, or the job has too many artifacts of yours."
                ),
                "413": error("Problem", f"The artifact is too large: {setting('FOREMAN_MAX_ARTIFACT')}."),
                "415": error("Problem", "The body is compressed."),
            },
            writes=True,
            requestBody=_body(_BYTES, "*/*", "The bytes of the artifact; the `Content-Type` is stored with them."),
        ),
    },
}
