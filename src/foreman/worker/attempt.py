"""One attempt of a job: its request to the target, and the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman import errors
from foreman.jobs.artifacts import Artifact
from foreman.jobs.job import Claim, Job
from foreman.jobs.retry_policy import AttemptError
from foreman.protocol import routes
from foreman.protocol.body_values import MAX_DECOMPRESSED, decompress_in_slices
from foreman.protocol.endpoints import FOLLOWABLE
from foreman.protocol.framing import BodyFraming
from foreman.protocol.headers import RawHeaders
from foreman.protocol.request_body import RequestBody
from foreman.protocol.routes import Route
from foreman.protocol.stream_flag import with_stream
from foreman.proxy.access_record import RequestRecord, outcome_of
from foreman.proxy.active_request import ActiveRequest
from foreman.proxy.inference import Inference
from foreman.proxy.request import ModelMissing, TargetRequest
from foreman.scheduling.gate import Turn
from foreman.scheduling.queue_status import QueuePosition
from foreman.store.errors import StaleClaim, StoreUnavailable
from foreman.store.job_store import JobStore
from foreman.util.byte_budget import ByteBudget
from foreman.util.clock import now
from foreman.util.cooperator import run_in_slices
from foreman.util.deadline import Deadline
from foreman.util.slices import Slices
from foreman.worker.live_output import LiveOutput
from foreman.worker.outcome import AttemptResponse, Success, classify, partial_artifacts

#: How often new lines of an answer are stored, in seconds.
STORE_LINES_EVERY = 2.0
#: How long after a pause of foreman itself an answer is still read that arrived before the deadline, in seconds.
GRACE_AFTER_PAUSE = 1.0


class Expired(errors.ForemanError):
    """The deadline of the job passed while it ran."""


class TooLarge(errors.ForemanError):
    """The answer is larger than an artifact may be."""


@frozen
class Bounds:
    """How large an answer may be, in bytes, and how long the target may take to begin it, in seconds.

    A client that gets no answer disconnects in the end; a job has no client, but keeps the turn meanwhile.
    """

    max_bytes: int
    silence: float


@define(eq=False)
class Attempt:
    """One attempt, and the reader of its answer.

    :ivar response: the target's answer; :ivar active_request: to stop the attempt by; :ivar record: of its request;
    :ivar live_output: the lines, for streams that follow the job; None where the answer does not come in lines.
    """

    _clock: IReactorTime
    _store: JobStore
    claim: Claim
    _bounds: Bounds
    response: AttemptResponse = field(factory=AttemptResponse, init=False)
    active_request: ActiveRequest = field(init=False)
    live_output: LiveOutput | None = field(default=None, init=False)
    _stopped: errors.ForemanError | None = field(default=None, init=False)
    _failure: AttemptError | None = field(default=None, init=False)
    _override: AttemptError | None = field(default=None, init=False)
    _result: Success | AttemptError | None = field(default=None, init=False)
    _bytes: int = field(default=0, init=False)
    _stored_pieces: int = field(default=0, init=False)
    _store_number: int = field(default=0, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _silence: Deadline = field(init=False)
    _storing: Deferred[None] | None = field(default=None, init=False)
    _changed: Deferred[None] | None = field(default=None, init=False)
    record: RequestRecord = field(init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        job = self.claim.job
        self.active_request = ActiveRequest(job.id, job.owner)
        self.record = RequestRecord(job.id, job.owner, job.endpoint, job.lane, now(self._clock), job.model)
        if job.endpoint in FOLLOWABLE:
            self.live_output = LiveOutput(job.fence)
        self._silence = Deadline(self._clock)
        self.response.in_lines, self.response.endpoint = self.live_output is not None, job.endpoint

    async def run(self, inference: Inference, turn: Turn | None, cooperator: Cooperator) -> None:
        """Send the request in ``turn`` and read the whole answer; ``outcome`` then has the result."""
        try:
            await self._send(inference, turn, cooperator)
        finally:
            if turn is not None and not turn.kept:
                turn.release()  # before the outcome is decided and stored: the target must not be idle meanwhile
        if self._failure is None and self._stopped is None:
            await self._classify(cooperator)

    async def _send(self, inference: Inference, turn: Turn | None, cooperator: Cooperator) -> None:
        preparing = self.active_request.pending = Deferred.fromCoroutine(
            run_in_slices(cooperator, self._target_request(), len(self.claim.payload))
        )
        try:
            target_request = await preparing
        except ValueError as problem:
            self._failure = AttemptError("refused", f"its payload cannot be read: {problem}")
            self.record.outcome, self.record.detail = "refused", self._failure.message
            return
        except CancelledError:
            if self.active_request.why_stopped is None:
                raise
            self.stop(self.active_request.why_stopped)
            return
        deadline = self._watch_deadline()
        self._watch_cancel()
        self._silence.set(self._bounds.silence, lambda: self._stop(self._silence_error()))
        try:
            await inference.run_in_turn(target_request, self, self.record, turn, self.active_request)
        except (errors.Cancelled, errors.Draining, Expired, TooLarge) as problem:
            self.stop(problem)
        except errors.ForemanError as problem:
            self.response.problem = problem
            self.record.outcome, self.record.detail = outcome_of(problem), str(problem)
        except Exception as problem:  # noqa: BLE001 - no job may be left running for ever
            self.record.outcome, self.record.detail = "refused", "foreman failed to run it"
            self._log.failure("running job {job} failed", job=self.claim.job.id)
            self.fail(problem)
        finally:
            deadline.clear()
            if self._changed is not None:
                self._changed.cancel()
            self._silence.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def _classify(self, cooperator: Cooperator) -> None:
        try:
            self._result = await run_in_slices(cooperator, classify(self.response), self._bytes)
        except Exception as problem:  # noqa: BLE001 - likewise
            self._log.failure("reading the answer to job {job} failed", job=self.claim.job.id)
            self.fail(problem)

    def outcome(self) -> Success | AttemptError | errors.Cancelled | errors.Draining:
        """The outcome of the attempt."""
        if self._failure is not None:
            return self._failure
        if isinstance(self._stopped, errors.Cancelled | errors.Draining):
            return self._stopped
        if isinstance(self._stopped, Expired):
            return AttemptError("expired", str(self._stopped))
        if isinstance(self._stopped, TooLarge):
            return AttemptError("too_large", str(self._stopped))
        if self._override is not None:
            return self._override
        if isinstance(self.response.problem, ModelMissing):
            return AttemptError("model_missing", str(self.response.problem))
        assert self._result is not None
        return self._result

    def artifacts_after(self, error: AttemptError) -> Sequence[Artifact]:
        """What is stored of the attempt when ``error`` is its outcome."""
        return () if error is self._failure else partial_artifacts(self.response, error)

    def stop(self, why: errors.ForemanError) -> None:
        """End it without an outcome of its own, because of ``why``."""
        self._stopped = why
        if self.response.status is None:  # otherwise the relay has filled in the record
            self.record.outcome, self.record.detail = outcome_of(why), str(why)

    def override(self, error: AttemptError) -> None:
        """Make ``error`` the outcome, whatever the answer was."""
        self._override = error

    def fail(self, problem: Exception) -> bool:
        """foreman itself failed.

        :return: whether that is the first failure of this attempt.
        """
        is_first = self._failure is None
        self._failure = self._failure or AttemptError(
            "target_error", f"foreman failed to handle its answer: {problem!r}"
        )
        return is_first

    def summary(self) -> str:
        """How long it took and how many tokens, for the log."""
        seconds = self._clock.seconds() - self.record.started_at
        tokens = self.record.tokens_out
        return f"{seconds:.1f} s" if tokens is None else f"{seconds:.1f} s, {tokens} tokens"

    def end(self) -> None:
        """The outcome is stored: streams that follow the job find the rest in the store."""
        if self.live_output is not None:
            self.live_output.end()

    # the request

    def _target_request(self) -> Slices[TargetRequest]:
        claim = self.claim
        body, encoding = claim.payload, claim.content_encoding
        wants_stream = claim.job.endpoint in FOLLOWABLE
        if claim.stream != wants_stream:
            plain = (
                (yield from decompress_in_slices(body, ByteBudget(MAX_DECOMPRESSED))) if encoding == "zstd" else body
            )
            body, encoding = (yield from with_stream(plain, stream=wants_stream)), None
        headers = [(b"Content-Type", claim.content_type.encode("latin-1"))]
        if encoding is not None:
            headers.append((b"Content-Encoding", encoding.encode("latin-1")))
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in claim.headers]
        target = claim.job.endpoint.encode("ascii")
        route = routes.classify(b"POST", target)
        assert isinstance(route, Route)
        parsed_body = RequestBody(claim.job.model, wants_stream)
        return TargetRequest(b"POST", target, headers, body, len(body), route, parsed_body)

    def _watch_deadline(self) -> Deadline:
        watch = Deadline(self._clock, after_pause=GRACE_AFTER_PAUSE)
        deadline = self.claim.job.deadline
        if deadline is not None:
            left = max(0.0, (deadline - self._store.now()) / 1000)
            watch.set(left, lambda: self._stop(Expired("its deadline passed while it ran")))
        return watch

    def _stop(self, why: errors.ForemanError) -> None:
        self.active_request.stop(why)

    def _watch_cancel(self) -> None:
        # The request that cancelled it in the store may have been given up before it reached the worker.
        self._changed = self._store.notifications.when_changed(self.claim.job.id)
        self._changed.addCallbacks(lambda _: self._read_job(), lambda _: None)

    def _read_job(self) -> None:
        self._watch_cancel()
        reading = Deferred.fromCoroutine(self._store.get(self.claim.job.id))
        reading.addCallbacks(self._job_read, lambda failure: failure.trap(StoreUnavailable) and None)

    def _job_read(self, job: Job | None) -> None:
        if job is not None and job.cancel_asked_at is not None:
            self._stop(errors.Cancelled("this job was cancelled"))

    def _silence_error(self) -> errors.ConnectionError:
        text = f"no answer had begun after {self._bounds.silence:g} s (FOREMAN_JOB_SILENCE)"
        return errors.ConnectionError("silence", text)

    # the answer: a Responder

    def queued(self, position: Callable[[], QueuePosition]) -> None:
        """Nothing to do: a job has its turn before."""

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: BodyFraming) -> None:
        """The target has begun to answer."""
        self._silence.clear()
        response = self.response
        response.status, response.kind = status, kind
        for name, value in headers:
            if name.lower() == b"content-type":
                response.content_type = value.decode("latin-1")
            elif name.lower() == b"retry-after" and value.isdigit():
                response.retry_after = float(value)
        if self.live_output is not None and kind == "ndjson":
            self._timer = self._clock.callLater(STORE_LINES_EVERY, self._store_lines)

    def write(self, piece: bytes) -> None:
        """The next piece of the answer."""
        self._bytes += len(piece)
        if self._bytes > self._bounds.max_bytes:
            # Stopped in a later turn of the reactor: the relay is passing this piece on.
            if self._stopped is None:
                self._stopped = TooLarge(
                    f"the answer is larger than {self._bounds.max_bytes} bytes (FOREMAN_MAX_ARTIFACT)"
                )
                self._clock.callLater(0, self._stop, self._stopped)
            return
        self.response.pieces.append(piece)
        if self.live_output is not None and self.response.kind == "ndjson":
            self.live_output.add(piece)

    def finish(self) -> None:
        """The answer has ended as it should."""

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer has broken off."""
        if isinstance(problem, errors.Cancelled | errors.Draining | Expired | TooLarge):
            self._stopped = problem
        else:
            self.response.problem = problem

    def set_producer(self, producer: IPushProducer | None) -> None:
        """Nothing to do: the whole answer is kept here, up to its limit."""

    def _store_lines(self) -> None:
        self._timer = self._clock.callLater(STORE_LINES_EVERY, self._store_lines)
        until = len(self.response.pieces)
        if self._storing is not None or until == self._stored_pieces:
            return
        data = b"".join(self.response.pieces[self._stored_pieces :])
        self._store_number += 1
        self._storing = Deferred.fromCoroutine(self._store.append_output(self.claim, self._store_number, data))
        self._storing.addCallbacks(self._lines_stored, self._storing_failed, callbackArgs=(until,))

    def _lines_stored(self, _: None, until: int) -> None:
        self._stored_pieces, self._storing = until, None

    def _storing_failed(self, failure: Failure) -> None:
        self._storing = None
        problem = failure.value
        if isinstance(problem, StaleClaim):
            self._stop(errors.Draining(str(problem)))
        elif not isinstance(problem, StoreUnavailable):  # the store logs that itself
            self._log.failure("storing lines of job {job} failed", failure, job=self.claim.job.id)
