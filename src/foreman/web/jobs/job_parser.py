"""From the body of a request to the jobs that it hands over, or to everything that is wrong with it."""

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
from foreman.target.models import Availability
from foreman.util.slices import Slices
from foreman.web.jobs import fields
from foreman.web.jobs.fields import MAX_JOBS, Fields
from foreman.web.jobs.problems import FieldError, FieldErrors, Problem
from foreman.web.jobs.request_headers import one_key
from foreman.web.jobs.serialization import Models

#: What a job may have beside its payload, in bytes.
MAX_BESIDE = 256 * 1024
#: What an array of jobs may have where its jobs are not larger by themselves, in bytes.
MAX_IN_ARRAY = 64 * 1024 * 1024
#: How many small jobs are read at once, and how many bytes of a large one: a few milliseconds.
_AT_ONCE, _LARGE = 20, 1024 * 1024
PASSED = "has passed already"
#: What the store keeps of a name; Ollama takes no longer ones, but white space around them.
_LONGEST_MODEL = 700
_BRACKET, _BRACE = b"[", b"{"
_BLANKS = b" \t\r\n"
#: How much of a body tells whether it is an array, in bytes; nobody sends so many blanks before one.
BEGINNING = 1024
_BOUNDARY = re.compile(r'boundary=("?)([^";\s]{1,200})\1', re.IGNORECASE)


@frozen
class Reader:
    """Whose body it is that is read.

    :ivar owner: the name of its caller; :ivar key: the ``Idempotency-Key`` of its header; :ivar now: milliseconds since
        the epoch; :ivar max_payload: in bytes.
    """

    owner: str
    key: str | None
    now: int
    max_payload: int

    def check_size(self, beginning: bytes, size: int) -> None:
        """Whether a body of ``size`` bytes that begins so can hold what it is.

        :raises Problem: where it is larger than all of it may be.
        """
        is_array = beginning.lstrip(_BLANKS).startswith(_BRACKET)
        most = self.max_payload + MAX_BESIDE
        if is_array:
            most = min(MAX_JOBS * most, max(most, MAX_IN_ARRAY))
        if size > most:
            what, cure = ("an array of jobs", "; hand over fewer at once") if is_array else ("a job", "")
            raise Problem(413, f"{what} may have {most} bytes, and this has {size} (FOREMAN_MAX_PAYLOAD){cure}")

    def read(self, body: bytes) -> Slices[tuple[list[NewJob], bool]]:
        """The jobs of a body, and whether it was an array of them.

        Whether their models are there and their deadlines to come is asked later: it does not matter to a repetition.

        :raises Problem: with all that is wrong.
        """
        self.check_size(body[:BEGINNING], len(body))
        if not (yield from is_quickly_decoded(body, MAX_DECODE_COST)):
            raise Problem(
                413, "the JSON of the body has too many values or escapes for its size; hand over fewer jobs at once"
            )
        field_errors, late = FieldErrors(), FieldErrors()
        if not body[:BEGINNING].lstrip(_BLANKS).startswith(_BRACKET):
            members = fields.members_of(body)
            if members is None:
                raise Problem(400, "the body must be the JSON of a job, or of an array of jobs, in UTF-8")
            found = [(yield from self._job(Fields(members, "", field_errors, late), self.key))]
            is_array = False
        else:
            found, is_array = (yield from self._array(body, field_errors, late)), True
        if field_errors.count:
            field_errors.extend(late)
            raise field_errors.problem()
        return [job for job in found if job is not None], is_array

    def _array(self, body: bytes, field_errors: FieldErrors, late: FieldErrors) -> Slices[list[NewJob | None]]:
        elements = fields.elements_of(body)
        if elements is None:
            raise Problem(400, "the body must be the JSON of a job, or of an array of jobs, in UTF-8")
        if not elements:
            raise Problem(400, f"an array may have 1 to {MAX_JOBS} jobs, and has none")
        if self.key is not None:
            raise Problem(400, "Idempotency-Key: is for one job; in an array each has its own idempotency_key")
        found = []
        for number, element in enumerate(elements):
            if number % _AT_ONCE == 0 or len(element) > _LARGE:
                yield
            members = fields.members_of(element)
            if members is None:
                field_errors.add(FieldError(f"/{number}", "must be an object"))
            else:
                found.append((yield from self._job(Fields(members, f"/{number}", field_errors, late), None)))
        return found

    def _job(self, given: Fields, key: str | None) -> Slices[NewJob | None]:
        endpoint = given.read("endpoint", fields.endpoint, "")
        payload = given.raw("payload") if given.size("payload") <= self.max_payload else None
        wanted = yield from self._payload(given, endpoint, payload)
        run_at = given.read("run_at", fields.moment, None)
        deadline = given.read("deadline", fields.moment, None)
        if endpoint == "" and given.raw("endpoint") is None:
            given.wrong("endpoint", "is missing")
        if deadline is not None and deadline <= self.now:
            given.late.add(FieldError(f"{given.pointer}/deadline", PASSED))
        elif deadline is not None and run_at is not None and deadline <= run_at:
            given.wrong("deadline", "must be later than run_at")
        none: Mapping[str, str] = {}
        metadata = given.read("metadata", fields.metadata, none)
        priority = given.read("priority", fields.priority, 5)
        max_attempts = given.read("max_attempts", fields.attempts, 5)
        in_body = given.read("idempotency_key", fields.key, None)
        if not given.sound or wanted is None or payload is None:
            return None
        key = one_key(key, in_body, f"{given.pointer}/idempotency_key")
        job = evolve(
            new_job(endpoint, payload, wanted, self.owner, key),
            priority=priority,
            run_at=run_at,
            deadline=deadline,
            max_attempts=max_attempts,
            metadata=metadata,
        )
        return (yield from _fingered(job))

    def _payload(self, given: Fields, endpoint: str, payload: bytes | None) -> Slices[RequestBody | None]:
        if given.size("payload") > self.max_payload:
            text = f"may have {self.max_payload} bytes, and has {given.size('payload')} (FOREMAN_MAX_PAYLOAD)"
            given.wrong("payload", text, 413)
        elif payload is None:
            given.wrong("payload", "is missing")
        elif not payload.startswith(_BRACE):
            given.wrong("payload", "must be an object")
        elif endpoint:
            try:
                wanted = yield from request_body.read_in_slices(endpoint, payload)
            except errors.BadBody as problem:
                given.wrong("payload", str(problem))
                return None
            field_error = flaw_of(wanted)
            if field_error is None:
                return wanted
            given.wrong(f"payload{field_error.pointer}", field_error.detail, field_error.status)
        return None


