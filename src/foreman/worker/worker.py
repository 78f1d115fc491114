"""The worker: runs queued jobs one at a time in each lane, and stores their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator, deferLater
from twisted.logger import Logger

from foreman import errors
from foreman.jobs.job import Claim, Job, JobLane, State
from foreman.jobs.retry_policy import AttemptError, Transition, next_transition
from foreman.protocol import model_names
from foreman.proxy.inference import Inference
from foreman.proxy.observer import Observer, Observers
from foreman.proxy.target import Target
from foreman.scheduling.gate import Gate, Turn
from foreman.scheduling.policy import Ticket
from foreman.store.errors import StaleClaim, StoreUnavailable, WrongState
from foreman.store.job_store import JobStore
from foreman.target.models import Availability
from foreman.util.clock import NEVER, EpochSeconds, Monotonic
from foreman.util.tracked_set import TrackedSet
from foreman.util.waiters import Waiters, cancelling
from foreman.worker.answer_check import AnswerCheck
from foreman.worker.attempt import Attempt, Bounds
from foreman.worker.live_output import LiveOutput
from foreman.worker.outcome import Success, partial_answer

LANES: tuple[JobLane, ...] = ("gate", "embedding")
#: How often jobs are checked that cannot run now, since their model is missing or the target is degraded; seconds.
RECHECK = 5.0
#: How long the worker pauses after the store could not be used, in seconds.
STORE_PAUSE = 5.0
#: How long no job is started after an attempt could not reach the target, although it lists its models; seconds.
UNREACHED_PAUSE = 1.0
#: By how much jobs of a loaded model go before others: so many load times, within these bounds in seconds.
BONUS_LOADS, MIN_BONUS, MAX_BONUS = 6.0, 30.0, 300.0


@define(eq=False)
class Worker:
    """Runs one job of chats at a time, through the gate, and beside it one job of embeddings.

    :ivar cooperator: runs the reading of large bodies in slices; :ivar random: from 0 to 1, for pauses;
    :ivar overdue_after: for how many seconds every request goes before a job; :ivar bounds: of each attempt;
    :ivar observer: notified of the end of each attempt.
    """

    _clock: IReactorTime
    _store: JobStore
    _target: Target
    _inference: Inference
    _cooperator: Cooperator
    _random: Callable[[], float]
    _overdue_after: float
    _bounds: Bounds
    _observer: Observer = field(factory=Observers)
    _running: dict[str, Attempt] = field(factory=dict, init=False)
    _lanes: TrackedSet[JobLane] = field(factory=TrackedSet, init=False)
    _nudges: Waiters[None] = field(factory=Waiters, init=False)
    _waits: dict[JobLane, Deferred[Any]] = field(factory=dict, init=False)
    _paused_until: Monotonic = field(default=NEVER, init=False)
    _closed: bool = field(default=False, init=False)
    _answer_check: AnswerCheck = field(init=False)
    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._answer_check = AnswerCheck(self._clock, self._target.inventory)

    def start(self) -> None:
        """Begin to run what is queued."""
        self._store.notifications.on_queued = self.nudge
        for lane in LANES:
            self._lanes.add(lane)
            working = Deferred.fromCoroutine(self._work(lane))
            working.addErrback(lambda failure: self._log.failure("the worker failed", failure))
            working.addBoth(self._stopped, lane)

    def _stopped(self, _: object, lane: JobLane) -> None:
        self._lanes.discard(lane)

    def nudge(self) -> None:
        """A job may have become able to run."""
        self._nudges.fire(None)

    def output_of(self, id_: str) -> LiveOutput | None:
        """The lines of a job that runs now; None where its answer does not come in lines."""
        attempt = self._running.get(id_)
        return None if attempt is None else attempt.live_output

    def cancel(self, id_: str) -> None:
        """Break off the job if it runs; the store has recorded it already."""
        attempt = self._running.get(id_)
        if attempt is not None:
            attempt.active_request.stop(errors.Cancelled("this job was cancelled"))

    # stopping

    def close(self) -> None:
        """Start no more jobs; what runs goes on."""
        self._closed = True
        for wait in list(self._waits.values()):
            wait.cancel()
        self.nudge()

    def when_idle(self) -> Deferred[None]:
        """Fires when no job runs and all outcomes are stored, once it was closed."""
        return self._lanes.when_empty()

    # starting jobs

    async def _work(self, lane: JobLane) -> None:
        while not self._closed:
            with cancelling(self._nudges.wait()) as nudged:  # before the store is read, so that no nudge is lost
                pause: float | None = STORE_PAUSE
                try:
                    pause = await self._run_next(lane)
                except CancelledError:
                    pause = 0.0  # foreman stops, or the job that waited for its turn was cancelled
                except (StoreUnavailable, errors.Draining):
                    pass  # the store logs that itself; the gate closes when the worker does
                except Exception:  # noqa: BLE001 - the worker goes on with the next job
                    self._log.failure("starting a job failed")
                if pause is None or pause > 0:
                    await self._wait(nudged, pause)

    async def _wait(self, nudged: Deferred[None], pause: float | None) -> None:
        if pause is not None and not nudged.called:
            nudged.addTimeout(pause, self._clock, onTimeoutCancel=lambda _result, _timeout: None)
        if not self._closed:
            await nudged

    async def _run_next(self, lane: JobLane) -> float | None:
        """Run the next job of ``lane``, if there is one, when it gets its turn.

        :return: how long to wait before the next call, in seconds; None: until a nudge.
        """
        inventory = self._target.inventory
        if (left := max(self._paused_until - self._clock.seconds(), self._answer_check.pause(lane))) > 0:
            return left
        # Also while the lists are unknown, so that jobs of a model that is loaded already go first.
        if inventory.degraded is not None or inventory.tags is None:
            if await self._store.oldest_run_at(lane) is None:
                return None
            if not await inventory.refresh():
                return RECHECK
        head = await self._store.peek(lane, self._bonuses(lane), self._installed())
        if self._closed:
            return 0.0
        if head is None:
            if await self._store.oldest_run_at(lane) is not None:
                return RECHECK
            inventory.hold(lane, None)  # no job is held back any more
            return None
        turn = await self._turn_for(lane, head)
        try:
            # While it waited for its turn, foreman may have been stopped, or the target become degraded.
            if not self._closed and inventory.degraded is None:
                claim = await self._store.claim(lane, self._bonuses(lane), self._installed())
                if claim is None:
                    return RECHECK
                await self._run(claim, turn)
        finally:
            if turn is not None and not turn.kept:
                turn.release()
        return 0.0

    async def _turn_for(self, lane: JobLane, head: Job) -> Turn | None:
        gate = self._gate_for(lane, head)
        if gate is None:
            return None
        entering = self._waits[lane] = self._inference.enter(gate, self._ticket(head))
        # If it is cancelled or expires meanwhile, it leaves the queue: no load may go on for it.
        changed = self._store.notifications.when_changed(head.id)
        changed.addCallbacks(lambda _: entering.cancel(), lambda _: None)
        try:
            return await entering
        finally:
            changed.cancel()
            del self._waits[lane]

    def _ticket(self, job: Job) -> Ticket:
        waited = (self._store.now() - job.run_at) / 1000
        overdue_at = Monotonic(self._clock.seconds() + self._overdue_after - waited)
        return Ticket(job.id, job.owner, job.model, job.endpoint, EpochSeconds(job.run_at / 1000), overdue_at)

    def _gate_for(self, lane: JobLane, head: Job) -> Gate | None:
        if lane == "gate":
            return self._target.gate
        with suppress(errors.InvalidName):  # the target will refuse it
            if self._target.inventory.find(head.model) is Availability.CLOUD:
                return None  # it does not use the target's own hardware
        return self._target.embeddings

    def _bonuses(self, lane: JobLane) -> Callable[[str], int | None]:
        """A function, for any thread, from a model to how far its jobs go before others now, in milliseconds."""
        snapshot = self._target.inventory.snapshot()
        loads = self._target.estimates.load_times()

        def bonus_of(model: str) -> int | None:
            try:
                availability = snapshot.find(model)
            except errors.InvalidName:
                return 0  # the target will refuse it
            if availability is Availability.MISSING:
                return None
            if lane != "gate" or not snapshot.is_running(model):
                return 0
            load = loads.get(model_names.canonical(model), 0.0)
            return round(1000 * min(max(BONUS_LOADS * load, MIN_BONUS), MAX_BONUS))

        return bonus_of

    def _installed(self) -> Callable[[], list[str]]:
        """A function, for any thread, that returns the canonical names of the models that the target has now."""
        installed = self._target.inventory.snapshot().installed or {}
        return lambda: [model_names.format_name(key) for key in installed]

    # one job

    async def _run(self, claim: Claim, turn: Turn | None) -> None:
        job = claim.job
        if turn is not None:
            turn.ticket = self._ticket(job)  # the job that waited for it may have been another one
        attempt = Attempt(self._clock, self._store, claim, self._bounds)
        self._running[job.id] = attempt
        # Streams that follow the job were notified of the claim before there was an attempt to follow.
        self._store.notifications.announce(frozenset((job.id,)))
        try:
            if self._closed:
                attempt.stop(errors.Draining("foreman is stopping"))
            else:
                await attempt.run(self._inference, turn, self._cooperator)
                await self._check_answer(attempt)
            state = await self._settle(attempt)
            self._observer.job_ended(job, state, attempt.record)
        finally:
            del self._running[job.id]
            attempt.end()

    async def _check_answer(self, attempt: Attempt) -> None:
        try:
            await self._answer_check.check(attempt)
        except Exception as problem:  # noqa: BLE001 - no job may be left running for ever
            self._log.failure("checking the answer to job {job} failed", job=attempt.claim.job.id)
            attempt.fail(problem)

    async def _settle(self, attempt: Attempt) -> State | None:
        """Store the outcome, and try again until that succeeds.

        :return: the state of the job now; None where the outcome could not be stored, or the job is no longer this attempt's.
        """
        lane = attempt.claim.job.lane
        while True:
            try:
                return await self._store_outcome(attempt)
            except (StaleClaim, WrongState) as problem:
                self._log.warn("{problem}; its answer is dropped", problem=problem)
            except StoreUnavailable as problem:
                if self._closed or problem.condition == "broken":
                    self._log.error(
                        "the outcome of job {job} cannot be stored ({problem}); it runs again",
                        job=attempt.claim.job.id,
                        problem=problem,
                    )
                    return None
                pause = self._waits[lane] = deferLater(self._clock, STORE_PAUSE)
                with suppress(CancelledError):  # foreman stops: try once more
                    await pause
                continue
            except Exception as problem:  # noqa: BLE001 - no job may be left running for ever
                self._log.failure("storing the outcome of job {job} failed", job=attempt.claim.job.id)
                if attempt.fail(problem):
                    continue
            return None

    async def _store_outcome(self, attempt: Attempt) -> State:
        job, outcome = attempt.claim.job, attempt.outcome()
        summary = attempt.summary()
        if isinstance(outcome, Success):
            await self._store.succeed(attempt.claim, outcome.artifacts, outcome.usage)
            self._log.info("job {job} succeeded: {summary}", job=job.id, summary=summary)
            return "succeeded"
        if isinstance(outcome, AttemptError):
            decide = partial(_after, error=outcome, jitter=self._random())
            if outcome.error_class == "unreachable" and not outcome.reached:
                self._paused_until = Monotonic(self._clock.seconds() + UNREACHED_PAUSE)
            ended = await self._store.end_attempt(attempt.claim, decide, attempt.artifacts_after(outcome))
            self._log.info(
                # The target's error may quote the request, which must not be logged; the job has it.
                "job {job} is {state} ({error}): {summary}",
                job=job.id,
                state=ended.state,
                error=outcome.error_class,
                summary=summary,
            )
            return ended.state
        if isinstance(outcome, errors.Cancelled):
            await self._store.cancel(job.id)  # it may have been cancelled as a request, by DELETE /queue
            ended = await self._store.end_attempt(
                attempt.claim, lambda now_job, _now: _cancelled(now_job), partial_answer(attempt.response)
            )
            self._log.info("job {job} is cancelled: {summary}", job=job.id, summary=summary)
            return ended.state
        released = await self._store.release(attempt.claim)
        self._log.info("job {job} is queued again, since foreman stops: {summary}", job=job.id, summary=summary)
        return released.state


def _after(job: Job, now: int, *, error: AttemptError, jitter: float) -> Transition:
    return next_transition(job, error, now, jitter)


def _cancelled(job: Job) -> Transition:
    return Transition("cancelled", None, counts=False, uncounted_tries=job.uncounted_tries, error=job.error)
