"""``/jobs`` without a target: the real store and the real HTTP server on loopback sockets, and a fake worker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from ulid import ULID

from foreman.auth.policy import AuthPolicy
from foreman.auth.tokens import Holder, Tokens, digest
from foreman.jobs.artifacts import Artifact
from foreman.jobs.job import Claim, Job, JobError
from foreman.jobs.retry_policy import AttemptError, Transition, next_transition
from foreman.protocol import model_names
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.target.models import Availability
from foreman.util.cooperator import cooperator
from foreman.web.jobs.routes import JobsApi
from foreman.web.jobs.submit import JobLimits
from foreman.web.server.access_log import AccessLog
from foreman.web.server.admission import Admission
from foreman.web.server.factory import ConnectionFactory
from foreman.web.server.origins import OriginPolicy
from foreman.web.server.responses import HttpDate
from foreman.worker.live_output import LiveOutput
from support import raw_http
from support.live_foreman import listen, port_of, reactor, settings

ALICE, BOB, ADMIN = "alice-token-of-sixteen", "bob-token-of-sixteen-1", "admin-token-of-sixteen"
CHAT: dict[str, Any] = {"endpoint": "/api/chat", "payload": {"model": "m", "messages": [{"role": "user"}]}}
#: Larger than what the sockets between a test and foreman hold.
LARGE = 24 * 1024 * 1024
LIMITS = JobLimits(max_payload=100_000, max_artifact=LARGE, stall_timeout=5.0)


async def until(condition: Callable[[], Any]) -> None:
    """Run the reactor until ``condition`` is true."""
    for _ in range(1000):
        if condition():
            return
        await deferLater(reactor, 0.005)
    raise AssertionError("never")


@define(eq=False)
class FakeWorker:
    """A worker that the test plays.

    :ivar outputs: the live lines by job; :ivar cancelled: the jobs that were cancelled; :ivar on_cancel: called for each.
    """

    outputs: dict[str, LiveOutput] = field(factory=dict)
    cancelled: list[str] = field(factory=list)
    on_cancel: Callable[[str], None] = lambda _: None

    def output_of(self, id_: str) -> LiveOutput | None:
        return self.outputs.get(id_)

    def cancel(self, id_: str) -> None:
        self.cancelled.append(id_)
        self.on_cancel(id_)


@define(eq=False)
class FakeModels:
    """A target that has the model ``m``, and ``cloudy`` in the cloud.

    :ivar away: it cannot be asked; :ivar looks: how often it was asked.
    """

    installed: set[str] = field(factory=lambda: {"m"})
    away: bool = False
    lookups: int = 0
    held: dict[str, str] = field(factory=dict)

    def find(self, typed: str) -> Availability:
        name = model_names.parse(typed)
        if name.is_cloud or name.model == "cloudy":
            return Availability.CLOUD
        return Availability.INSTALLED if name.model in self.installed else Availability.MISSING

    async def look_for(self, typed: str) -> Availability:
        self.lookups += 1
        return Availability.UNKNOWN if self.away else self.find(typed)

    def why_held(self, lane: str) -> str | None:
        return self.held.get(lane)


@define(eq=False)
class JobsApiHarness:
    """A store and ``/jobs`` in front of it."""

    store: SQLiteJobStore
    worker: FakeWorker
    models: FakeModels
    api: JobsApi
    port: int
    connections: ConnectionFactory

    async def ask(
        self, method: str, path: str, body: Any = b"", *headers: tuple[str, str], token: str = ALICE
    ) -> raw_http.Response:
        """One request with a token, and the whole response."""
        return await raw_http.ask(self.port, self.request(method, path, body, *headers, token=token), method)

    def request(self, method: str, path: str, body: Any = b"", *headers: tuple[str, str], token: str = ALICE) -> bytes:
        """The bytes of a request with a token."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        length = [] if data or method == "POST" else [("Content-Length", "0")] if method == "PUT" else []
        return raw_http.request(method, path, data, [("Authorization", f"Bearer {token}"), *length, *headers])

    async def submit(self, **more: Any) -> str:
        """Submit a job as Alice; returns its id."""
        answer = await self.ask("POST", "/jobs", {**CHAT, **more})
        assert answer.status == 201, answer.body
        id_: str = json.loads(answer.body)["id"]
        return id_

    async def run(self, id_: str) -> tuple[Claim, LiveOutput]:
        """Claim the job, which is the only one, as the worker would."""
        claim = await self.store.claim("gate", lambda _: 0)
        assert claim is not None
        assert claim.job.id == id_
        output = self.worker.outputs[id_] = LiveOutput(claim.job.fence)
        self.store.notifications.announce(frozenset((id_,)), False)
        return claim, output

    async def succeed(self, claim: Claim, output: LiveOutput) -> None:
        """End a job with a response."""
        lines = b"".join(output.lines)
        stream = Artifact("stream", "application/x-ndjson", lines)
        await self.store.succeed(claim, [stream, Artifact("response", "application/json", b'{"done":true}')], None)
        self._over(claim, output)

    async def fail(self, claim: Claim, output: LiveOutput, mishap: AttemptError, *, partial: bool = True) -> Job:
        """End an attempt with a failure."""
        left = [Artifact("partial", "application/x-ndjson", b"".join(output.lines))] if partial else []
        job = await self.store.end_attempt(claim, lambda job, now: next_transition(job, mishap, now, 0), left)
        self._over(claim, output)
        return job

    async def try_again(self, claim: Claim, output: LiveOutput) -> None:
        """End an attempt with a failure, and queue the job at once."""
        error = JobError("truncated", "it broke off", 1)
        left = Artifact("partial", "application/x-ndjson", b"".join(output.lines))
        await self.store.end_attempt(claim, lambda _job, _now: Transition("queued", None, True, 0, error), [left])
        self._over(claim, output)

    def _over(self, claim: Claim, output: LiveOutput) -> None:
        self.worker.outputs.pop(claim.job.id, None)
        output.end()


