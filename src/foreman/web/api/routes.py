"""Every URL that foreman answers; what it does not know goes to the target as it is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from attrs import define, field
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from foreman import errors
from foreman.protocol.body_values import UNPACK_BUDGET
from foreman.protocol.endpoints import Lane
from foreman.protocol.headers import to_client
from foreman.protocol.request_body import Intent, RequestBody
from foreman.proxy.access_record import outcome_of
from foreman.proxy.inference import Inference
from foreman.proxy.observer import Observer
from foreman.proxy.target import Target
from foreman.scheduling.policy import Ticket
from foreman.store.job_store import JobStore
from foreman.target.model_list import ModelList
from foreman.util.byte_budget import ByteBudget
from foreman.util.clock import EpochSeconds
from foreman.util.cooperator import LARGE, SMALL, run_in_slices
from foreman.util.slices import Slices
from foreman.web.api.detach import DetachedResponse
from foreman.web.api.forwarding import read_body, target_request
from foreman.web.api.queue_view import QueueView
from foreman.web.api.responder import ClientResponder
from foreman.web.jobs.request_headers import wants_job
from foreman.web.jobs.routes import JobsApi
from foreman.web.openapi import document as openapi
from foreman.web.server.heartbeat import HeartbeatPolicy, QueueHeartbeat
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply, error_reply, failure_reply, json_reply

#: A chat that has waited this long for its first byte is worth a warning, in seconds.
LONG_LOAD = 15 * 60.0


@define(eq=False)
class Api:
    """The routes.

    :ivar wall_clock: seconds since the epoch; :ivar poll_interval: seconds, what a client is told to wait while the
        target is away; :ivar jobs: makes jobs of the requests that ask for it; :ivar draining: foreman is stopping.
    """

    _clock: IReactorTime
    _wall_clock: Callable[[], float]
    _target: Target
    _inference: Inference
    _cooperator: Cooperator
    _observer: Observer
    _poll_interval: float
    _notices: HeartbeatPolicy
    _jobs: JobsApi | None = None
    _store: JobStore | None = None
    draining: bool = False
    _queue: QueueView = field(init=False)
    _room: ByteBudget = field(factory=lambda: ByteBudget(UNPACK_BUDGET), init=False)
    app = Klein()
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._queue = QueueView(self._clock, self._wall_clock, self._target, self._store)

    @property
    def _retry_after(self) -> int:
        return max(1, round(self._poll_interval))

    # foreman's own

    @app.route("/", methods=["GET", "HEAD"])
    def root(self, request: ClientRequest) -> None:
        """Byte-identical to Ollama's, for the probes of its clients."""
        self._reply(request, Reply(200, [(b"Content-Type", b"text/plain; charset=utf-8")], b"Ollama is running"))

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(self, request: ClientRequest) -> None:
        """Whether foreman and its target are well."""
        value: dict[str, Any] = {"status": "draining" if self.draining else "ok", "degraded": False}
        degraded = self._target.inventory.degraded
        overdue = self._target.queue_status.overdue_since(LONG_LOAD)
        if degraded is not None:
            value |= {"degraded": True, "reason": degraded.reason, "since": self._queue.when(degraded.since)}
        elif held := min(self._target.inventory.held.values(), key=lambda one: one[1], default=None):
            value |= {"reason": "jobs_held", "since": self._queue.when(held[1])}
        elif overdue is not None:
            value |= {"reason": "slow", "since": self._queue.when(overdue)}
        elif (problem := self._queue.store_problem()) is not None:
            value |= {"reason": problem[0], "since": problem[1]}
        self._reply(request, json_reply(503 if self.draining else 200, value))

    @app.route("/openapi.json", methods=["GET", "HEAD"])
    def openapi(self, request: ClientRequest) -> None:
        """What foreman's own routes take and answer, for programs."""
        self._reply(request, Reply(200, [(b"Content-Type", b"application/json")], openapi.BYTES))

    @app.route("/queue", methods=["GET"])
    async def queue(self, request: ClientRequest) -> None:
        """Who has a turn, and who waits, in order, and how many jobs there are; never what they ask."""
        self._reply(request, json_reply(200, await self._queue.shown()))

    @app.route("/queue/<string:id>", methods=["DELETE"])
    def cancel(self, request: ClientRequest, id: str) -> None:  # noqa: A002 - the URL's own word
        """Cancel a request that waits or runs: one's own, or any as an admin."""
        if self._inference.cancel(id, lambda caller: request.admin or caller == request.caller):
            self._reply(request, Reply(204, [], b""))
        else:
            text = f"no request {errors.excerpt(id)} of yours waits or runs"
            self._reply(request, error_reply("ollama", 404, text, request.request_id))

    # from the inventory

    @app.route("/api/tags", methods=["GET", "HEAD"])
    async def tags(self, request: ClientRequest) -> None:
        """The models that are installed, as the target listed them last."""
        await self._target.inventory.until_fresh()
        await self._listing(request, self._target.inventory.tags)

    @app.route("/api/ps", methods=["GET"])
    async def ps(self, request: ClientRequest) -> None:
        """The models that are loaded, as the target listed them last."""
        await self._target.inventory.until_fresh()
        await self._listing(request, self._target.inventory.ps)

    # to the target

    @app.route("/api/chat", methods=["POST"])
    @app.route("/api/generate", methods=["POST"])
    @app.route("/v1/chat/completions", methods=["POST"])
    @app.route("/v1/completions", methods=["POST"])
    @app.route("/v1/responses", methods=["POST"])
    @app.route("/v1/responses/compact", methods=["POST"])
    @app.route("/v1/images/generations", methods=["POST"])
    @app.route("/v1/images/edits", methods=["POST"])
    @app.route("/v1/messages", methods=["POST"])
    @app.route("/v1/audio/transcriptions", methods=["POST"])
    @app.route("/api/embed", methods=["POST"])
    @app.route("/api/embeddings", methods=["POST"])
    @app.route("/v1/embeddings", methods=["POST"])
    def infer(self, request: ClientRequest) -> DetachedResponse:
        """Chats take turns; embeddings pass beside them."""
        reading = read_body(request, self._room)
        if request.content.length <= SMALL and not request.headers_named(b"content-encoding"):
            try:
                next(reading)
            except StopIteration as finished:  # as for nearly every body
                return DetachedResponse(self._run(request, finished.value))
        return DetachedResponse(self._read_and_run(request, reading))

    @app.route("/", methods=None)
    @app.route("/<path:_>", methods=None)
    def forward(self, request: ClientRequest, _: str = "") -> DetachedResponse:
        """Everything else goes through at once; the target says what it is."""
        return DetachedResponse(self._ask(request, None))

    async def _read_and_run(self, request: ClientRequest, reading: Slices[RequestBody]) -> None:
        try:
            wanted = await run_in_slices(self._cooperator, reading, LARGE)
        except CancelledError:
            record = request.new_record()
            record.outcome = "client left"
            self._observer.request_finished(record)
        except errors.ForemanError as problem:
            self.failed(request, Failure(problem))
        except Exception:  # noqa: BLE001 - whatever it was, the client is told that something was
            self.surprised(request, Failure())
        else:
            await self._run(request, wanted)

    def _run(self, request: ClientRequest, wanted: RequestBody) -> Coroutine[Any, Any, None]:
        if self._jobs is not None and wants_job(request):
            return self._jobs.accept(request, wanted)
        return self._ask(request, wanted)

    async def _ask(self, request: ClientRequest, wanted: RequestBody | None) -> None:
        route = request.route
        model = wanted.model if wanted is not None else None
        record = request.new_record(model)
        ticket = Ticket(request.id, request.caller, model, route.path, EpochSeconds(self._wall_clock()))
        view = None
        if wanted is not None and wanted.readable and wanted.intent is Intent.RUN:
            view = QueueHeartbeat(self._clock, self._wall_clock, request, wanted, self._notices)
        client = ClientResponder(request, record, view)
        try:
            await self._inference.run(target_request(request, wanted), client, record, ticket)
        except CancelledError:
            record.outcome = "client left"
            if request.refusal is not None:  # its body could not be read to the end
                record.outcome, record.status = "refused", request.refusal.status
        except errors.ForemanError as problem:
            record.outcome = outcome_of(problem)
            record.detail = str(problem)
            record.status = client.fail(problem, self._retry_after)
        except Exception:  # noqa: BLE001 - whatever it was, the client is told that something was
            record.status, record.outcome, record.detail = 500, "refused", "foreman failed to answer"
            self.surprised(request, Failure())
        finally:
            client.stop_waiting()
            self._observer.request_finished(record)
        if route.lane is Lane.MANAGEMENT and record.status < 300:
            self._target.inventory.refresh()

    # failures

    @app.handle_errors(CancelledError)
    def client_left(self, request: IRequest, failure: Failure) -> None:
        """Nobody is there any more to be answered."""

    @app.handle_errors(errors.ForemanError)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """A body that Ollama would refuse at once."""
        client_request, problem = cast("ClientRequest", request), cast("errors.ForemanError", failure.value)
        self._reply(
            client_request, failure_reply(client_request.family, problem, client_request.request_id, self._retry_after)
        )

    @app.handle_errors(Exception)
    def surprised(self, request: IRequest, failure: Failure) -> None:
        """What nobody foresaw is logged whole, and answered without details."""
        client_request = cast("ClientRequest", request)
        self._log.failure("answering {path} failed", failure, path=client_request.route.path)
        problem = errors.ForemanError("foreman failed to answer this; its log says why")
        if client_request.startedWriting:
            client_request.break_off(problem, between_pieces=False)
        else:
            client_request.answer(
                failure_reply(client_request.family, problem, client_request.request_id, self._retry_after)
            )

    # answers

    def _reply(self, request: ClientRequest, reply: Reply) -> None:
        request.answer(reply)
        self._log_own(request, reply.status)

    def _log_own(self, request: ClientRequest, status: int) -> None:
        self._observer.request_finished(request.own_record(status))

    async def _listing(self, request: ClientRequest, listing: ModelList | None) -> None:
        inventory = self._target.inventory
        if listing is None and inventory.degraded is None and request.route.path in inventory.missing:
            await self._ask(request, None)  # what the target says instead of this list is its own affair
            return
        if listing is None:
            text = "foreman has not reached its target yet: no models are known"
            headers = [(b"Retry-After", b"%d" % self._retry_after)]
            self._reply(request, error_reply("ollama", 503, text, request.request_id, headers=headers))
            return
        request.begin(200, b"OK", to_client(listing.headers), "other")
        request.write(listing.body)
        request.finish()
        self._log_own(request, 200)
