"""One request at the target, from its place in the queue to the last line of its answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from foreman import errors
from foreman.protocol.answer_end import AnswerEnd, answer_end
from foreman.protocol.answer_origin import needs_target_check
from foreman.protocol.endpoints import MARKED, Lane, endpoint_of
from foreman.protocol.framing import framer_for, framing_of
from foreman.protocol.headers import to_client
from foreman.protocol.request_body import Intent
from foreman.proxy.access_record import Outcome, RequestRecord
from foreman.proxy.active_request import ActiveRequest
from foreman.proxy.cold_load import ColdLoad
from foreman.proxy.concurrency import ConcurrencyLimits
from foreman.proxy.eviction_guard import EvictionGuard
from foreman.proxy.relay import LastPieces, Limits, Relay
from foreman.proxy.request import ModelMissing, Responder, TargetRequest
from foreman.proxy.target import Target
from foreman.scheduling.estimates import Timing
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.scheduling.queue_status import QueuePosition, QueueStatus
from foreman.target.connection import TargetResponse
from foreman.target.models import Availability
from foreman.util.byte_budget import ByteBudget
from foreman.util.clock import now
from foreman.util.tracked_set import TrackedSet

#: How long to wait before a target that could not be reached is tried again, while FOREMAN_TARGET_WAIT lasts; seconds.
RETRY_PAUSE = 1.0

#: After these failures nothing of the request was sent, and it is sent again after a pause. Where TLS failed, a pause does
#: not help.
_RETRIED = errors.NOT_CONNECTED - {"tls"}

#: How many of a stream's last pieces show how it ended: OpenAI's usage and [DONE] may be two.
_LAST_PIECES = {"ndjson": 1, "sse": 2, "other": 0}


@define(eq=False)
class Inference:
    """Runs requests at one target.

    :ivar concurrency: limits on the requests that take no turn.
    """

    _clock: IReactorTime
    target: Target
    _relay_limits: Limits
    _target_wait: float
    _buffers: ByteBudget
    _active: TrackedSet[ActiveRequest] = field(factory=TrackedSet, init=False)
    concurrency: ConcurrencyLimits = field(init=False)
    _embeddings_status: QueueStatus = field(init=False)
    _eviction_guard: EvictionGuard = field(init=False)

    def __attrs_post_init__(self) -> None:
        target = self.target
        self._eviction_guard = EvictionGuard(self._clock, target.inventory.conflicts, target.gate, target.embeddings)
        self.concurrency = ConcurrencyLimits(self._clock)
        self._embeddings_status = QueueStatus(self._clock, target.embeddings, target.inventory, target.estimates)

    async def run(
        self, target_request: TargetRequest, responder: Responder, record: RequestRecord, ticket: Ticket
    ) -> None:
        """Wait for a turn where the request needs one, and relay the answer to ``responder`` until its last byte.

        Cancelling leaves the queue, or closes the connection to the target, at once.

        :raises ModelMissing: when the target is known not to have the model.
        :raises errors.QueueFull, errors.Draining: when it may not wait for a turn, or for a place at the target.
        :raises errors.ConnectionError: when the target gave no answer. Once the answer has begun, failures are reported to
            ``responder.break_off``.
        """
        work, turn = ActiveRequest(ticket.id, ticket.caller), None
        self._active.add(work)
        try:
            work.pending = Deferred.fromCoroutine(
                self._gate_for(target_request)
            )  # which may ask the target for its models
            gate = await work.pending
            # Prepared before the turn, so that the target is not idle meanwhile.
            head = self._head(target_request)
            target_request = evolve(target_request, headers=[])  # they are in the head, and thousands may wait
            if gate is not None:
                responder.queued(partial(self._position_at, gate, ticket))
                work.pending = self.enter(gate, ticket)
                turn = await work.pending
                record.turn_at = now(self._clock)
            else:
                limit = self.concurrency.of(target_request)
                work.pending = limit.enter(ticket.caller)
                if limit is self.concurrency.cloud:
                    responder.queued(partial(limit.position_of, work.pending))
                work.permit = await work.pending
            await self._relay(target_request, head, responder, record, turn, work)
        except CancelledError as left:
            raise work.why_stopped or left from None
        finally:
            if turn is not None and not turn.kept:
                turn.release()
            work.release_permit()
            self._active.discard(work)

    def enter(self, gate: Gate, ticket: Ticket) -> Deferred[Turn]:
        """Wait for a turn at one of the two gates, as ``Gate.enter``; an embedding may be held back before that."""
        return (
            gate.enter(ticket)
            if gate is self.target.gate
            else Deferred.fromCoroutine(self._eviction_guard.turn_for(ticket))
        )

    async def run_in_turn(
        self,
        target_request: TargetRequest,
        responder: Responder,
        record: RequestRecord,
        turn: Turn | None,
        work: ActiveRequest,
    ) -> None:
        """Relay the answer to a request that has its turn, which the caller releases.

        :param work: to stop it by; :raises errors.ConnectionError: when the target gave no answer; and whatever it was
            stopped with before the answer began.
        """
        self._active.add(work)
        record.turn_at = now(self._clock)
        try:
            await self._relay(target_request, self._head(target_request), responder, record, turn, work)
        except CancelledError as left:
            raise work.why_stopped or left from None
        finally:
            self._active.discard(work)

    def close(self) -> None:
        """Refuse new requests, and those that wait for a turn; what runs goes on."""
        self.target.gate.close()
        self.target.embeddings.close()
        self._eviction_guard.close()

    def when_idle(self) -> Deferred[None]:
        """Fires when no request waits or runs."""
        return self._active.when_empty()

    def stop(self) -> None:
        """Break off what still runs."""
        for work in list(self._active):
            work.stop(errors.Draining("foreman is stopping; try again soon"))

    def cancel(self, id: str, may: Callable[[str], bool], why: errors.ForemanError | None = None) -> bool:  # noqa: A002 - the field's name
        """Cancel the request ``id``, waiting or running, if ``may`` allows that for its caller.

        :param why: the error for its client; None: that a user cancelled it.
        :return: whether there was such a request.
        """
        for work in self._active:
            if work.id == id and may(work.caller):
                work.stop(why or errors.Cancelled("this request was cancelled"))
                return True
        return False

    def _head(self, target_request: TargetRequest) -> bytes:
        method, target, headers = target_request.method, target_request.target, target_request.headers
        chunked, version = target_request.chunked, target_request.version
        return self.target.client.head(method, target, headers, target_request.length, chunked=chunked, version=version)

    def _position_at(self, gate: Gate, ticket: Ticket) -> QueuePosition:
        if gate is self.target.gate:
            return self.target.queue_status.position_of(ticket)
        # Several run at once: the wait cannot be estimated.
        return QueuePosition(self._embeddings_status.position_of(ticket).position, None)

    async def _gate_for(self, target_request: TargetRequest) -> Gate | None:
        body = target_request.parsed_body
        if target_request.route.lane is Lane.EMBEDDING:
            return self.target.embeddings
        if target_request.route.lane is not Lane.GATE:
            return None
        if body is None or not body.readable:
            return self.target.gate
        if not body.model:
            return None  # the target can only refuse it
        availability = await self.target.inventory.look_for(body.model)
        # A newer Ollama may lack the endpoint, which only it can say.
        is_everywhere = endpoint_of(target_request.route.path).versions != "older"
        if availability is Availability.MISSING and is_everywhere:
            raise ModelMissing(f"model '{body.model}' not found")
        if body.intent is Intent.UNLOAD:
            self.target.inventory.conflicts.record_unload(body.model)
        if availability is Availability.CLOUD or body.intent is Intent.UNLOAD:
            return None
        return self.target.gate

    async def _relay(
        self,
        target_request: TargetRequest,
        head: bytes,
        responder: Responder,
        record: RequestRecord,
        turn: Turn | None,
        work: ActiveRequest,
    ) -> None:
        if turn is not None and record.model is not None:
            turn.cold = not self.target.inventory.is_running(record.model)
        work.pending = self._response_to(target_request, head, turn, work)
        answer = await work.pending
        try:
            await self._pass_on(target_request, answer, responder, record, turn, work)
        finally:
            answer.abort()  # where something failed, the target must not go on

    async def _pass_on(
        self,
        target_request: TargetRequest,
        answer: TargetResponse,
        responder: Responder,
        record: RequestRecord,
        turn: Turn | None,
        work: ActiveRequest,
    ) -> None:
        record.head_at = now(self._clock)
        record.status = answer.code
        if turn is not None:
            turn.answering = True
            if record.model is not None:
                self.target.inventory.model_answered(record.model, answer.code)
        content_type = answer.header(b"content-type") or b""
        if target_request.route.lane is Lane.EMBEDDING:
            self._eviction_guard.answered(record.model)
        if needs_target_check(answer.code, content_type):
            self.target.inventory.verify(answer.code)
        elif answer.code < 500:
            self.target.inventory.target_answered()
        # A compressed answer has no lines to recognize, and foreman can add none.
        kind = framing_of(content_type) if answer.header(b"content-encoding") in (None, b"identity") else "other"
        route = target_request.route
        relay = Relay(
            self._clock,
            answer,
            responder,
            framer_for(kind),
            lambda last: answer_end(kind, last, route.path),
            self._relay_limits,
            self._buffers,
            LastPieces(_LAST_PIECES[kind]),
            kind != "other" and 200 <= answer.code < 300 and route.lane is Lane.GATE and route.path in MARKED,
        )
        work.relay = relay
        try:
            responder.begin(answer.code, answer.phrase, to_client(answer.raw_headers), kind)
            answer.deliverBody(relay)
            await relay.answered
            if route.lane not in (Lane.METADATA, Lane.INVENTORY):
                self.target.inventory.target_changed()
            if turn is not None:
                turn.release()
            work.release_permit()
            outcome = await relay.sent
        finally:
            relay.cancel()
            record.first_byte_at = relay.first_byte_at
        if relay.problem is not None:
            record.detail = str(relay.problem)
        if relay.end is not None:
            self._record_usage(record, relay.end, turn, outcome)
        record.outcome = outcome
        if relay.problem is None and not (route.lane in (Lane.GATE, Lane.EMBEDDING) and answer.code < 300):
            # Only the answer to an inference has an end marker; the outcome of all others follows from the status.
            record.outcome = "target failed" if answer.code >= 500 else "complete"

    def _response_to(
        self, target_request: TargetRequest, head: bytes, turn: Turn | None, work: ActiveRequest
    ) -> Deferred[TargetResponse]:
        sending = Deferred.fromCoroutine(self._send(target_request, head))
        if turn is None:
            return sending
        load = ActiveRequest("", "", pending=sending)
        on_kept, on_over = partial(self._active.add, load), partial(self._active.discard, load)
        # When the target took too long, others need not wait for the same load.
        is_hopeless = lambda: isinstance(work.why_stopped, errors.TargetError)  # noqa: E731 - it is used once
        return ColdLoad(
            self._clock,
            self.target.inventory,
            self.target.queue_status,
            turn,
            sending,
            on_kept,
            on_over,
            is_hopeless,
        ).head

    def _record_usage(self, record: RequestRecord, end: AnswerEnd, turn: Turn | None, outcome: Outcome) -> None:
        record.tokens_in = end.prompt_tokens
        record.tokens_out = end.completion_tokens
        record.eval_seconds = end.eval_seconds
        if turn is None or turn.ended_at is None or record.model is None or outcome != "complete":
            return
        self.target.estimates.record(record.model, Timing.of(turn.ended_at - turn.began_at, end))

    async def _send(self, target_request: TargetRequest, head: bytes) -> TargetResponse:
        retry_until = self._clock.seconds() + self._target_wait
        while True:
            try:
                return await self.target.client.send(target_request.method, head, target_request.body)
            except errors.ConnectionError as problem:
                if problem.why not in _RETRIED:
                    self.target.inventory.refresh()  # one broken answer does not show that the target is down; its lists do
                    raise
                self.target.inventory.target_failed(problem)
                if self._clock.seconds() >= retry_until:
                    raise
            await deferLater(self._clock, RETRY_PAUSE)
