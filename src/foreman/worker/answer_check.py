"""Checks whether the answers to jobs are Ollama's own, and holds jobs back while something else answers."""

from __future__ import annotations

from hashlib import sha256

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from foreman import errors
from foreman.jobs.job import JobLane
from foreman.jobs.retry_policy import MAX_UNCOUNTED_TRIES, AttemptError
from foreman.protocol.answer_origin import GATEWAY_STATUSES, MAX_EXAMINED
from foreman.target.inventory import FRESH_FOR, Inventory
from foreman.util.clock import NEVER, Monotonic
from foreman.worker.attempt import Attempt
from foreman.worker.outcome import AttemptResponse

#: After so many foreign answers in a row a lane is paused, although the target lists its models.
MAX_FOREIGN = 3
#: How long the pause is before one more job is tried, in seconds: doubled each time, up to the longest.
PAUSE, LONGEST_PAUSE = 30.0, 480.0
#: How many errors are kept after which the target listed its models.
_MAX_CONFIRMED = 64

#: Errors that do not depend on the answer.
_NOT_OF_THE_ANSWER = frozenset({"expired", "too_large"})
#: Errors after which the job is tried again without counting an attempt: they need not be overridden. A gateway's error
#: about a target that it cannot reach, or that takes too long, is not overridden either, but does count: each attempt may
#: have cost the target a whole answer.
_UNCOUNTED = frozenset({"busy", "unauthorized"})


@define
class _Lane:
    """The answers to the jobs of a lane.

    :ivar in_a_row: foreign answers since the last one of Ollama's; :ivar until: no job is started before.
    """

    in_a_row: int = 0
    until: Monotonic = NEVER


@define(eq=False)
class AnswerCheck:
    """Checks each answer before it decides about its job.

    A gateway's errors can look exactly like Ollama's, so that the target's lists are fetched at every error for which an
    attempt would count. They are not fetched again for a second while the target lists its models and the same error is
    repeated, as when a thousand jobs have the same mistake.
    """

    _clock: IReactorTime
    _inventory: Inventory
    _lanes: dict[JobLane, _Lane] = field(factory=dict, init=False)
    _confirmed_until: dict[bytes, Monotonic] = field(factory=dict, init=False)
    _log = Logger()

    def pause(self, lane: JobLane) -> float:
        """For how many seconds no job of ``lane`` may be started; 0 or less: it may now."""
        found = self._lanes.get(lane)
        return 0.0 if found is None else found.until - self._clock.seconds()

    async def check(self, attempt: Attempt) -> None:
        """Override the outcome of ``attempt`` where the answer was not Ollama's; fetches the target's lists where needed."""
        lane, response = attempt.claim.job.lane, attempt.response
        if response.status is None:
            return
        origin, outcome = response.origin(), attempt.outcome()
        if origin == "ollama" and not _costs_an_attempt(response, outcome):
            self._clear(lane)
            return
        if not isinstance(outcome, AttemptError) or outcome.error_class in _NOT_OF_THE_ANSWER:
            return
        answer = f"{response.status}, {outcome.message.removeprefix(f'{response.status}: ')}"
        if not await self._lists_models(response):
            self._clear(lane)
            degraded = self._inventory.degraded
            if degraded is None:  # foreman stops, and the lists are fetched no more
                attempt.stop(errors.Draining("foreman is stopping"))
            else:
                attempt.override(AttemptError("unreachable", f"{degraded.detail}; the answer to this job was {answer}"))
            return
        if origin == "ollama":
            self._clear(lane)
        elif origin == "foreign":
            self._count(lane, response.status)
            is_uncounted = outcome.error_class in _UNCOUNTED or response.status in GATEWAY_STATUSES
            if attempt.claim.job.uncounted_tries < MAX_UNCOUNTED_TRIES and not is_uncounted:
                text = f"not Ollama's own answer, although Ollama is there: {answer}"
                attempt.override(AttemptError("unreachable", text, reached=True))

    async def _lists_models(self, response: AttemptResponse) -> bool:
        """Whether the target lists its models; not fetched again where it did just now, after the same error."""
        now = self._clock.seconds()
        digest = sha256(b"%d " % (response.status or 0) + response.beginning(MAX_EXAMINED)).digest()
        if self._inventory.degraded is None and now < self._confirmed_until.get(digest, float("-inf")):
            return True
        lists_models = await self._inventory.refresh()
        self._confirmed_until = (
            {error: until for error, until in self._confirmed_until.items() if now < until} if lists_models else {}
        )
        if lists_models and len(self._confirmed_until) < _MAX_CONFIRMED:
            self._confirmed_until[digest] = Monotonic(now + FRESH_FOR)
        return lists_models

    def _count(self, lane: JobLane, status: int) -> None:
        found = self._lanes.setdefault(lane, _Lane())
        found.in_a_row += 1
        if found.in_a_row < MAX_FOREIGN:
            return
        pause = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(found.in_a_row - MAX_FOREIGN, 10))
        found.until = Monotonic(self._clock.seconds() + pause)
        # The answer may quote a request, which other jobs and the log must not have; its own job has it.
        why = (
            f"the last {found.in_a_row} answers to jobs of the lane {lane} were not Ollama's own (the last had status "
            f"{status}), although Ollama lists its models: something between foreman and Ollama seems to answer them; "
            "one job is tried from time to time"
        )
        if found.in_a_row == MAX_FOREIGN:
            self._log.warn("jobs wait: {why}", why=why)
        self._inventory.hold(lane, why)

    def _clear(self, lane: JobLane) -> None:
        if self._lanes.pop(lane, None) is not None:
            self._inventory.hold(lane, None)


def _costs_an_attempt(response: AttemptResponse, outcome: object) -> bool:
    """Whether the answer is an error that ends the job, or counts as an attempt."""
    if response.status is None or response.status < 400 or not isinstance(outcome, AttemptError):
        return False
    return outcome.error_class in {"refused", "target_error"}
