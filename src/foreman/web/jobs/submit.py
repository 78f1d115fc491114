"""Taking jobs: by ``POST /jobs``, and by requests to other routes that ask not to be waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from attrs import define, frozen
from twisted.internet.task import Cooperator

from foreman import errors
from foreman.jobs.job import EnqueueResult, Job, NewJob
from foreman.protocol.endpoints import endpoint_of
from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_body import RequestBody
from foreman.proxy.request import ModelMissing
from foreman.store.errors import KeyReused, StoreUnavailable
from foreman.store.job_store import JobStore
from foreman.util.cooperator import run_in_slices
from foreman.util.slices import Slices
from foreman.web.jobs import job_parser, request_headers
from foreman.web.jobs.job_parser import PASSED, Reader
from foreman.web.jobs.problems import FieldError, Problem, invalid_fields
from foreman.web.jobs.serialization import Models, job_value, job_values
from foreman.web.jobs.wakeups import Wakeups
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply, json_reply

Result = TypeVar("Result")
#: How much of a body is read from its file at once, in bytes.
_PIECE = 1024 * 1024


@frozen
class JobLimits:
    """How large things may be, in bytes, and how long a reader may take nothing, in seconds."""

    max_payload: int
    max_artifact: int
    stall_timeout: float


@define(eq=False)
class Submissions:
    """Where jobs come in. What is answered has been committed."""

    _store: JobStore
    _models: Models
    _wakeups: Wakeups
    _limits: JobLimits
    _cooperator: Cooperator

    async def submit(self, request: ClientRequest) -> Reply:
        """Take the jobs of a body.

        :raises errors.ForemanError: with all that is wrong with them, or with the store.
        """
        self._check_open()
        request_headers.check_plain(request, "send the job uncompressed; its payload goes to Ollama as it is")
        key = request_headers.header_key(request)
        reader = Reader(request.caller, key, self._store.now(), self._limits.max_payload)
        reader.check_size(_beginning(request), request.content.length)
        body = await self._in_turns(read_whole(request), request.content.length)
        new, is_array = await self._in_turns(reader.read(body), len(body))
        enqueued = await self._enqueue(new, "/{}" if is_array else "")
        jobs = await self._shown(enqueued)
        headers = _replayed(enqueued)
        status = 200 if headers else 201
        if is_array:
            return json_reply(status, {"jobs": jobs}, headers)
        return json_reply(status, jobs[0], [_location(request, enqueued[0].id), *headers])

    async def accept(self, request: ClientRequest, wanted: RequestBody) -> Reply:
        """Make a job of a request to another route; ``wanted`` is what its body asks for.

        :raises errors.ForemanError: with what is wrong with it, or with the store.
        """
        self._check_open()
        path, query = request.route.path, request.target.partition(b"?")[2]
        if query and query != endpoint_of(path).ignored_query:
            raise Problem(400, "a job keeps no query: leave it away, or the header Prefer: respond-async")
        most, length = self._limits.max_payload, request.content.length
        if length > most:
            raise Problem(413, f"a job's payload may have {most} bytes, and has {length} (FOREMAN_MAX_PAYLOAD)")
        field_error = job_parser.flaw_of(wanted)
        if field_error is not None:
            raise invalid_fields([field_error])
        payload = (await self._in_turns(read_whole(request), length))[: wanted.length]
        job = job_parser.new_job(path, payload, wanted, request.caller, request_headers.header_key(request))
        encoding = request_headers.header(request, b"content-encoding", "identity")
        described = job_parser.as_sent(
            job,
            request_headers.header(request, b"content-type", "application/json"),
            None if encoding.lower() == "identity" else encoding,
            request_headers.kept_headers(request),
        )
        job = await self._in_turns(described, length)
        (enqueued,) = await self._enqueue([job], None)
        headers = [_location(request, enqueued.id), (b"Preference-Applied", b"respond-async"), *_replayed([enqueued])]
        (shown,) = await self._shown([enqueued])
        return json_reply(200 if enqueued.replayed else 202, shown, headers)

    async def _in_turns(self, slices: Slices[Result], size: int) -> Result:
        return await run_in_slices(self._cooperator, slices, size)

    def _check_open(self) -> None:
        if self._wakeups.closed:
            raise errors.Draining("foreman is stopping; try again soon")

    async def _enqueue(self, new: Sequence[NewJob], place: str | None) -> list[EnqueueResult]:
        """Take all of ``new``, if they can run; ``place`` points at one in the body, None where there are no pointers."""
        repeated = await self._repeated(new)
        placed, missing = await job_parser.placed(new, self._models)
        absent = [number for number in missing if not repeated[number]]
        if absent and place is None:
            raise ModelMissing(_not_found(new[0]))
        now = self._store.now()
        field_errors = [
            FieldError(f"{_at(place, number)}/deadline", PASSED)
            for number, job in enumerate(new)
            if job.deadline is not None and job.deadline <= now and not repeated[number]
        ]
        field_errors += [
            FieldError(f"{_at(place, number)}/payload/model", _not_found(new[number]), 404) for number in absent
        ]
        if field_errors:
            raise invalid_fields(field_errors)
        try:
            return await self._store.enqueue(placed)
        except KeyReused as problem:
            if place is None:
                raise
            raise invalid_fields(
                [FieldError(f"{_at(place, problem.index)}/idempotency_key", str(problem), 422)]
            ) from None

    async def _repeated(self, new: Sequence[NewJob]) -> list[bool]:
        """Which of ``new`` were handed over before: what has changed in the world since then is not held against them."""
        keys = [job.idempotency_key for job in new if job.idempotency_key is not None]
        known = await self._store.fingerprints(new[0].owner, keys) if keys else {}
        return [known.get(job.idempotency_key or "") == job.fingerprint for job in new]

    async def _shown(self, enqueued: Sequence[EnqueueResult]) -> list[dict[str, Any]]:
        """The jobs as they are now; as they were handed over, without a position, where the store cannot tell."""
        ids = [one.id for one in enqueued]
        jobs: Sequence[Job | None]
        try:
            # One by one they come from many requests at once, which share a look.
            jobs = (
                [await self._store.get(ids[0])]
                if len(ids) == 1
                else await self._store.get_many(ids, enqueued[0].job.owner)
            )
        except StoreUnavailable:  # they have been committed, and their caller is to know
            jobs = [one.job for one in enqueued]
        # One that is gone already was deleted by somebody else meanwhile.
        found = [one.job if job is None else job for one, job in zip(enqueued, jobs, strict=True)]
        return await job_values(found, lambda job: job_value(job, self._models), self._wakeups)


def read_whole(request: ClientRequest) -> Slices[bytes]:
    """The body of a request, wherever it is held."""
    body = request.body()
    if isinstance(body, bytes):
        return body
    pieces = []
    while piece := body.read(_PIECE):
        pieces.append(piece)
        yield
    return b"".join(pieces)


def _beginning(request: ClientRequest) -> bytes:
    """The first bytes of a body, wherever it is held."""
    body = request.body()
    if isinstance(body, bytes):
        return body[: job_parser.BEGINNING]
    beginning = body.read(job_parser.BEGINNING)
    body.seek(0)
    return beginning


def _not_found(job: NewJob) -> str:
    return f"model '{job.model}' not found"  # Ollama's own text


def _at(place: str | None, number: int) -> str:
    return (place or "").format(number)


def _location(request: ClientRequest, id_: str) -> tuple[bytes, bytes]:
    return b"Location", request.own_path(f"/jobs/{id_}").encode("ascii")


def _replayed(enqueued: Sequence[EnqueueResult]) -> RawHeaders:
    """A header where nothing is new."""
    return [(b"Idempotency-Replayed", b"true")] if all(one.replayed for one in enqueued) else []