@asynccontextmanager
async def jobs_api_harness(
    folder: Path, *, is_open: bool = False, limits: JobLimits = LIMITS, jobs: int = 100
) -> AsyncIterator[JobsApiHarness]:
    """A store in ``folder`` and ``/jobs`` in front of it; ``is_open``: no token is required."""
    wall_clock = reactor.seconds
    database = Database(reactor, folder / "jobs.db", str(ULID()), wall_clock, Notifications())
    store = SQLiteJobStore(database, ULID, jobs)
    database.open()
    database.start()
    worker, models = FakeWorker(), FakeModels()
    log = AccessLog(reactor)
    holders = (
        Holder("alice", digest(ALICE)), Holder("bob", digest(BOB)), Holder("root", digest(ADMIN), admin=True),
    )  # fmt: skip
    auth = AuthPolicy(Tokens(holders, required=not is_open))
    api = JobsApi(reactor, store, worker, models, log, limits, auth, cooperator(reactor))
    config = settings(1)
    admission = Admission(config, auth, OriginPolicy(), ULID)
    connections = ConnectionFactory(Resource(), reactor, config, admission, HttpDate(wall_clock), log, api.resource())
    listening = listen(connections)
    try:
        yield JobsApiHarness(store, worker, models, api, port_of(listening), connections)
    finally:
        stopped: Any = listening.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
        api.close()
        for connection in list(connections.open):
            connection.abort()
        await connections.open.when_empty()
        await database.stop()
        log.flush()


def problem(answer: raw_http.Response) -> dict[str, Any]:
    """The problem (RFC 9457) in a response."""
    assert answer.header("Content-Type") == "application/problem+json", answer
    value: dict[str, Any] = json.loads(answer.body)
    assert list(value)[:4] == ["type", "title", "status", "detail"]
    assert value["status"] == answer.status
    return value


def pointers(answer: raw_http.Response) -> Sequence[str]:
    """The JSON pointers of the errors in a problem."""
    return [error["pointer"] for error in problem(answer)["errors"]]


def line(number: int) -> bytes:
    """One line of a response."""
    return b'{"response":"%d","done":false}\n' % number


def values(body: bytes) -> list[Any]:
    """The values of NDJSON, as a strict client reads them: a blank line is an error."""
    return [json.loads(text) for text in body.decode().split("\n")[:-1]]


def events(body: bytes) -> list[tuple[str, str, Any]]:
    """Type, id and data of each event, as a browser reads them."""
    found = []
    for block in body.decode().split("\n\n"):
        pairs = [text.partition(":")[::2] for text in block.split("\n") if text]
        fields = {name: text.strip() for name, text in pairs}
        if "data" in fields:
            found.append((fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])))
    return found


JobsApiTest = Callable[[JobsApiHarness], Awaitable[None]]


JOB_MEMBERS = (
    "id state endpoint model owner priority metadata run_at deadline attempt max_attempts idempotency_key created_at "
    "started_at finished_at position error usage artifacts"
).split()


def with_jobs_api(body: JobsApiTest) -> Callable[[Path], Any]:
    """A test that gets a ``JobsApiHarness``, which is stopped after it."""

    async def test(tmp_path: Path) -> None:
        async with jobs_api_harness(tmp_path) as bench:
            await body(bench)

    test.__name__ = getattr(body, "__name__", "")
    wrapped: Callable[[Path], Any] = pytest_twisted.ensureDeferred(test)
    return wrapped


def json_of(answer: raw_http.Response) -> Any:
    """The JSON body of a response."""
    assert answer.header("Content-Type") == "application/json; charset=utf-8", answer
    return json.loads(answer.body)
