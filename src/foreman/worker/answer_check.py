"""Answers to jobs that Ollama does not give: is the target there, what becomes of the job, and when jobs stop."""

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

#: So many foreign answers in a row stop a lane, although the target lists its models.
ENOUGH = 3
#: How long a lane then stands still before one more job is tried, in seconds: doubled each time, up to the longest.
PAUSE, LONGEST_PAUSE = 30.0, 480.0
#: How many refusals are remembered that came while the target listed its models.
_MAX_REMEMBERED = 64

#: What it comes to whatever the answer is.
_NOT_OF_THE_ANSWER = frozenset({"expired", "too_large"})
#: What is tried again in any case and counts as no attempt, so that nothing has to be overruled. What a gateway says of a
#: target that it cannot reach or that takes too long is not overruled either, but does count as an attempt: each time may
#: have cost the target a whole answer.
_HARMLESS = frozenset({"busy", "unauthorized"})


@define
class _Lane:
    """What was heard in a lane.

    :ivar in_a_row: foreign answers since the last of Ollama's; :ivar until: no job is taken before.
    """

    in_a_row: int = 0
    until: Monotonic = NEVER


@define(eq=False)
class AnswerCheck:
    """Looks into each answer before its job is judged by it.

    A gateway can refuse in the very form that Ollama has, so that the target is asked at every refusal by which a job would
    lose a try. It is not asked again for a second where it lists its models and the same refusal is repeated: that is how
    a thousand jobs with the same mistake come back.
    """

    _clock: IReactorTime
    _inventory: Inventory
    _lanes: dict[JobLane, _Lane] = field(factory=dict, init=False)
    _believed: dict[bytes, Monotonic] = field(factory=dict, init=False)
    _log = Logger()

    def pause(self, lane: JobLane) -> float:
        """For how many seconds no job of ``lane`` is to be taken; 0 or less: none."""
        seen = self._lanes.get(lane)
        return 0.0 if seen is None else seen.until - self._clock.seconds()

    async def look_into(self, attempt: Attempt) -> None:
        """Overrule what ``attempt`` came to where that was not Ollama's doing; asks the target where that is needed."""
        lane, heard = attempt.claim.job.lane, attempt.heard
        if heard.status is None:
            return
        origin, outcome = heard.origin(), attempt.outcome()
        if origin == "ollama" and not _costs_a_try(heard, outcome):
            self._clear(lane)
            return
        if not isinstance(outcome, AttemptError) or outcome.error_class in _NOT_OF_THE_ANSWER:
            return
        told = f"{heard.status}, {outcome.message.removeprefix(f'{heard.status}: ')}"
        if not await self._is_there(heard):
            self._clear(lane)
            degraded = self._inventory.degraded
            if degraded is None:  # foreman stops, and asks nobody any more
                attempt.stop(errors.Draining("foreman is stopping"))
            else:
                attempt.overrule(AttemptError("unreachable", f"{degraded.detail}; the answer to this job was {told}"))
            return
        if origin == "ollama":
            self._clear(lane)
        elif origin == "foreign":
            self._count(lane, heard.status)
            spared = outcome.error_class in _HARMLESS or heard.status in GATEWAY_STATUSES
            if attempt.claim.job.uncounted_tries < MAX_UNCOUNTED_TRIES and not spared:
                text = f"not Ollama's own answer, although Ollama is there: {told}"
                attempt.overrule(AttemptError("unreachable", text, reached=True))

    async def _is_there(self, heard: AttemptResponse) -> bool:
        """Whether the target lists its models; asks it, unless it did when the same was heard just now."""
        now = self._clock.seconds()
        mark = sha256(b"%d " % (heard.status or 0) + heard.beginning(MAX_EXAMINED)).digest()
        if self._inventory.degraded is None and now < self._believed.get(mark, float("-inf")):
            return True
        is_there = await self._inventory.refresh()
        self._believed = {one: until for one, until in self._believed.items() if now < until} if is_there else {}
        if is_there and len(self._believed) < _MAX_REMEMBERED:
            self._believed[mark] = Monotonic(now + FRESH_FOR)
        return is_there

    def _count(self, lane: JobLane, status: int) -> None:
        seen = self._lanes.setdefault(lane, _Lane())
        seen.in_a_row += 1
        if seen.in_a_row < ENOUGH:
            return
        pause = min(LONGEST_PAUSE, PAUSE * 2.0 ** min(seen.in_a_row - ENOUGH, 10))
        seen.until = Monotonic(self._clock.seconds() + pause)
        # What was said may repeat a request: its job has it, the others and the log have not.
        why = (
            f"the last {seen.in_a_row} answers to jobs of the lane {lane} were not Ollama's own (the last had status "
            f"{status}), although Ollama lists its models: something between foreman and Ollama seems to answer them; "
            "one job is tried from time to time"
        )
        if seen.in_a_row == ENOUGH:
            self._log.warn("jobs wait: {why}", why=why)
        self._inventory.hold(lane, why)

    def _clear(self, lane: JobLane) -> None:
        if self._lanes.pop(lane, None) is not None:
            self._inventory.hold(lane, None)


def _costs_a_try(heard: AttemptResponse, outcome: object) -> bool:
    """Whether the answer is a refusal that ends the job, or is counted against it."""
    if heard.status is None or heard.status < 400 or not isinstance(outcome, AttemptError):
        return False
    return outcome.error_class in {"refused", "target_error"}
