"""One request to the target, from arrival to last line: its turn, its answer, and what is remembered of it."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.iweb import IBodyProducer

from foreman import errors
from foreman.asked import Asked, Errand
from foreman.budget import Budget
from foreman.crowd import Crowd
from foreman.gate import Gate, Turn
from foreman.headers import RawHeaders, to_client
from foreman.lanes import Lane, Way
from foreman.ndjson import cutter_for, kind_for
from foreman.ollama.client import TargetClient
from foreman.ollama.connection import Answer
from foreman.ollama.inventory import Inventory, Standing
from foreman.record import Record
from foreman.relay import LastPieces, Limits, Reader, Relay
from foreman.schedule import Ticket
from foreman.tally import tally

#: How often a target that cannot be reached is tried again while FOREMAN_TARGET_WAIT lasts, in seconds.
RETRY_PAUSE = 1.0

#: How many of a stream's last pieces tell how it ended: OpenAI's usage and [DONE] may be two.
_LAST_PIECES = {"ndjson": 1, "sse": 2, "other": 0}


@frozen
class Question:
    """What goes to the target.

    :ivar target: raw path and query; :ivar headers: as the client sent them; :ivar length: of the body in bytes, None
        when no Content-Length is to be sent; :ivar asked: what the body asks for, None where nobody needs to know;
    :ivar chunked: the body goes in chunks.
    """

    method: bytes
    target: bytes
    headers: RawHeaders
    body: bytes | IBodyProducer
    length: int | None
    way: Way
    asked: Asked | None
    chunked: bool = False


class Asker(Reader, Protocol):
    """Who asks: a reader that is also told of the head of the answer."""

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: str) -> None:
        """The target has begun to answer; ``headers`` are those that may cross, ``kind`` as of ``ndjson.kind_for``."""


@define(eq=False)
class _Work:
    """One request that runs, so that it can be stopped."""

    pending: Deferred[Answer] | None = None
    relay: Relay | None = None
    stopped: bool = False

    def stop(self) -> None:
        self.stopped = True
        if self.relay is not None:
            self.relay.give_up(errors.Draining("foreman is stopping"))
        elif self.pending is not None:
            self.pending.cancel()


class ModelMissing(errors.ForemanError):
    """The target does not have the model; ``str()`` is Ollama's own text."""


