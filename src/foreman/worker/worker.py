"""Runs jobs: takes one when its turn has come, and writes down what became of it."""

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
from foreman.worker.outcome import Success, until_then

LANES: tuple[JobLane, ...] = ("gate", "embedding")
#: How often it is looked whether a job can run that cannot now: its model is missing, or the target away; seconds.
RECHECK = 5.0
#: How long the worker leaves a store alone that could not be used, in seconds.
STORE_PAUSE = 5.0
#: How long nothing is taken when a try has not reached the target, though it lists its models; seconds.
MISSED_PAUSE = 1.0
#: By how much jobs of a loaded model go before others: so many times what loading takes, within bounds; seconds.
BONUS_LOADS, LEAST_BONUS, MAX_BONUS = 6.0, 30.0, 300.0


@define(eq=False)
class Worker:
    """Runs one chat's job at a time, through the gate, and beside it one job of embeddings.

    :ivar random: from 0 to 1, for pauses; :ivar patience: after how many seconds a job counts as overdue;
    :ivar bounds: of each try.
    """

    _clock: IReactorTime
    _store: JobStore
    _target: Target
    _inference: Inference
    _cooperator: Cooperator
    _random: Callable[[], float]
    _patience: float
    _bounds: Bounds
    _observer: Observer = field(factory=Observers)
    _running: dict[str, Attempt] = field(factory=dict, init=False)
    _lanes: TrackedSet[JobLane] = field(factory=TrackedSet, init=False)
    _nudges: Waiters[None] = field(factory=Waiters, init=False)
    _waits: dict[JobLane, Deferred[Any]] = field(factory=dict, init=False)
    _missed_until: Monotonic = field(default=NEVER, init=False)
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
        """The lines of a job that runs now, if its answer comes in lines."""
        attempt = self._running.get(id_)
        return None if attempt is None else attempt.output

    def cancel(self, id_: str) -> None:
        """Break the job off, if it runs; that it was cancelled stands in the store already."""
        attempt = self._running.get(id_)
        if attempt is not None:
            attempt.work.stop(errors.Cancelled("this job was cancelled by hand"))

    # stopping

    def close(self) -> None:
        """Take no more jobs; what runs goes on."""
        self._closed = True
        for wait in list(self._waits.values()):
            wait.cancel()
        self.nudge()

    def when_idle(self) -> Deferred[None]:
        """Fires when everything is written down and nothing runs, once it was closed."""
        return self._lanes.when_empty()

    # taking jobs

    async def _work(self, lane: JobLane) -> None:
        while not self._closed:
            with cancelling(self._nudges.wait()) as nudged:  # made before looking, so that no nudge is lost
                pause: float | None = STORE_PAUSE
                try:
                    pause = await self._take(lane)
                except CancelledError:
                    pause = 0.0  # foreman stops, or the job that waited for its turn is not to run any more
                except (StoreUnavailable, errors.Draining):
                    pass  # the store has said so; the gate closes as the worker does
                except Exception:  # noqa: BLE001 - the worker goes on with the next job
                    self._log.failure("taking a job failed")
                if pause is None or pause > 0:
                    await self._wait(nudged, pause)

    async def _wait(self, nudged: Deferred[None], pause: float | None) -> None:
        if pause is not None and not nudged.called:
            nudged.addTimeout(pause, self._clock, onTimeoutCancel=lambda _result, _timeout: None)
        if not self._closed:
            await nudged

    async def _take(self, lane: JobLane) -> float | None:
        """Run the next job of ``lane``, when there is one and its turn has come.

        :return: how long to wait before looking again, in seconds; None until somebody nudges.
        """
        inventory = self._target.inventory
        if (left := max(self._missed_until - self._clock.seconds(), self._answer_check.pause(lane))) > 0:
            return left
        # What is not known yet is asked first too, so that the model that is loaded already goes first.
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
            inventory.hold(lane, None)  # nobody is held any more
            return None
        turn = await self._turn_for(lane, head)
        try:
            # While it waited for its turn foreman may have been stopped, or the target have gone away.
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
        # Cancelled or expired meanwhile, it leaves the room: no load is to go on for it.
        changed = self._store.notifications.when_changed(head.id)
        changed.addCallbacks(lambda _: entering.cancel(), lambda _: None)
        try:
            return await entering
        finally:
            changed.cancel()
            del self._waits[lane]

    def _ticket(self, job: Job) -> Ticket:
        waited = (self._store.now() - job.run_at) / 1000
        overdue_at = Monotonic(self._clock.seconds() + self._patience - waited)
        return Ticket(job.id, job.owner, job.model, job.endpoint, EpochSeconds(job.run_at / 1000), overdue_at)

    def _gate_for(self, lane: JobLane, head: Job) -> Gate | None:
        if lane == "gate":
            return self._target.gate
        with suppress(errors.InvalidName):  # the target will say so
            if self._target.inventory.find(head.model) is Availability.CLOUD:
                return None  # it keeps nobody from the machine here
        return self._target.embeddings

    def _bonuses(self, lane: JobLane) -> Callable[[str], int | None]:
        """How far each model's jobs go before others, as things are now: a function that any thread may call."""
        snapshot = self._target.inventory.snapshot()
        loads = self._target.estimates.load_times()

        def bonus_of(model: str) -> int | None:
            try:
                availability = snapshot.find(model)
            except errors.InvalidName:
                return 0  # the target will say so
            if availability is Availability.MISSING:
                return None
            if lane != "gate" or not snapshot.is_running(model):
                return 0
            load = loads.get(model_names.canonical(model), 0.0)
            return round(1000 * min(max(BONUS_LOADS * load, LEAST_BONUS), MAX_BONUS))

        return bonus_of

    def _installed(self) -> Callable[[], list[str]]:
        """The canonical names of the models that the target has now, as a function that any thread may call."""
        installed = self._target.inventory.snapshot().installed or {}
        return lambda: [model_names.format_name(key) for key in installed]

    # one job

    async def _run(self, claim: Claim, turn: Turn | None) -> None:
        job = claim.job
        if turn is not None:
            turn.ticket = self._ticket(job)  # who waited for it may have been another
        attempt = Attempt(self._clock, self._store, claim, self._bounds)
        self._running[job.id] = attempt
        # Whoever follows the job was told of the claim before there was anything to follow.
        self._store.notifications.announce(frozenset((job.id,)))
        try:
            if self._closed:
                attempt.stop(errors.Draining("foreman is stopping"))
            else:
                await attempt.run(self._inference, turn, self._cooperator)
                await self._look_into(attempt)
            state = await self._settle(attempt)
            self._observer.job_ended(job, state, attempt.record)
        finally:
            del self._running[job.id]
            attempt.end()

    async def _look_into(self, attempt: Attempt) -> None:
        try:
            await self._answer_check.look_into(attempt)
        except Exception as problem:  # noqa: BLE001 - no job is to be left as running for ever
            self._log.failure("looking into the answer to job {job} failed", job=attempt.claim.job.id)
            attempt.fail(problem)

    async def _settle(self, attempt: Attempt) -> State | None:
        """Store the outcome, and try again until that succeeds.

        :return: the state of the job now; None where the outcome could not be stored, or was no longer wanted.
        """
        lane = attempt.claim.job.lane
        while True:
            try:
                return await self._write_down(attempt)
            except (StaleClaim, WrongState) as problem:
                self._log.warn("{problem}; its answer is dropped", problem=problem)
            except StoreUnavailable as problem:
                if self._closed or problem.condition == "broken":
                    self._log.error(
                        "what became of job {job} cannot be written down ({problem}); it runs again",
                        job=attempt.claim.job.id,
                        problem=problem,
                    )
                    return None
                pause = self._waits[lane] = deferLater(self._clock, STORE_PAUSE)
                with suppress(CancelledError):  # foreman stops: once more
                    await pause
                continue
            except Exception as problem:  # noqa: BLE001 - no job is to be left as running for ever
                self._log.failure("writing down what became of job {job} failed", job=attempt.claim.job.id)
                if attempt.fail(problem):
                    continue
            return None

    async def _write_down(self, attempt: Attempt) -> State:
        job, outcome = attempt.claim.job, attempt.outcome()
        told = attempt.told()
        if isinstance(outcome, Success):
            await self._store.succeed(attempt.claim, outcome.artifacts, outcome.usage)
            self._log.info("job {job} succeeded: {told}", job=job.id, told=told)
            return "succeeded"
        if isinstance(outcome, AttemptError):
            decide = partial(_after, mishap=outcome, jitter=self._random())
            if outcome.error_class == "unreachable" and not outcome.reached:
                self._missed_until = Monotonic(self._clock.seconds() + MISSED_PAUSE)
            ended = await self._store.end_attempt(attempt.claim, decide, attempt.remains(outcome))
            self._log.info(
                # What the target says of a request may repeat it; the job has it, the log has not.
                "job {job} is {state} ({error}): {told}",
                job=job.id,
                state=ended.state,
                error=outcome.error_class,
                told=told,
            )
            return ended.state
        if isinstance(outcome, errors.Cancelled):
            await self._store.cancel(job.id)  # it may have been cancelled as a request, in the line
            ended = await self._store.end_attempt(
                attempt.claim, lambda now_job, _now: _cancelled(now_job), until_then(attempt.heard)
            )
            self._log.info("job {job} is cancelled: {told}", job=job.id, told=told)
            return ended.state
        released = await self._store.release(attempt.claim)
        self._log.info("job {job} is queued again, since foreman stops: {told}", job=job.id, told=told)
        return released.state


def _after(job: Job, now: int, *, mishap: AttemptError, jitter: float) -> Transition:
    return next_transition(job, mishap, now, jitter)


def _cancelled(job: Job) -> Transition:
    return Transition("cancelled", None, counts=False, uncounted_tries=job.uncounted_tries, error=job.error)
