"""Accepting jobs: from ``POST /jobs``, and from requests to other routes with ``Prefer: respond-async``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, evolve, frozen
from twisted.internet.task import Cooperator

from foreman import errors
from foreman.jobs.job import EnqueueResult, Job, NewJob
from foreman.protocol.endpoints import endpoint_of
from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_body import RequestBody
from foreman.proxy.request import ModelMissing
from foreman.store.errors import KeyReused, StoreUnavailable
from foreman.store.job_store import JobStore
from foreman.target.models import Availability
from foreman.util.cooperator import run_in_slices
from foreman.util.slices import Slices
from foreman.web.jobs import job_parser, request_headers
from foreman.web.jobs.job_parser import DEADLINE_PASSED, JobParser
from foreman.web.jobs.problems import FieldError, Problem, invalid_fields
from foreman.web.jobs.serialization import Models, job_value, job_values
from foreman.web.jobs.wakeups import Wakeups
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply, json_reply

Result = TypeVar("Result")
#: How much of a body is read from its file at once, in bytes.
_READ_BYTES = 1024 * 1024


@frozen
class JobLimits:
    """The largest payload and artifact, in bytes, and how long a reader may read nothing, in seconds."""

    max_payload: int
    max_artifact: int
    stall_timeout: float


@define(eq=False)
class Submissions:
    """Accepts jobs. A job is committed before its request is answered."""

    _store: JobStore
    _models: Models
    _wakeups: Wakeups
    _limits: JobLimits
    _cooperator: Cooperator

    async def submit(self, request: ClientRequest) -> Reply:
        """Accept the jobs in the body of ``POST /jobs``.

        :raises errors.ForemanError: with every error of the body, or when the store cannot be used.
        """
        self._check_not_draining()
        request_headers.check_uncompressed(
            request, "must be identity; send the job uncompressed, its payload goes to Ollama unchanged"
        )
        key = request_headers.idempotency_key_header(request)
        parser = JobParser(request.caller, key, self._store.now(), self._limits.max_payload)
        parser.check_size(_body_prefix(request), request.content.length)
        body = await self._in_turns(read_body(request), request.content.length)
        new, is_array = await self._in_turns(parser.read(body), len(body))
        enqueued = await self._enqueue(new, "/{}" if is_array else "")
        jobs = await self._job_values(enqueued)
        headers = _replay_headers(enqueued)
        status = 200 if headers else 201
        if is_array:
            return json_reply(status, {"jobs": jobs}, headers)
        return json_reply(status, jobs[0], [_location(request, enqueued[0].id), *headers])

    async def accept(self, request: ClientRequest, parsed_body: RequestBody) -> Reply:
        """Make a job of a request to another route.

        :param parsed_body: the body of the request, parsed.
        :raises errors.ForemanError: with the error of the request, or when the store cannot be used.
        """
        self._check_not_draining()
        path, query = request.route.path, request.target.partition(b"?")[2]
        if query and query != endpoint_of(path).ignored_query:
            raise Problem(
                400,
                "a job does not keep the query of its request: remove the query, or the header Prefer: respond-async",
            )
        limit, length = self._limits.max_payload, request.content.length
        if length > limit:
            raise Problem(413, f"the payload has {length} bytes; at most {limit} are allowed (FOREMAN_MAX_PAYLOAD)")
        field_error = job_parser.find_error(parsed_body)
        if field_error is not None:
            raise invalid_fields([field_error])
        payload = (await self._in_turns(read_body(request), length))[: parsed_body.length]
        job = job_parser.new_job(
            path, payload, parsed_body, request.caller, request_headers.idempotency_key_header(request)
        )
        encoding = request_headers.first_header(request, b"content-encoding", "identity")
        with_headers = job_parser.with_request_headers(
            job,
            request_headers.first_header(request, b"content-type", "application/json"),
            None if encoding.lower() == "identity" else encoding,
            request_headers.headers_to_store(request),
        )
        job = await self._in_turns(with_headers, length)
        (enqueued,) = await self._enqueue([job], None)
        headers = [
            _location(request, enqueued.id),
            (b"Preference-Applied", b"respond-async"),
            *_replay_headers([enqueued]),
        ]
        (value,) = await self._job_values([enqueued])
        return json_reply(200 if enqueued.replayed else 202, value, headers)

    async def _in_turns(self, slices: Slices[Result], size: int) -> Result:
        return await run_in_slices(self._cooperator, slices, size)

    def _check_not_draining(self) -> None:
        if self._wakeups.closed:
            raise errors.Draining("foreman is stopping; try again soon")

    async def _enqueue(self, new: Sequence[NewJob], pointer_format: str | None) -> list[EnqueueResult]:
        """Store all of ``new``, or none.

        :param pointer_format: the JSON pointer of a job in the body, with ``{}`` for its number; None where errors have
            no pointers.
        """
        is_replay = await self._replays(new)
        jobs, missing = await assign_lanes(new, self._models)
        rejected = [number for number in missing if not is_replay[number]]
        if rejected and pointer_format is None:
            raise ModelMissing(_not_found(new[0]))
        now = self._store.now()
        field_errors = [
            FieldError(f"{_pointer(pointer_format, number)}/deadline", DEADLINE_PASSED)
            for number, job in enumerate(new)
            if job.deadline is not None and job.deadline <= now and not is_replay[number]
        ]
        field_errors += [
            FieldError(f"{_pointer(pointer_format, number)}/payload/model", _not_found(new[number]), 404)
            for number in rejected
        ]
        if field_errors:
            raise invalid_fields(field_errors)
        try:
            return await self._store.enqueue(jobs)
        except KeyReused as problem:
            if pointer_format is None:
                raise
            raise invalid_fields(
                [FieldError(f"{_pointer(pointer_format, problem.index)}/idempotency_key", str(problem), 422)]
            ) from None

    async def _replays(self, new: Sequence[NewJob]) -> list[bool]:
        """Which of ``new`` repeat an earlier request. Those are accepted even if their model is gone or their deadline passed."""
        keys = [job.idempotency_key for job in new if job.idempotency_key is not None]
        known = await self._store.fingerprints(new[0].owner, keys) if keys else {}
        return [known.get(job.idempotency_key or "") == job.fingerprint for job in new]

    async def _job_values(self, enqueued: Sequence[EnqueueResult]) -> list[dict[str, Any]]:
        """The jobs as they are now; where the store cannot be read, as they were submitted, without a position."""
        ids = [entry.id for entry in enqueued]
        jobs: Sequence[Job | None]
        try:
            # Single jobs come from many requests at once, which share one read of the store.
            jobs = (
                [await self._store.get(ids[0])]
                if len(ids) == 1
                else await self._store.get_many(ids, enqueued[0].job.owner)
            )
        except StoreUnavailable:  # the jobs are committed, and their caller must learn so
            jobs = [entry.job for entry in enqueued]
        # A job that is missing was deleted by another request meanwhile.
        found = [entry.job if job is None else job for entry, job in zip(enqueued, jobs, strict=True)]
        return await job_values(found, lambda job: job_value(job, self._models), self._wakeups)


async def assign_lanes(jobs: Sequence[NewJob], models: Models) -> tuple[list[NewJob], list[int]]:
    """The jobs, each in its lane, and the indexes of those whose model the target certainly does not have."""
    availability = await _availability(dict.fromkeys(job.model for job in jobs), models)
    # A cloud model does not use the GPU of the target, so its jobs need no turn.
    found = [evolve(job, lane="embedding") if availability[job.model] is Availability.CLOUD else job for job in jobs]
    return found, [number for number, job in enumerate(jobs) if availability[job.model] is Availability.MISSING]


async def _availability(models_named: Mapping[str, None], models: Models) -> dict[str, Availability]:
    availability = {model: models.find(model) for model in models_named}
    missing = [model for model, known in availability.items() if known is Availability.MISSING]
    if missing:
        # One look-up at the target serves all missing models.
        looked_up = await models.look_for(missing[0])
        is_known = looked_up is not Availability.UNKNOWN
        availability |= {model: models.find(model) if is_known else looked_up for model in missing}
    return availability


def read_body(request: ClientRequest) -> Slices[bytes]:
    """The body of a request, from memory or from its file."""
    body = request.body()
    if isinstance(body, bytes):
        return body
    pieces = []
    while piece := body.read(_READ_BYTES):
        pieces.append(piece)
        yield
    return b"".join(pieces)


def _body_prefix(request: ClientRequest) -> bytes:
    """The first bytes of a body, from memory or from its file."""
    body = request.body()
    if isinstance(body, bytes):
        return body[: job_parser.PREFIX_BYTES]
    beginning = body.read(job_parser.PREFIX_BYTES)
    body.seek(0)
    return beginning


def _not_found(job: NewJob) -> str:
    return f"model '{job.model}' not found"  # Ollama's own text


def _pointer(pointer_format: str | None, number: int) -> str:
    return (pointer_format or "").format(number)


def _location(request: ClientRequest, id_: str) -> tuple[bytes, bytes]:
    return b"Location", request.own_path(f"/jobs/{id_}").encode("ascii")


def _replay_headers(enqueued: Sequence[EnqueueResult]) -> RawHeaders:
    """``Idempotency-Replayed``, where every job was submitted before."""
    return [(b"Idempotency-Replayed", b"true")] if all(entry.replayed for entry in enqueued) else []