@define(eq=False)
class Inference:
    """The work between the door and the target.

    :ivar gate: where chats take turns; :ivar embeddings: where embeddings pass, beside it (ADR-0013).
    """

    _clock: IReactorTime
    _client: TargetClient
    inventory: Inventory
    gate: Gate
    embeddings: Gate
    _limits: Limits
    _target_wait: float
    _buffers: Budget
    _active: Crowd[_Work] = field(factory=Crowd, init=False)
    _stopped: bool = field(default=False, init=False)

    async def run(self, question: Question, asker: Asker, record: Record, ticket: Ticket) -> None:
        """Get the question its turn where it needs one, and relay the answer to ``asker`` until the last byte.

        Cancelling leaves the line, or closes the connection to the target, at once.

        :raises ModelMissing: when the target surely does not have the model.
        :raises errors.QueueFull, errors.Draining: when there is no turn to be had.
        :raises errors.ConnectionError: when the target gave no answer. After the answer has begun, failures are the
            asker's ``break_off``.
        """
        work = _Work()
        self._active.add(work)
        try:
            await self._run(question, asker, record, ticket, work)
        except CancelledError:
            if self._stopped and work.stopped:
                raise errors.Draining("foreman is stopping; try again soon") from None
            raise
        finally:
            self._active.discard(work)

    def state_of(self, turn: Turn) -> str:
        """What a turn is doing: ``loading`` its model, ``reading`` the prompt, or ``answering``."""
        if turn.answering:
            return "answering"
        model = turn.ticket.model
        return "reading" if model is not None and self.inventory.is_running(model) else "loading"

    def overdue(self, limit: float) -> float | None:
        """Since when the oldest turn has waited for its first byte, if that is longer than ``limit`` seconds."""
        now = self._clock.seconds()
        since = [turn.since for turn in self.gate.running if not turn.answering and now - turn.since > limit]
        return min(since, default=None)

    # stopping

    def close(self) -> None:
        """Take nothing more; who waits for a turn is sent away, what runs goes on."""
        self.gate.close()
        self.embeddings.close()

    def when_idle(self) -> Deferred[None]:
        """Fires when nothing runs."""
        return self._active.when_empty()

    def stop(self) -> None:
        """Break off what still runs, visibly."""
        self._stopped = True
        for work in list(self._active):
            work.stop()

    # one request

    async def _run(self, question: Question, asker: Asker, record: Record, ticket: Ticket, work: _Work) -> None:
        gate = await self._gate_for(question)
        # Prepared before the turn, so that the target does not idle meanwhile.
        head = self._client.head(
            question.method, question.target, question.headers, question.length, chunked=question.chunked
        )
        if gate is None:
            await self._relay(question, head, asker, record, None, work)
            return
        turn = await gate.enter(ticket)
        record.turn_at = self._clock.seconds()
        try:
            await self._relay(question, head, asker, record, turn, work)
        finally:
            turn.release()

    async def _gate_for(self, question: Question) -> Gate | None:
        asked = question.asked
        if question.way.lane is Lane.EMBEDDING:
            return self.embeddings
        if question.way.lane is not Lane.GATE:
            return None
        if asked is None or not asked.sure:
            return self.gate
        if not asked.model:
            return None  # the target can only refuse it
        standing = await self.inventory.look_for(asked.model)
        if standing is Standing.MISSING:
            raise ModelMissing(f"model '{asked.model}' not found")
        if standing is Standing.CLOUD or asked.errand is Errand.UNLOAD:
            return None
        return self.gate

    async def _relay(
        self, question: Question, head: bytes, asker: Asker, record: Record, turn: Turn | None, work: _Work
    ) -> None:
        work.pending = Deferred.fromCoroutine(self._ask(question, head))
        answer = await work.pending
        record.head_at = self._clock.seconds()
        record.status = answer.code
        if turn is not None:
            turn.answering = True
        self.inventory.target_answered()
        content_type = answer.header(b"content-type") or b""
        kind = kind_for(content_type)
        way = question.way
        relay = Relay(
            self._clock,
            answer,
            asker,
            cutter_for(kind),
            lambda last: tally(kind, last),
            self._limits,
            self._buffers,
            LastPieces(_LAST_PIECES[kind]),
        )
        work.relay = relay
        asker.begin(answer.code, answer.phrase, to_client(answer.raw_headers), kind)
        answer.deliverBody(relay)
        try:
            await relay.answered
            if way.lane is not Lane.METADATA:
                self.inventory.target_changed()
            if turn is not None:
                turn.release()
            outcome = await relay.sent
        finally:
            record.first_byte_at = relay.first_byte_at
        if relay.problem is not None:
            record.detail = str(relay.problem)
        told = relay.tally
        if told is not None:
            record.tokens_in = told.prompt_tokens
            record.tokens_out = told.completion_tokens
            record.eval_seconds = told.eval_seconds
        record.outcome = outcome
        if relay.problem is None and not (way.lane in (Lane.GATE, Lane.EMBEDDING) and answer.code < 300):
            # Only of an inference is an end marker expected; an error that was answered whole speaks by its status.
            record.outcome = "target failed" if answer.code >= 500 else "complete"

    async def _ask(self, question: Question, head: bytes) -> Answer:
        waited_until = self._clock.seconds() + self._target_wait
        while True:
            try:
                return await self._client.send(question.method, head, question.body)
            except errors.ConnectionError as problem:
                if problem.why not in ("refused", "timeout", "dns", "tls"):
                    self.inventory.refresh()  # one broken answer says little; the poll finds out
                    raise
                self.inventory.target_failed(problem)
                if self._clock.seconds() >= waited_until:
                    raise
            await deferLater(self._clock, RETRY_PAUSE)
