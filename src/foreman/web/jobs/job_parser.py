"""Parses the body of a request into jobs, or into the list of all its errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec
from attrs import evolve, frozen

from foreman import errors
from foreman.jobs.job import JobLane, NewJob
from foreman.protocol import model_names, request_body
from foreman.protocol.body_values import MAX_DECODE_COST, is_quickly_decoded
from foreman.protocol.endpoints import Lane
from foreman.protocol.request_body import Intent, RequestBody
from foreman.protocol.routes import Route, classify
from foreman.util.slices import Slices
from foreman.web.jobs import fields
from foreman.web.jobs.fields import MAX_JOBS, Fields
from foreman.web.jobs.problems import FieldError, FieldErrors, Problem
from foreman.web.jobs.request_headers import resolve_key

#: The largest size of all fields of a job but its payload, in bytes.
MAX_OTHER_FIELDS = 256 * 1024
#: The largest array of jobs, in bytes; a single job may be larger where FOREMAN_MAX_PAYLOAD is.
MAX_ARRAY = 64 * 1024 * 1024
#: How many small jobs are parsed in one slice of work, and how many bytes of a large one: a few milliseconds.
_JOBS_PER_SLICE, _SLICE_BYTES = 20, 1024 * 1024
DEADLINE_PASSED = "is in the past"
#: The longest name of a model that is stored. Ollama accepts none that are longer, except for white space around them.
_MAX_MODEL_NAME = 700
_BRACKET, _BRACE = b"[", b"{"
_BLANKS = b" \t\r\n"
#: How many bytes of a body are looked at to see whether it is an array; no client sends more blanks in front of one.
PREFIX_BYTES = 1024
_BOUNDARY = re.compile(r'boundary=("?)([^";\s]{1,200})\1', re.IGNORECASE)


@frozen
class JobParser:
    """Parses the body of one request to ``POST /jobs``.

    :ivar owner: the name of the caller; :ivar key: the ``Idempotency-Key`` header; :ivar now: milliseconds since the
        epoch; :ivar max_payload: in bytes.
    """

    owner: str
    key: str | None
    now: int
    max_payload: int

    def check_size(self, beginning: bytes, size: int) -> None:
        """Check the size of a body before it is read.

        :param beginning: its first ``PREFIX_BYTES`` bytes, which tell a job from an array; :param size: in bytes.
        :raises Problem: where the body is larger than its job or its array may be.
        """
        is_array = beginning.lstrip(_BLANKS).startswith(_BRACKET)
        limit = self.max_payload + MAX_OTHER_FIELDS
        if is_array:
            limit = min(MAX_JOBS * limit, max(limit, MAX_ARRAY))
        if size > limit:
            kind, advice = ("array of jobs", "; submit fewer jobs at once") if is_array else ("job", "")
            raise Problem(
                413, f"the {kind} has {size} bytes; at most {limit} are allowed (FOREMAN_MAX_PAYLOAD){advice}"
            )

    def read(self, body: bytes) -> Slices[tuple[list[NewJob], bool]]:
        """The jobs of a body, and whether the body is an array.

        Missing models and deadlines in the past are checked later, because a repeated request may have them.

        :raises Problem: with all errors of the body.
        """
        self.check_size(body[:PREFIX_BYTES], len(body))
        if not (yield from is_quickly_decoded(body, MAX_DECODE_COST)):
            raise Problem(
                413, "the JSON of the body has too many values or escapes for its size; submit fewer jobs at once"
            )
        field_errors, expired = FieldErrors(), FieldErrors()
        if not body[:PREFIX_BYTES].lstrip(_BLANKS).startswith(_BRACKET):
            members = fields.members_of(body)
            if members is None:
                raise Problem(400, "the body must be a JSON object (a job) or a JSON array of jobs, in UTF-8")
            found = [(yield from self._job(Fields(members, "", field_errors, expired), self.key))]
            is_array = False
        else:
            found, is_array = (yield from self._array(body, field_errors, expired)), True
        if field_errors.count:
            field_errors.extend(expired)
            raise field_errors.problem()
        return [job for job in found if job is not None], is_array

    def _array(self, body: bytes, field_errors: FieldErrors, expired: FieldErrors) -> Slices[list[NewJob | None]]:
        elements = fields.elements_of(body)
        if elements is None:
            raise Problem(400, "the body must be a JSON object (a job) or a JSON array of jobs, in UTF-8")
        if not elements:
            raise Problem(400, f"the array is empty; it must have 1 to {MAX_JOBS} jobs")
        if self.key is not None:
            raise Problem(
                400, "Idempotency-Key: is for a single job; in an array, give each job its own idempotency_key"
            )
        found = []
        for number, element in enumerate(elements):
            if number % _JOBS_PER_SLICE == 0 or len(element) > _SLICE_BYTES:
                yield
            members = fields.members_of(element)
            if members is None:
                field_errors.add(FieldError(f"/{number}", "must be an object"))
            else:
                found.append((yield from self._job(Fields(members, f"/{number}", field_errors, expired), None)))
        return found

    def _job(self, job_fields: Fields, key: str | None) -> Slices[NewJob | None]:
        endpoint = job_fields.read("endpoint", fields.endpoint, "")
        payload = job_fields.raw("payload") if job_fields.size("payload") <= self.max_payload else None
        parsed = yield from self._payload(job_fields, endpoint, payload)
        run_at = job_fields.read("run_at", fields.timestamp, None)
        deadline = job_fields.read("deadline", fields.timestamp, None)
        if endpoint == "" and job_fields.raw("endpoint") is None:
            job_fields.add_error("endpoint", "is missing")
        if deadline is not None and deadline <= self.now:
            job_fields.expired.add(FieldError(f"{job_fields.pointer}/deadline", DEADLINE_PASSED))
        elif deadline is not None and run_at is not None and deadline <= run_at:
            job_fields.add_error("deadline", "must be later than run_at")
        none: Mapping[str, str] = {}
        metadata = job_fields.read("metadata", fields.metadata, none)
        priority = job_fields.read("priority", fields.priority, 5)
        max_attempts = job_fields.read("max_attempts", fields.max_attempts, 5)
        body_key = job_fields.read("idempotency_key", fields.key, None)
        if not job_fields.is_valid or parsed is None or payload is None:
            return None
        key = resolve_key(key, body_key, f"{job_fields.pointer}/idempotency_key")
        job = evolve(
            new_job(endpoint, payload, parsed, self.owner, key),
            priority=priority,
            run_at=run_at,
            deadline=deadline,
            max_attempts=max_attempts,
            metadata=metadata,
        )
        return (yield from _with_fingerprint(job))

    def _payload(self, job_fields: Fields, endpoint: str, payload: bytes | None) -> Slices[RequestBody | None]:
        if job_fields.size("payload") > self.max_payload:
            text = (
                f"has {job_fields.size('payload')} bytes; at most {self.max_payload} are allowed (FOREMAN_MAX_PAYLOAD)"
            )
            job_fields.add_error("payload", text, 413)
        elif payload is None:
            job_fields.add_error("payload", "is missing")
        elif not payload.startswith(_BRACE):
            job_fields.add_error("payload", "must be an object")
        elif endpoint:
            try:
                parsed = yield from request_body.read_in_slices(endpoint, payload)
            except errors.BadBody as problem:
                job_fields.add_error("payload", str(problem))
                return None
            field_error = find_error(parsed)
            if field_error is None:
                return parsed
            job_fields.add_error(f"payload{field_error.pointer}", field_error.detail, field_error.status)
        return None


def find_error(parsed: RequestBody) -> FieldError | None:
    """Why a parsed body cannot become a job, with a pointer into that body; None where it can."""
    if not parsed.readable:
        return FieldError(
            "", "is not a valid request for its endpoint: model, stream, keep_alive, messages or prompt is malformed"
        )
    if parsed.model is None:
        return FieldError("/model", "is missing")
    try:
        model_names.parse(parsed.model)
    except errors.InvalidName as problem:
        return FieldError("/model", str(problem))
    if len(parsed.model) > _MAX_MODEL_NAME:
        return FieldError("/model", "invalid model name")
    if parsed.intent is Intent.UNLOAD:
        return FieldError(
            "", "only unloads a model, which needs no turn; send it directly to its endpoint, not as a job"
        )
    return None


def new_job(endpoint: str, payload: bytes, parsed: RequestBody, owner: str, key: str | None) -> NewJob:
    """A job for a payload, with the default of every other field."""
    found = classify(b"POST", endpoint.encode("ascii"))
    assert isinstance(found, Route)
    lane: JobLane = "embedding" if found.lane is Lane.EMBEDDING else "gate"
    return NewJob(
        endpoint=endpoint,
        lane=lane,
        family=found.family,
        model=parsed.model or "",
        owner=owner,
        payload=payload,
        stream=parsed.stream,
        fingerprint="",
        idempotency_key=key,
    )


def with_request_headers(
    job: NewJob, content_type: str, content_encoding: str | None, headers: Sequence[tuple[str, str]]
) -> Slices[NewJob]:
    """``job`` with the headers of its request that describe the payload or go to the target."""
    return _with_fingerprint(
        evolve(job, content_type=content_type, content_encoding=content_encoding, headers=tuple(headers))
    )


def _with_fingerprint(job: NewJob) -> Slices[NewJob]:
    """``job`` with the fingerprint of the whole request but for the idempotency key and the ``User-Agent``."""
    payload, content_type = job.payload, job.content_type
    boundary = _BOUNDARY.search(content_type) if content_type.lower().startswith("multipart/") else None
    if boundary is not None:
        # A client that repeats a multipart form chooses a new boundary.
        payload = payload.replace(boundary[2].encode("latin-1"), b"")
        content_type = content_type.replace(boundary[2], "")
    headers = sorted((name.lower(), value) for name, value in job.headers if name.lower() != "user-agent")
    settings = (
        job.endpoint, content_type, job.content_encoding, headers, job.priority, job.run_at, job.deadline,
        job.max_attempts, sorted(job.metadata.items()),
    )  # fmt: skip
    digest = sha256(msgspec.json.encode(settings))
    digest.update(b"\0")
    for start in range(0, len(payload), _SLICE_BYTES):
        if start:
            yield
        digest.update(payload[start : start + _SLICE_BYTES])
    return evolve(job, fingerprint=digest.hexdigest())
