"""Every URL of jobs, and the requests elsewhere that become jobs."""

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
from foreman.web.jobs.artifact_reader import Readers
from foreman.web.jobs.method_guard import MethodGuard
from foreman.web.jobs.problems import Problem, family_reply, no_such_job, problem_of, problem_reply
from foreman.web.jobs.serialization import Listed, Models, artifact_value, job_value, job_values
from foreman.web.jobs.streaming import JobStreams, RunningJobs
from foreman.web.jobs.submit import JobLimits, Submissions
from foreman.web.jobs.wakeups import Wakeups
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply, json_reply

T = TypeVar("T")

#: How long a request may wait for its job to end, and one to cancel for the worker to have stopped; seconds.
LONGEST_WAIT, CANCEL_PATIENCE = 300.0, 5.0
_SURPRISE = "foreman failed to answer this; its log says why"


@define(eq=False)
class JobsApi:
    """The routes.

    :ivar models: the inventory; :ivar auth: everybody sees all jobs where it requires no token;
    :ivar cooperator: where the reading of large bodies takes turns with all other work of that kind.
    """

    _clock: IReactorTime
    _store: JobStore
    _worker: RunningJobs
    _models: Models
    _observer: Observer
    _limits: JobLimits
    _auth: AuthPolicy
    _cooperator: Cooperator
    _listed: Listed = field(init=False)
    _readers: Readers = field(factory=Readers, init=False)
    _wakeups: Wakeups = field(init=False)
    _submissions: Submissions = field(init=False)
    _streams: JobStreams = field(init=False)
    app = Klein()
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._listed = Listed(self._models)
        self._wakeups = Wakeups(self._clock)
        self._submissions = Submissions(self._store, self._models, self._wakeups, self._limits, self._cooperator)
        patience = self._limits.stall_timeout
        self._streams = JobStreams(self._clock, self._store, self._worker, self._wakeups, self._readers, patience)

    def resource(self) -> IResource:
        """What answers everything below ``/jobs``."""
        return MethodGuard(self.app.resource(), self._reply)

    def close(self) -> None:
        """foreman stops: take no more jobs, and let go of everybody who waits or follows."""
        self._wakeups.close()

    # handing over

    @app.route("/jobs", methods=["POST"])
    async def submit(self, request: ClientRequest) -> None:
        """Take a job, or an array of them."""
        self._reply(request, await self._submissions.submit(request))

    async def accept(self, client_request: ClientRequest, wanted: RequestBody) -> None:
        """Make a job of a request to another route, whose errors are its family's.

        :param wanted: what its body asks for.
        """
        try:
            reply = await self._submissions.accept(client_request, wanted)
        except CancelledError:
            self._left(client_request)
            return
        except errors.ForemanError as failure:
            reply = family_reply(client_request.family, problem_of(failure), client_request.request_id)
        except Exception:  # noqa: BLE001 - whatever it was, the client is told that something was
            self._log.failure("making a job of {path} failed", path=client_request.route.path)
            reply = family_reply(client_request.family, Problem(500, _SURPRISE), client_request.request_id)
        self._reply(client_request, reply)

    # looking

    @app.route("/jobs", methods=["GET"])
    async def list(self, request: ClientRequest) -> None:
        """The jobs, newest first."""
        page = query_params.page(request, sees_all=self._may_see_all(request))
        found = await self._store.list_jobs(page.wanted, page.before, page.limit + 1, request.caller)
        jobs = found[: page.limit]
        next_page = request.own_path(page.next_after(jobs[-1].id)) if len(found) > page.limit else None
        value = {"jobs": await job_values(jobs, self._listed.value, self._wakeups), "next": next_page}
        self._reply(request, json_reply(200, value))

    @app.route("/jobs/<string:id>", methods=["GET"])
    async def show(self, request: ClientRequest, id: str) -> None:  # noqa: A002 - the URL's own word
        """One job, at once or when it has ended."""
        wait = _seconds(query_params.parameters(request, ("wait",)).get("wait"))
        job = await self._owned(request, id)
        if wait is not None:
            job = await self._ended(job, wait)
        self._reply(request, json_reply(200, job_value(job, self._models)))

    @app.route("/jobs/<string:id>/events", methods=["GET"])
    async def events(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """What happens to it."""
        after, follows = _after(request, "follow"), _follows(request)
        job = await self._owned(request, id)
        await self._streams.events(request, job, after, follows=follows)
        self._log_own(request, request.code)

    @app.route("/jobs/<string:id>/stream", methods=["GET"])
    async def stream(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """What it says."""
        after = _after(request)
        job = await self._owned(request, id)
        await self._streams.stream(request, job, after)
        self._log_own(request, request.code)

    # artifacts

    @app.route("/jobs/<string:id>/artifacts", methods=["GET"])
    async def artifacts(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """What belongs to it."""
        job = await self._owned(request, id)
        self._reply(request, json_reply(200, {"artifacts": [artifact_value(one) for one in job.artifacts]}))

    @app.route("/jobs/<string:id>/artifacts/<string:name>", methods=["GET"])
    async def artifact(self, request: ClientRequest, id: str, name: str) -> None:  # noqa: A002
        """One of these, as a download."""
        job = await self._owned(request, id)
        found = await self._store.get_artifact(job.id, name, request.caller)
        if found is None:
            raise Problem(404, f"this job has no artifact {errors.excerpt(name)}")
        patience = self._limits.stall_timeout
        status = await artifacts.send(request, self._clock, patience, self._store, self._readers, found)
        self._log_own(request, status)

    @app.route("/jobs/<string:id>/artifacts/<string:name>", methods=["PUT"])
    async def keep(self, request: ClientRequest, id: str, name: str) -> None:  # noqa: A002
        """Keep one of the caller's with it."""
        most = self._limits.max_artifact
        artifacts.check_received(request, name, most)
        job = await self._owned(request, id)
        artifact = artifacts.received(request, name)
        info, is_new = await self._changing(
            job.id, self._store.put_artifact(job.id, artifact, artifacts.OF_A_JOB * most)
        )
        headers = [(b"Location", request.own_path(artifacts.path_of(job.id, name)).encode("ascii"))]
        self._reply(request, json_reply(201 if is_new else 200, artifact_value(info), headers))

    # changing

    @app.route("/jobs/<string:id>/cancel", methods=["POST"])
    async def cancel(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """End it, and see that it has ended."""
        job = await self._owned(request, id)
        job = await self._changing(job.id, self._store.cancel(job.id))
        if job.state == "running":
            self._worker.cancel(job.id)
        job = await self._ended(job, CANCEL_PATIENCE)
        self._reply(request, json_reply(200 if job.ended else 202, job_value(job, self._models)))

    @app.route("/jobs", methods=["DELETE"])
    async def prune(self, request: ClientRequest) -> None:
        """Forget many that have ended; who leaves stops it."""
        states, before = query_params.pruned(request, self._store.now())
        owner = None if self._may_see_all(request) else request.caller
        deleted = await prune.forget(self._store, self._wakeups, states, before, owner)
        self._reply(request, json_reply(200, {"deleted": deleted}))

    @app.route("/jobs/<string:id>/retry", methods=["POST"])
    async def retry(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Queue it again."""
        job = await self._owned(request, id)
        await self._changing(job.id, self._store.retry(job.id))
        self._reply(request, json_reply(200, job_value(await self._ended(job, 0), self._models)))

    @app.route("/jobs/<string:id>", methods=["DELETE"])
    async def delete(self, request: ClientRequest, id: str) -> None:  # noqa: A002
        """Forget it."""
        job = await self._owned(request, id)
        await self._changing(job.id, self._store.delete(job.id))
        self._reply(request, Reply(204, [], b""))

    # failures

    @app.handle_errors(CancelledError)
    def client_left(self, request: IRequest, failure: Failure) -> None:
        """Nobody is there any more to be answered."""
        self._left(cast("ClientRequest", request))

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """Whatever it is, it is told as a problem; what has begun is cut, so that nobody takes it for whole."""
        client_request, problem = cast("ClientRequest", request), failure.value
        if not isinstance(problem, errors.ForemanError):
            self._log.failure("answering {path} failed", failure, path=client_request.route.path)
            problem = Problem(500, _SURPRISE)
        if not client_request.startedWriting:
            self._reply(client_request, problem_reply(problem_of(problem)))
            return
        # Lines are written whole. A reader of chunks is cut off without the last one, so that it comes back; to one whose
        # answer ends with the connection only a line can say it.
        client_request.break_off(problem, between_pieces=not client_request.chunked)
        self._log_own(client_request, client_request.code, "incomplete", str(problem))

    # what the routes share

    def _may_see_all(self, client_request: ClientRequest) -> bool:
        return client_request.admin or not self._auth.tokens.required

    async def _owned(self, client_request: ClientRequest, text: str) -> Job:
        """The job of that id, if whoever asks may see it.

        :raises Problem: if not.
        """
        id_ = query_params.ulid(text)
        job = None if id_ is None else await self._store.get(str(id_))
        if job is None or not (job.owner == client_request.caller or self._may_see_all(client_request)):
            raise no_such_job(text)
        return job

    async def _changing(self, id_: str, change: Awaitable[T]) -> T:
        """What ``change`` gives; a job that is gone meanwhile is not said to be in a wrong state."""
        try:
            return await change
        except WrongState:
            if await self._store.get(id_) is None:
                raise no_such_job(id_) from None
            raise

    async def _ended(self, job: Job, seconds: float) -> Job:
        """The job when it has ended, or as it is after ``seconds``."""
        over = self._clock.seconds() + seconds
        while True:
            with cancelling(self._store.notifications.when_changed(job.id)) as bell:
                now = await self._store.get(job.id)
                if now is None:
                    raise no_such_job(job.id)
                left = over - self._clock.seconds()
                if now.ended or left <= 0 or self._wakeups.closed:
                    return now
                await self._wakeups.first_of(bell, seconds=left)

    # answers

    def _reply(self, client_request: ClientRequest, reply: Reply) -> None:
        client_request.answer(reply)
        self._log_own(client_request, reply.status)

    def _left(self, client_request: ClientRequest) -> None:
        self._log_own(client_request, client_request.code if client_request.startedWriting else 0, "client left")

    def _log_own(
        self, client_request: ClientRequest, status: int, outcome: Outcome | None = None, detail: str = ""
    ) -> None:
        record = client_request.new_record(status=status)
        record.detail = detail
        record.outcome = outcome or ("refused" if status >= 400 else "complete")
        self._observer.request_finished(record)


def _after(client_request: ClientRequest, *others: str) -> str | None:
    """Where a reader goes on; a browser that comes back says it in a header, and repeats its first query."""
    after = query_params.parameters(client_request, ("after", *others)).get("after")
    return request_headers.header(client_request, b"last-event-id", "") or after


def _follows(client_request: ClientRequest) -> bool:
    follow = query_params.parameters(client_request, ("after", "follow")).get("follow", "1")
    if follow not in {"0", "1"}:
        raise Problem(400, "follow: must be 0 or 1")
    return follow == "1"


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    # As programs write what is left of a time: with all its digits, and with an exponent where it is nearly over.
    if not re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?", text, re.ASCII):
        raise Problem(400, f"wait: must be a number of seconds, up to {LONGEST_WAIT:g}")
    return min(float(text), LONGEST_WAIT)