def flaw_of(wanted: RequestBody) -> FieldError | None:
    """Why what a body asks for cannot be a job; the pointer is into that body."""
    if not wanted.readable:
        return FieldError(
            "", "cannot be read as its endpoint reads it: one of model, stream, keep_alive, messages, prompt is off"
        )
    if wanted.model is None:
        return FieldError("/model", "is missing")
    try:
        model_names.parse(wanted.model)
    except errors.InvalidName as problem:
        return FieldError("/model", str(problem))
    if len(wanted.model) > _LONGEST_MODEL:
        return FieldError("/model", "invalid model name")
    if wanted.intent is Intent.UNLOAD:
        return FieldError("", "only unloads a model, which takes no turn; ask for it directly")
    return None


def new_job(endpoint: str, payload: bytes, wanted: RequestBody, owner: str, key: str | None) -> NewJob:
    """A job with what its payload asks for, everything else left as it is when nothing is said."""
    found = classify(b"POST", endpoint.encode("ascii"))
    assert isinstance(found, Route)
    lane: JobLane = "embedding" if found.lane is Lane.EMBEDDING else "gate"
    return NewJob(
        endpoint=endpoint,
        lane=lane,
        family=found.family,
        model=wanted.model or "",
        owner=owner,
        payload=payload,
        stream=wanted.stream,
        fingerprint="",
        idempotency_key=key,
    )


def as_sent(
    job: NewJob, content_type: str, content_encoding: str | None, headers: Sequence[tuple[str, str]]
) -> Slices[NewJob]:
    """``job`` with what its request said of its payload."""
    return _fingered(evolve(job, content_type=content_type, content_encoding=content_encoding, headers=tuple(headers)))


async def placed(jobs: Sequence[NewJob], models: Models) -> tuple[list[NewJob], list[int]]:
    """The jobs in their lanes, and the numbers of those whose model the target surely does not have."""
    standings = await _standings(dict.fromkeys(job.model for job in jobs), models)
    # What runs in the cloud keeps nobody from the machine here.
    found = [evolve(job, lane="embedding") if standings[job.model] is Availability.CLOUD else job for job in jobs]
    return found, [number for number, job in enumerate(jobs) if standings[job.model] is Availability.MISSING]


async def _standings(typed: Mapping[str, None], models: Models) -> dict[str, Availability]:
    standings = {model: models.find(model) for model in typed}
    missing = [model for model, availability in standings.items() if availability is Availability.MISSING]
    if missing:
        # The target is asked once for all of them.
        looked = await models.look_for(missing[0])
        asked_it = looked is not Availability.UNKNOWN
        standings |= {model: models.find(model) if asked_it else looked for model in missing}
    return standings


def _fingered(job: NewJob) -> Slices[NewJob]:
    """With the fingerprint of all that was asked, but for the key and for who says which program asks."""
    payload, content_type = job.payload, job.content_type
    boundary = _BOUNDARY.search(content_type) if content_type.lower().startswith("multipart/") else None
    if boundary is not None:
        # A client that repeats a form makes a new boundary.
        payload = payload.replace(boundary[2].encode("latin-1"), b"")
        content_type = content_type.replace(boundary[2], "")
    headers = sorted((name.lower(), value) for name, value in job.headers if name.lower() != "user-agent")
    beside = (
        job.endpoint, content_type, job.content_encoding, headers, job.priority, job.run_at, job.deadline,
        job.max_attempts, sorted(job.metadata.items()),
    )  # fmt: skip
    digest = sha256(msgspec.json.encode(beside))
    digest.update(b"\0")
    for start in range(0, len(payload), _LARGE):
        if start:
            yield
        digest.update(payload[start : start + _LARGE])
    return evolve(job, fingerprint=digest.hexdigest())
