"""One request to the target, from arrival to last line: its turn, its answer, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from foreman import errors
from foreman.protocol.answer_origin import needs_target_check
from foreman.protocol.endpoints import MARKED, Lane, endpoint_of
from foreman.protocol.framing import framer_for, framing_of
from foreman.protocol.headers import to_client
from foreman.protocol.request_body import Intent
from foreman.protocol.usage import AnswerEnd, answer_end
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

#: How often a target that cannot be reached is tried again while FOREMAN_TARGET_WAIT lasts, in seconds.
RETRY_PAUSE = 1.0

#: After these nothing of the request was sent, and waiting may help: it is sent again. It does not help where TLS failed.
_RETRIED = errors.NOT_CONNECTED - {"tls"}

#: How many of a stream's last pieces tell how it ended: OpenAI's usage and [DONE] may be two.
_LAST_PIECES = {"ndjson": 1, "sse": 2, "other": 0}


@define(eq=False)
class Inference:
    """Runs requests at one target.

    :ivar passages: how many requests that take no turn may be at the target at once.
    """

    _clock: IReactorTime
    target: Target
    _limits: Limits
    _target_wait: float
    _buffers: ByteBudget
    _active: TrackedSet[ActiveRequest] = field(factory=TrackedSet, init=False)
    passages: ConcurrencyLimits = field(init=False)
    _embeddings_status: QueueStatus = field(init=False)
    _eviction_guard: EvictionGuard = field(init=False)

    def __attrs_post_init__(self) -> None:
        target = self.target
        self._eviction_guard = EvictionGuard(self._clock, target.inventory.conflicts, target.gate, target.embeddings)
        self.passages = ConcurrencyLimits(self._clock)
        self._embeddings_status = QueueStatus(self._clock, target.embeddings, target.inventory, target.estimates)

    async def run(
        self, target_request: TargetRequest, responder: Responder, record: RequestRecord, ticket: Ticket
    ) -> None:
        """Get the question its turn where it needs one, and relay the answer to ``responder`` until the last byte.

        Cancelling leaves the line, or closes the connection to the target, at once.

        :raises ModelMissing: when the target surely does not have the model.
        :raises errors.QueueFull, errors.Draining: when there is no turn, or no place at the target, to be had.
        :raises errors.ConnectionError: when the target gave no answer. After the answer has begun, failures are the
            asker's ``break_off``.
        """
        work, turn = ActiveRequest(ticket.id, ticket.caller), None
        self._active.add(work)
        try:
            work.pending = Deferred.fromCoroutine(
                self._gate_for(target_request)
            )  # which may ask the target for its models
            gate = await work.pending
            # Prepared before the turn, so that the target does not idle meanwhile.
            head = self._head(target_request)
            target_request = evolve(target_request, headers=[])  # the head has them, and thousands may wait
            if gate is not None:
                responder.waits(partial(self._place_at, gate, ticket))
                work.pending = self.enter(gate, ticket)
                turn = await work.pending
                record.turn_at = now(self._clock)
            else:
                passage = self.passages.of(target_request)
                work.pending = passage.enter(ticket.caller)
                if passage is self.passages.cloud:
                    responder.waits(partial(passage.position_of, work.pending))
                work.passed = await work.pending
            await self._relay(target_request, head, responder, record, turn, work)
        except CancelledError as left:
            raise work.why_stopped or left from None
        finally:
            if turn is not None and not turn.kept:
                turn.release()
            work.is_done_at_target()
            self._active.discard(work)

    def enter(self, gate: Gate, ticket: Ticket) -> Deferred[Turn]:
        """Wait for a turn at one of the two gates, as ``Gate.enter``; an embedding may have to wait for chats before."""
        return (
            gate.enter(ticket)
            if gate is self.target.gate
            else Deferred.fromCoroutine(self._eviction_guard.turn_for(ticket))
        )

    async def in_turn(
        self,
        target_request: TargetRequest,
        responder: Responder,
        record: RequestRecord,
        turn: Turn | None,
        work: ActiveRequest,
    ) -> None:
        """Relay the answer to a question whose turn has come; who called for the turn releases it.

        :param work: what it can be stopped by; :raises errors.ConnectionError: when the target gave no answer; and
            whatever it was stopped with before that.
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
        """Take nothing more; who waits for a turn is sent away, what runs goes on."""
        self.target.gate.close()
        self.target.embeddings.close()
        self._eviction_guard.close()

    def when_idle(self) -> Deferred[None]:
        """Fires when nothing runs."""
        return self._active.when_empty()

    def stop(self) -> None:
        """Break off what still runs, visibly."""
        for work in list(self._active):
            work.stop(errors.Draining("foreman is stopping; try again soon"))

    def cancel(self, id: str, may: Callable[[str], bool], why: errors.ForemanError | None = None) -> bool:  # noqa: A002 - the field's name
        """Cancel the request ``id``, waiting or running, if ``may`` says so of its caller.

        :param why: what its client is told; without one, that it was cancelled by hand.
        :return: whether there was such a request.
        """
        for work in self._active:
            if work.id == id and may(work.caller):
                work.stop(why or errors.Cancelled("this request was cancelled by hand"))
                return True
        return False

    def _head(self, target_request: TargetRequest) -> bytes:
        q = target_request
        return self.target.client.head(q.method, q.target, q.headers, q.length, chunked=q.chunked, version=q.version)

    def _place_at(self, gate: Gate, ticket: Ticket) -> QueuePosition:
        if gate is self.target.gate:
            return self.target.queue_status.position_of(ticket)
        # Several pass at once: nobody can say how long it takes.
        return QueuePosition(self._embeddings_status.position_of(ticket).position, None)

    async def _gate_for(self, target_request: TargetRequest) -> Gate | None:
        asked = target_request.asked
        if target_request.route.lane is Lane.EMBEDDING:
            return self.target.embeddings
        if target_request.route.lane is not Lane.GATE:
            return None
        if asked is None or not asked.readable:
            return self.target.gate
        if not asked.model:
            return None  # the target can only refuse it
        availability = await self.target.inventory.look_for(asked.model)
        # A newer Ollama may lack the endpoint, which only it can say.
        is_everywhere = endpoint_of(target_request.route.path).versions != "older"
        if availability is Availability.MISSING and is_everywhere:
            raise ModelMissing(f"model '{asked.model}' not found")
        if asked.intent is Intent.UNLOAD:
            self.target.inventory.conflicts.record_unload(asked.model)
        if availability is Availability.CLOUD or asked.intent is Intent.UNLOAD:
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
        work.pending = self._answer_to(target_request, head, turn, work)
        answer = await work.pending
        try:
            await self._pass_on(target_request, answer, responder, record, turn, work)
        finally:
            answer.abort()  # where something failed, the target is not to go on for nobody

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
        # What was compressed unasked has no lines that could be told apart, and no place for a line of foreman's.
        kind = framing_of(content_type) if answer.header(b"content-encoding") in (None, b"identity") else "other"
        route = target_request.route
        relay = Relay(
            self._clock,
            answer,
            responder,
            framer_for(kind),
            lambda last: answer_end(kind, last, route.path),
            self._limits,
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
            work.is_done_at_target()
            outcome = await relay.sent
        finally:
            relay.leave()
            record.first_byte_at = relay.first_byte_at
        if relay.problem is not None:
            record.detail = str(relay.problem)
        if relay.tally is not None:
            self._learn(record, relay.tally, turn, outcome)
        record.outcome = outcome
        if relay.problem is None and not (route.lane in (Lane.GATE, Lane.EMBEDDING) and answer.code < 300):
            # Only of an inference is an end marker expected; an error that was answered whole speaks by its status.
            record.outcome = "target failed" if answer.code >= 500 else "complete"

    def _answer_to(
        self, target_request: TargetRequest, head: bytes, turn: Turn | None, work: ActiveRequest
    ) -> Deferred[TargetResponse]:
        asking = Deferred.fromCoroutine(self._ask(target_request, head))
        if turn is None:
            return asking
        load = ActiveRequest("", "", pending=asking)
        kept, over = partial(self._active.add, load), partial(self._active.discard, load)
        # Whom the target has kept waiting for too long is not followed by others who wait for the same.
        hopeless = lambda: isinstance(work.why_stopped, errors.TargetError)  # noqa: E731 - two words for one use
        return ColdLoad(
            self._clock, self.target.inventory, self.target.queue_status, turn, asking, kept, over, hopeless
        ).heard

    def _learn(self, record: RequestRecord, told: AnswerEnd, turn: Turn | None, outcome: Outcome) -> None:
        record.tokens_in = told.prompt_tokens
        record.tokens_out = told.completion_tokens
        record.eval_seconds = told.eval_seconds
        if turn is None or turn.ended_at is None or record.model is None or outcome != "complete":
            return
        self.target.estimates.record(record.model, Timing.of(turn.ended_at - turn.began_at, told))

    async def _ask(self, target_request: TargetRequest, head: bytes) -> TargetResponse:
        waited_until = self._clock.seconds() + self._target_wait
        while True:
            try:
                return await self.target.client.send(target_request.method, head, target_request.body)
            except errors.ConnectionError as problem:
                if problem.why not in _RETRIED:
                    self.target.inventory.refresh()  # one broken answer says little; the poll finds out
                    raise
                self.target.inventory.target_failed(problem)
                if self._clock.seconds() >= waited_until:
                    raise
            await deferLater(self._clock, RETRY_PAUSE)
