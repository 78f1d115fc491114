"""One try of a job at the target: what is asked, and what is heard."""

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
from foreman.protocol.body_values import MAX_UNPACKED, unpack_in_slices
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

#: How often new lines are kept, in seconds.
KEEP_EVERY = 2.0
#: How long after a pause of foreman itself an answer is read that arrived before the job's deadline, in seconds.
LATE_ANSWER = 1.0


class Expired(errors.ForemanError):
    """The job's deadline passed while it ran."""


class TooLarge(errors.ForemanError):
    """The answer is larger than an artifact may be."""


@frozen
class Bounds:
    """How large an answer may be, in bytes, and how long it may take to begin, in seconds.

    A person leaves when nothing comes; nobody would leave for a job, which has the turn meanwhile.
    """

    max_bytes: int
    silence: float


@define(eq=False)
class Attempt:
    """One try, and the reader of its answer.

    :ivar heard: what the target said; :ivar work: to stop it by; :ivar record: of its request to the target;
    :ivar output: the lines, for those who follow; None where the answer does not come in lines.
    """

    _clock: IReactorTime
    _store: JobStore
    claim: Claim
    _bounds: Bounds
    heard: AttemptResponse = field(factory=AttemptResponse, init=False)
    work: ActiveRequest = field(init=False)
    output: LiveOutput | None = field(default=None, init=False)
    _stopped: errors.ForemanError | None = field(default=None, init=False)
    _failed: AttemptError | None = field(default=None, init=False)
    _overruled: AttemptError | None = field(default=None, init=False)
    _judged: Success | AttemptError | None = field(default=None, init=False)
    _bytes: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)
    _keepings: int = field(default=0, init=False)
    _keeping: IDelayedCall | None = field(default=None, init=False)
    _silence: Deadline = field(init=False)
    _under_way: Deferred[None] | None = field(default=None, init=False)
    _bell: Deferred[None] | None = field(default=None, init=False)
    record: RequestRecord = field(init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        job = self.claim.job
        self.work = ActiveRequest(job.id, job.owner)
        self.record = RequestRecord(job.id, job.owner, job.endpoint, job.lane, now(self._clock), job.model)
        if job.endpoint in FOLLOWABLE:
            self.output = LiveOutput(job.fence)
        self._silence = Deadline(self._clock)
        self.heard.in_lines, self.heard.endpoint = self.output is not None, job.endpoint

    async def run(self, inference: Inference, turn: Turn | None, cooperator: Cooperator) -> None:
        """Ask the target in ``turn``, and hear it out; what came of it is told by ``outcome``."""
        try:
            await self._ask(inference, turn, cooperator)
        finally:
            if turn is not None and not turn.kept:
                turn.release()  # before anything is judged or written down: the target is not to idle meanwhile
        if self._failed is None and self._stopped is None:
            await self._judge(cooperator)

    async def _ask(self, inference: Inference, turn: Turn | None, cooperator: Cooperator) -> None:
        preparing = self.work.pending = Deferred.fromCoroutine(
            run_in_slices(cooperator, self._target_request(), len(self.claim.payload))
        )
        try:
            target_request = await preparing
        except ValueError as problem:
            self._failed = AttemptError("refused", f"its payload cannot be read: {problem}")
            return
        except CancelledError:
            if self.work.why_stopped is None:
                raise
            self._stopped = self.work.why_stopped
            return
        deadline = self._watch_deadline()
        self._watch_cancel()
        self._silence.set(self._bounds.silence, lambda: self._stop(self._too_silent()))
        try:
            await inference.run_in_turn(target_request, self, self.record, turn, self.work)
        except (errors.Cancelled, errors.Draining, Expired, TooLarge) as problem:
            self._stopped = problem
            self.record.outcome, self.record.detail = outcome_of(problem), str(problem)
        except errors.ForemanError as problem:
            self.heard.problem = problem
            self.record.outcome, self.record.detail = outcome_of(problem), str(problem)
        except Exception as problem:  # noqa: BLE001 - no job is to be left as running for ever
            self.record.outcome, self.record.detail = "refused", "foreman failed to run it"
            self._log.failure("running job {job} failed", job=self.claim.job.id)
            self.fail(problem)
        finally:
            deadline.clear()
            if self._bell is not None:
                self._bell.cancel()
            self._silence.clear()
            if self._keeping is not None:
                self._keeping.cancel()
                self._keeping = None

    async def _judge(self, cooperator: Cooperator) -> None:
        try:
            self._judged = await run_in_slices(cooperator, classify(self.heard), self._bytes)
        except Exception as problem:  # noqa: BLE001 - likewise
            self._log.failure("judging the answer to job {job} failed", job=self.claim.job.id)
            self.fail(problem)

    def outcome(self) -> Success | AttemptError | errors.Cancelled | errors.Draining:
        """What it came to."""
        if self._failed is not None:
            return self._failed
        if isinstance(self._stopped, errors.Cancelled | errors.Draining):
            return self._stopped
        if isinstance(self._stopped, Expired):
            return AttemptError("expired", str(self._stopped))
        if isinstance(self._stopped, TooLarge):
            return AttemptError("too_large", str(self._stopped))
        if self._overruled is not None:
            return self._overruled
        if isinstance(self.heard.problem, ModelMissing):
            return AttemptError("model_missing", str(self.heard.problem))
        assert self._judged is not None
        return self._judged

    def remains(self, mishap: AttemptError) -> Sequence[Artifact]:
        """What is kept of it when ``mishap`` was what it came to."""
        return () if mishap is self._failed else partial_artifacts(self.heard, mishap)

    def stop(self, why: errors.ForemanError) -> None:
        """Do not begin it, because of ``why``."""
        self._stopped = why

    def overrule(self, mishap: AttemptError) -> None:
        """It came to ``mishap``, whatever was heard."""
        self._overruled = mishap

    def fail(self, problem: Exception) -> bool:
        """foreman itself cannot get on with it; whether that is news."""
        is_news = self._failed is None
        self._failed = self._failed or AttemptError(
            "target_error", f"foreman cannot make anything of its answer: {problem!r}"
        )
        return is_news

    def told(self) -> str:
        """How long it took and what it cost, for the log."""
        took = self._clock.seconds() - self.record.started_at
        tokens = self.record.tokens_out
        return f"{took:.1f} s" if tokens is None else f"{took:.1f} s, {tokens} tokens"

    def end(self) -> None:
        """It is written down: whoever follows finds the rest in the store."""
        if self.output is not None:
            self.output.end()

    # what is asked

    def _target_request(self) -> Slices[TargetRequest]:
        claim = self.claim
        body, encoding = claim.payload, claim.content_encoding
        wants_stream = claim.job.endpoint in FOLLOWABLE
        if claim.stream != wants_stream:
            plain = (yield from unpack_in_slices(body, ByteBudget(MAX_UNPACKED))) if encoding == "zstd" else body
            body, encoding = (yield from with_stream(plain, stream=wants_stream)), None
        headers = [(b"Content-Type", claim.content_type.encode("latin-1"))]
        if encoding is not None:
            headers.append((b"Content-Encoding", encoding.encode("latin-1")))
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in claim.headers]
        target = claim.job.endpoint.encode("ascii")
        route = routes.classify(b"POST", target)
        assert isinstance(route, Route)
        asked = RequestBody(claim.job.model, wants_stream)
        return TargetRequest(b"POST", target, headers, body, len(body), route, asked)

    def _watch_deadline(self) -> Deadline:
        watch = Deadline(self._clock, after_pause=LATE_ANSWER)
        deadline = self.claim.job.deadline
        if deadline is not None:
            left = max(0.0, (deadline - self._store.now()) / 1000)
            watch.set(left, lambda: self._stop(Expired("its deadline passed while it ran")))
        return watch

    def _stop(self, why: errors.ForemanError) -> None:
        self.work.stop(why)

    def _watch_cancel(self) -> None:
        # Whoever noted in the store that it is to end may have left before the worker was told.
        self._bell = self._store.notifications.when_changed(self.claim.job.id)
        self._bell.addCallbacks(lambda _: self._look(), lambda _: None)

    def _look(self) -> None:
        self._watch_cancel()
        looking = Deferred.fromCoroutine(self._store.get(self.claim.job.id))
        looking.addCallbacks(self._looked, lambda failure: failure.trap(StoreUnavailable) and None)

    def _looked(self, job: Job | None) -> None:
        if job is not None and job.cancel_asked_at is not None:
            self._stop(errors.Cancelled("this job was cancelled by hand"))

    def _too_silent(self) -> errors.ConnectionError:
        text = f"no answer had begun after {self._bounds.silence:g} s (FOREMAN_JOB_SILENCE)"
        return errors.ConnectionError("silence", text)

    # what is heard

    def queued(self, position: Callable[[], QueuePosition]) -> None:
        """A job waits in the store."""

    def begin(self, status: int, phrase: bytes, headers: RawHeaders, kind: BodyFraming) -> None:
        """The target answers."""
        self._silence.clear()
        heard = self.heard
        heard.status, heard.kind = status, kind
        for name, value in headers:
            if name.lower() == b"content-type":
                heard.content_type = value.decode("latin-1")
            elif name.lower() == b"retry-after" and value.isdigit():
                heard.retry_after = float(value)
        if self.output is not None and kind == "ndjson":
            self._keeping = self._clock.callLater(KEEP_EVERY, self._keep)

    def write(self, piece: bytes) -> None:
        """The next piece of the answer."""
        self._bytes += len(piece)
        if self._bytes > self._bounds.max_bytes:
            # Told in a fresh turn: the relay is in the middle of passing this piece on.
            if self._stopped is None:
                self._stopped = TooLarge(
                    f"the answer is larger than {self._bounds.max_bytes} bytes (FOREMAN_MAX_ARTIFACT)"
                )
                self._clock.callLater(0, self._stop, self._stopped)
            return
        self.heard.pieces.append(piece)
        if self.output is not None and self.heard.kind == "ndjson":
            self.output.add(piece)

    def finish(self) -> None:
        """The answer has ended as it should."""

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        """The answer has broken off."""
        if isinstance(problem, errors.Cancelled | errors.Draining | Expired | TooLarge):
            self._stopped = problem
        else:
            self.heard.problem = problem

    def set_producer(self, producer: IPushProducer | None) -> None:
        """The store is never too slow to take the next piece: what comes is held here, up to its limit."""

    def _keep(self) -> None:
        self._keeping = self._clock.callLater(KEEP_EVERY, self._keep)
        until = len(self.heard.pieces)
        if self._under_way is not None or until == self._kept:
            return
        data = b"".join(self.heard.pieces[self._kept :])
        self._keepings += 1
        self._under_way = Deferred.fromCoroutine(self._store.append_output(self.claim, self._keepings, data))
        self._under_way.addCallbacks(self._was_kept, self._not_kept, callbackArgs=(until,))

    def _was_kept(self, _: None, until: int) -> None:
        self._kept, self._under_way = until, None

    def _not_kept(self, failure: Failure) -> None:
        self._under_way = None
        problem = failure.value
        if isinstance(problem, StaleClaim):
            self._stop(errors.Draining(str(problem)))
        elif not isinstance(problem, StoreUnavailable):  # the store has said so itself
            self._log.failure("keeping lines of job {job} failed", failure, job=self.claim.job.id)
