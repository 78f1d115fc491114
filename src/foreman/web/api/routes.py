"""The routes of foreman; every other path is relayed to the target unchanged."""

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
from foreman.protocol.body_values import DECOMPRESSED_TOTAL
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
from foreman.web.api.forwarding import parse_body, target_request
from foreman.web.api.queue_view import QueueView
from foreman.web.api.responder import ClientResponder
from foreman.web.jobs.problems import INTERNAL_ERROR
from foreman.web.jobs.request_headers import wants_job
from foreman.web.jobs.routes import JobsApi
from foreman.web.openapi import document as openapi
from foreman.web.server.heartbeat import HeartbeatPolicy, QueueHeartbeat
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply, error_reply, failure_reply, json_reply

#: A chat that has waited this long for its first byte makes ``/healthz`` report ``slow``; in seconds.
SLOW_LOAD = 15 * 60.0


@define(eq=False)
class Api:
    """The Klein app of everything but ``/jobs``.

    :ivar wall_clock: seconds since the epoch; :ivar cooperator: runs the parsing of large bodies in slices;
    :ivar poll_interval: in seconds, the ``Retry-After`` while the target cannot be reached;
    :ivar jobs: makes jobs of requests with ``Prefer: respond-async``; :ivar draining: foreman is stopping.
    """

    _clock: IReactorTime
    _wall_clock: Callable[[], float]
    _target: Target
    _inference: Inference
    _cooperator: Cooperator
    _observer: Observer
    _poll_interval: float
    _heartbeat_policy: HeartbeatPolicy
    _jobs: JobsApi | None = None
    _store: JobStore | None = None
    draining: bool = False
    _queue_view: QueueView = field(init=False)
    _body_budget: ByteBudget = field(factory=lambda: ByteBudget(DECOMPRESSED_TOTAL), init=False)
    app = Klein()
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._queue_view = QueueView(self._clock, self._wall_clock, self._target, self._store)

    @property
    def _retry_after(self) -> int:
        return max(1, round(self._poll_interval))

    # foreman's own routes

    @app.route("/", methods=["GET", "HEAD"])
    def root(self, request: ClientRequest) -> None:
        """Answer as Ollama does, byte for byte, because its clients probe this path."""
        self._reply(request, Reply(200, [(b"Content-Type", b"text/plain; charset=utf-8")], b"Ollama is running"))

    @app.route("/healthz", methods=["GET", "HEAD"])
    def healthz(self, request: ClientRequest) -> None:
        """Report the health of foreman and its target."""
        value: dict[str, Any] = {"status": "draining" if self.draining else "ok", "degraded": False}
        degraded = self._target.inventory.degraded
        slow_since = self._target.queue_status.overdue_since(SLOW_LOAD)
        if degraded is not None:
            value |= {"degraded": True, "reason": degraded.reason, "since": self._queue_view.timestamp(degraded.since)}
        elif held := min(self._target.inventory.held.values(), key=lambda hold: hold[1], default=None):
            value |= {"reason": "jobs_held", "since": self._queue_view.timestamp(held[1])}
        elif slow_since is not None:
            value |= {"reason": "slow", "since": self._queue_view.timestamp(slow_since)}
        elif (problem := self._queue_view.store_problem()) is not None:
            value |= {"reason": problem[0], "since": problem[1]}
        self._reply(request, json_reply(503 if self.draining else 200, value))

    @app.route("/openapi.json", methods=["GET", "HEAD"])
    def openapi(self, request: ClientRequest) -> None:
        """Send the OpenAPI document of foreman's own routes."""
        self._reply(request, Reply(200, [(b"Content-Type", b"application/json")], openapi.BYTES))

    @app.route("/queue", methods=["GET"])
    async def queue(self, request: ClientRequest) -> None:
        """Show the running requests, the queue in its order, and the counts of jobs; never the content of a request."""
        self._reply(request, json_reply(200, await self._queue_view.value()))

    @app.route("/queue/<string:id>", methods=["DELETE"])
    def cancel(self, request: ClientRequest, id: str) -> None:  # noqa: A002 - the URL's own word
        """Cancel a queued or running request of the caller's; an admin may cancel any."""
        if self._inference.cancel(id, lambda caller: request.admin or caller == request.caller):
            self._reply(request, Reply(204, [], b""))
        else:
            text = f"you have no queued or running request {errors.excerpt(id)}"
            self._reply(request, error_reply("ollama", 404, text, request.request_id))

    # from the inventory

    @app.route("/api/tags", methods=["GET", "HEAD"])
    async def tags(self, request: ClientRequest) -> None:
        """List the installed models, as the target last listed them."""
        await self._target.inventory.until_fresh()
        await self._send_model_list(request, self._target.inventory.tags)

    @app.route("/api/ps", methods=["GET"])
    async def ps(self, request: ClientRequest) -> None:
        """List the loaded models, as the target last listed them."""
        await self._target.inventory.until_fresh()
        await self._send_model_list(request, self._target.inventory.ps)

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
        """Relay an inference: chats wait for their turn, embeddings do not."""
        parsing = parse_body(request, self._body_budget)
        if request.content.length <= SMALL and not request.headers_named(b"content-encoding"):
            try:
                next(parsing)
            except StopIteration as finished:  # as for nearly every body
                return DetachedResponse(self._relay_or_submit(request, finished.value))
        return DetachedResponse(self._parse_and_relay(request, parsing))

    @app.route("/", methods=None)
    @app.route("/<path:_>", methods=None)
    def forward(self, request: ClientRequest, _: str = "") -> DetachedResponse:
        """Relay everything else at once; the target decides what it is."""
        return DetachedResponse(self._relay(request, None))

    async def _parse_and_relay(self, request: ClientRequest, parsing: Slices[RequestBody]) -> None:
        try:
            body = await run_in_slices(self._cooperator, parsing, LARGE)
        except CancelledError:
            record = request.new_record()
            record.outcome = "client left"
            self._observer.request_finished(record)
        except errors.ForemanError as problem:
            self.handle_failure(request, Failure(problem))
        except Exception:  # noqa: BLE001 - any failure must be answered
            self.handle_unexpected(request, Failure())
        else:
            await self._relay_or_submit(request, body)

    def _relay_or_submit(self, request: ClientRequest, body: RequestBody) -> Coroutine[Any, Any, None]:
        if self._jobs is not None and wants_job(request):
            return self._jobs.accept(request, body)
        return self._relay(request, body)

    async def _relay(self, request: ClientRequest, body: RequestBody | None) -> None:
        route = request.route
        model = body.model if body is not None else None
        record = request.new_record(model)
        ticket = Ticket(request.id, request.caller, model, route.path, EpochSeconds(self._wall_clock()))
        heartbeat = None
        if body is not None and body.readable and body.intent is Intent.RUN:
            heartbeat = QueueHeartbeat(self._clock, self._wall_clock, request, body, self._heartbeat_policy)
        responder = ClientResponder(request, record, heartbeat)
        try:
            await self._inference.run(target_request(request, body), responder, record, ticket)
        except CancelledError:
            record.outcome = "client left"
            if request.refusal is not None:  # the rest of its body could not be received
                record.outcome, record.status = "refused", request.refusal.status
        except errors.ForemanError as problem:
            record.outcome = outcome_of(problem)
            record.detail = str(problem)
            record.status = responder.fail(problem, self._retry_after)
        except Exception:  # noqa: BLE001 - any failure must be answered
            record.status, record.outcome, record.detail = 500, "refused", INTERNAL_ERROR
            self.handle_unexpected(request, Failure())
        finally:
            responder.stop_waiting()
            self._observer.request_finished(record)
        if route.lane is Lane.MANAGEMENT and record.status < 300:
            self._target.inventory.refresh()

    # failures

    @app.handle_errors(CancelledError)
    def handle_client_left(self, request: IRequest, failure: Failure) -> None:
        """The client has disconnected: no answer is sent."""

    @app.handle_errors(errors.ForemanError)
    def handle_failure(self, request: IRequest, failure: Failure) -> None:
        """Answer an expected failure, such as a body that Ollama would refuse at once."""
        client_request, problem = cast("ClientRequest", request), cast("errors.ForemanError", failure.value)
        reply = failure_reply(client_request.family, problem, client_request.request_id, self._retry_after)
        self._reply(client_request, reply)

    @app.handle_errors(Exception)
    def handle_unexpected(self, request: IRequest, failure: Failure) -> None:
        """Log an unexpected failure with its traceback, and answer without details."""
        client_request = cast("ClientRequest", request)
        self._log.failure("answering {path} failed", failure, path=client_request.route.path)
        problem = errors.ForemanError(INTERNAL_ERROR)
        if client_request.startedWriting:
            client_request.break_off(problem, between_pieces=False)
        else:
            client_request.answer(
                failure_reply(client_request.family, problem, client_request.request_id, self._retry_after)
            )

    # replies and the access log

    def _reply(self, request: ClientRequest, reply: Reply) -> None:
        request.answer(reply)
        self._log_access(request, reply.status)

    def _log_access(self, request: ClientRequest, status: int) -> None:
        self._observer.request_finished(request.own_record(status))

    async def _send_model_list(self, request: ClientRequest, model_list: ModelList | None) -> None:
        inventory = self._target.inventory
        if model_list is None and inventory.degraded is None and request.route.path in inventory.missing:
            await self._relay(request, None)  # the target is up but has no such list: relay what it answers
            return
        if model_list is None:
            text = "foreman has not reached its target yet, so that no models are known; try again soon"
            headers = [(b"Retry-After", b"%d" % self._retry_after)]
            self._reply(request, error_reply("ollama", 503, text, request.request_id, headers=headers))
            return
        request.begin(200, b"OK", to_client(model_list.headers), "other")
        request.write(model_list.body)
        request.finish()
        self._log_access(request, 200)
