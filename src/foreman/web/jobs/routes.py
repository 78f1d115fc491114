"""The routes of ``/jobs``, and the jobs made of requests to other routes."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import TypeVar, cast

from attrs import define, field
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource

from foreman import errors
from foreman.auth.policy import AuthPolicy
from foreman.jobs.job import Job
from foreman.protocol.request_body import RequestBody
from foreman.proxy.access_record import Outcome
from foreman.proxy.observer import Observer
from foreman.store.errors import WrongState
from foreman.store.job_store import JobStore
from foreman.util.waiters import cancelling
from foreman.web.jobs import artifacts, prune, query_params, request_headers
from foreman.web.jobs.artifact_reader import ReaderLimit
from foreman.web.jobs.method_guard import MethodGuard
from foreman.web.jobs.problems import INTERNAL_ERROR, Problem, family_reply, no_such_job, problem_of, problem_reply
from foreman.web.jobs.serialization import ListSerializer, Models, artifact_value, job_value, job_values
from foreman.web.jobs.streaming import JobStreams, RunningJobs
from foreman.web.jobs.submit import JobLimits, Submissions
from foreman.web.jobs.wakeups import Wakeups
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply, json_reply

T = TypeVar("T")

#: The longest ``?wait=``, and how long ``POST …/cancel`` waits for the worker to stop; in seconds.
MAX_WAIT, CANCEL_WAIT = 300.0, 5.0


@define(eq=False)
class JobsApi:
    """The Klein app of ``/jobs``.

    :ivar models: the inventory; :ivar auth: whether a token is required; if not, every caller sees all jobs;
    :ivar cooperator: runs the parsing of large bodies in slices, interleaved with all other work of that kind.
    """

    _clock: IReactorTime
    _store: JobStore
    _worker: RunningJobs
    _models: Models
    _observer: Observer
    _limits: JobLimits
    _auth: AuthPolicy
    _cooperator: Cooperator
    _list_serializer: ListSerializer = field(init=False)
    _reader_limit: ReaderLimit = field(factory=ReaderLimit, init=False)
    _wakeups: Wakeups = field(init=False)
    _submissions: Submissions = field(init=False)
    _streams: JobStreams = field(init=False)
    app = Klein()
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._list_serializer = ListSerializer(self._models)
        self._wakeups = Wakeups(self._clock)
        self._submissions = Submissions(self._store, self._models, self._wakeups, self._limits, self._cooperator)
        stall_timeout = self._limits.stall_timeout
        self._streams = JobStreams(
            self._clock, self._store, self._worker, self._wakeups, self._reader_limit, stall_timeout
        )

    def resource(self) -> IResource:
        """The resource that answers everything below ``/jobs``."""
        return MethodGuard(self.app.resource(), self._reply)

    def close(self) -> None:
        """foreman is stopping: accept no more jobs, and end every request that waits for a job or follows one."""
        self._wakeups.close()

    # submitting

    @app.route("/jobs", methods=["POST"])
    async def submit(self, request: ClientRequest) -> None:
        """Accept one job, or an array of them."""
        self._reply(request, await self._submissions.submit(request))

    async def accept(self, request: ClientRequest, body: RequestBody) -> None:
        """Make a job of a request to another route; errors have the shape of that route's family.

        :param body: the parsed body of the request.
        """
        try:
            reply = await self._submissions.accept(request, body)
        except CancelledError:
            self._log_client_left(request)
            return
        except errors.ForemanError as failure:
            reply = family_reply(request.family, problem_of(failure), request.request_id)
        except Exception:  # noqa: BLE001 - any failure must be answered
            self._log.failure("making a job of a request to {path} failed", path=request.route.path)
            reply = family_reply(request.family, Problem(500, INTERNAL_ERROR), request.request_id)
        self._reply(request, reply)

    # reading

    @app.route("/jobs", methods=["GET"])
    async def list(self, request: ClientRequest) -> None:
        """List jobs, newest first."""
        page = query_params.page_request(request, sees_all=self._may_see_all(request))
        found = await self._store.list_jobs(page.filter, page.before, page.limit + 1, request.caller)
        jobs = found[: page.limit]
        next_page = request.own_path(page.next_after(jobs[-1].id)) if len(found) > page.limit else None
        value = {"jobs": await job_values(jobs, self._list_serializer.value, self._wakeups), "next": next_page}
        self._reply(request, json_reply(200, value))

    @app.route("/jobs/<string:id>", methods=["GET"])
    async def show(self, request: ClientRequest, id: str) -> None:  # noqa: A002 - the URL's own word
        """Show one job, at once or when it has ended."""
        wait = _wait_seconds(query_params.read(request, ("wait",)).get("wait"))
        job = await self._owned(request, id)
        if wait is not None:
            job = await self._wait_for_end(job, wait)
        self._reply(request, json_reply(200, job_value(job, self._models)))

    @app.route("/jobs/<string:id>/events", methods=["GET"])
    async def events(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Send the events of a job."""
        after, follows = _after(request, "follow"), _follows(request)
        job = await self._owned(request, id)
        await self._streams.events(request, job, after, follows=follows)
        self._log_access(request, request.code)

    @app.route("/jobs/<string:id>/stream", methods=["GET"])
    async def stream(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Stream the answer of a job, line by line."""
        after = _after(request)
        job = await self._owned(request, id)
        await self._streams.stream(request, job, after)
        self._log_access(request, request.code)

    # artifacts

    @app.route("/jobs/<string:id>/artifacts", methods=["GET"])
    async def artifacts(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """List the artifacts of a job."""
        job = await self._owned(request, id)
        self._reply(request, json_reply(200, {"artifacts": [artifact_value(info) for info in job.artifacts]}))

    @app.route("/jobs/<string:id>/artifacts/<string:name>", methods=["GET"])
    async def artifact(self, request: ClientRequest, id: str, name: str) -> None:  # noqa: A002
        """Send one artifact as a download."""
        job = await self._owned(request, id)
        found = await self._store.get_artifact(job.id, name, request.caller)
        if found is None:
            raise Problem(404, f"this job has no artifact {errors.excerpt(name)}")
        stall_timeout = self._limits.stall_timeout
        status = await artifacts.send(request, self._clock, stall_timeout, self._store, self._reader_limit, found)
        self._log_access(request, status)

    @app.route("/jobs/<string:id>/artifacts/<string:name>", methods=["PUT"])
    async def put_artifact(self, request: ClientRequest, id: str, name: str) -> None:  # noqa: A002
        """Store an artifact of the caller's with the job."""
        limit = self._limits.max_artifact
        artifacts.check_upload(request, name, limit)
        job = await self._owned(request, id)
        artifact = artifacts.from_request(request, name)
        info, is_new = await self._change(
            job.id, self._store.put_artifact(job.id, artifact, artifacts.MAX_PER_JOB * limit)
        )
        headers = [(b"Location", request.own_path(artifacts.artifact_path(job.id, name)).encode("ascii"))]
        self._reply(request, json_reply(201 if is_new else 200, artifact_value(info), headers))

    # changing

    @app.route("/jobs/<string:id>/cancel", methods=["POST"])
    async def cancel(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Cancel a job, and wait until it has ended."""
        job = await self._owned(request, id)
        job = await self._change(job.id, self._store.cancel(job.id))
        if job.state == "running":
            self._worker.cancel(job.id)
        job = await self._wait_for_end(job, CANCEL_WAIT)
        self._reply(request, json_reply(200 if job.ended else 202, job_value(job, self._models)))

    @app.route("/jobs", methods=["DELETE"])
    async def prune(self, request: ClientRequest) -> None:
        """Delete jobs that have ended; deleting stops when the client disconnects."""
        states, before = query_params.prune_filter(request, self._store.now())
        owner = None if self._may_see_all(request) else request.caller
        deleted = await prune.delete_jobs(self._store, self._wakeups, states, before, owner)
        self._reply(request, json_reply(200, {"deleted": deleted}))

    @app.route("/jobs/<string:id>/retry", methods=["POST"])
    async def retry(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Queue a job again."""
        job = await self._owned(request, id)
        await self._change(job.id, self._store.retry(job.id))
        self._reply(request, json_reply(200, job_value(await self._wait_for_end(job, 0), self._models)))

    @app.route("/jobs/<string:id>", methods=["DELETE"])
    async def delete(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Delete a job that has ended."""
        job = await self._owned(request, id)
        await self._change(job.id, self._store.delete(job.id))
        self._reply(request, Reply(204, [], b""))

    # failures

    @app.handle_errors(CancelledError)
    def handle_client_left(self, request: IRequest, failure: Failure) -> None:
        """The client has disconnected: log that, and send no answer."""
        self._log_client_left(cast("ClientRequest", request))

    @app.handle_errors(Exception)
    def handle_failure(self, request: IRequest, failure: Failure) -> None:
        """Answer with a problem; an answer that has begun is cut, so that no reader takes it for complete."""
        client_request, problem = cast("ClientRequest", request), failure.value
        if not isinstance(problem, errors.ForemanError):
            self._log.failure("answering {path} failed", failure, path=client_request.route.path)
            problem = Problem(500, INTERNAL_ERROR)
        if not client_request.startedWriting:
            self._reply(client_request, problem_reply(problem_of(problem)))
            return
        # Lines are written whole. A chunked answer is cut without its last chunk, so that its reader reconnects; where the
        # answer ends with the connection (HTTP/1.0), only a last line can report the error.
        client_request.break_off(problem, between_pieces=not client_request.chunked)
        self._log_access(client_request, client_request.code, "incomplete", str(problem))

    # helpers of the routes

    def _may_see_all(self, request: ClientRequest) -> bool:
        return request.admin or not self._auth.tokens.required

    async def _owned(self, request: ClientRequest, text: str) -> Job:
        """The job with this id, if the caller may see it.

        :raises Problem: if there is none, or it belongs to somebody else.
        """
        id_ = query_params.ulid(text)
        job = None if id_ is None else await self._store.get(str(id_))
        if job is None or not (job.owner == request.caller or self._may_see_all(request)):
            raise no_such_job(text)
        return job

    async def _change(self, id_: str, change: Awaitable[T]) -> T:
        """The result of ``change``; a job that was deleted meanwhile is reported as missing, not as in the wrong state."""
        try:
            return await change
        except WrongState:
            if await self._store.get(id_) is None:
                raise no_such_job(id_) from None
            raise

    async def _wait_for_end(self, job: Job, seconds: float) -> Job:
        """The job once it has ended, or as it is after ``seconds``."""
        deadline = self._clock.seconds() + seconds
        while True:
            with cancelling(self._store.notifications.when_changed(job.id)) as notification:
                current = await self._store.get(job.id)
                if current is None:
                    raise no_such_job(job.id)
                remaining = deadline - self._clock.seconds()
                if current.ended or remaining <= 0 or self._wakeups.closed:
                    return current
                await self._wakeups.first_of(notification, seconds=remaining)

    # replies and the access log

    def _reply(self, request: ClientRequest, reply: Reply) -> None:
        request.answer(reply)
        self._log_access(request, reply.status)

    def _log_client_left(self, request: ClientRequest) -> None:
        self._log_access(request, request.code if request.startedWriting else 0, "client left")

    def _log_access(
        self, request: ClientRequest, status: int, outcome: Outcome | None = None, detail: str = ""
    ) -> None:
        record = request.new_record(status=status)
        record.detail = detail
        record.outcome = outcome or ("refused" if status >= 400 else "complete")
        self._observer.request_finished(record)


def _after(request: ClientRequest, *also_allowed: str) -> str | None:
    """The id after which a reader resumes. A browser that reconnects sends it as a header and repeats its first query."""
    after = query_params.read(request, ("after", *also_allowed)).get("after")
    return request_headers.first_header(request, b"last-event-id", "") or after


def _follows(request: ClientRequest) -> bool:
    follow = query_params.read(request, ("after", "follow")).get("follow", "1")
    if follow not in {"0", "1"}:
        raise Problem(400, "follow: must be 0 or 1")
    return follow == "1"


def _wait_seconds(text: str | None) -> float | None:
    if text is None:
        return None
    # Programs write a remaining time with all its digits, and with an exponent when it is nearly over.
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?", text, re.ASCII):
        raise Problem(400, f"wait: must be a number of seconds; more than {MAX_WAIT:g} count as {MAX_WAIT:g}")
    return min(float(text), MAX_WAIT)
