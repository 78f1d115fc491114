"""The retry policy: what becomes of a job when an attempt fails, and when it is tried again."""

from __future__ import annotations

from attrs import frozen

from foreman.jobs.job import ErrorClass, Job, JobError, State

#: How often a job is queued again because foreman died while it ran.
MAX_RESCUES = 3
#: How many attempts in a row may break off at the target before one of them counts.
MAX_UNCOUNTED_TRIES = 3
#: The delay before the second, third, … attempt, in seconds; the last value from then on.
RETRY_DELAYS = (10.0, 30.0, 90.0, 270.0)
#: The longest delay before an attempt, also where the target asks for a longer one, in seconds.
MAX_RETRY_DELAY = 3600.0

#: Failures that are not the job's fault: the attempt does not count.
_UNCOUNTED: frozenset[ErrorClass] = frozenset({"unreachable", "busy", "model_missing", "unauthorized"})
#: Failures that another attempt would only repeat.
_FINAL: frozenset[ErrorClass] = frozenset({"refused", "too_large"})


@frozen
class AttemptError:
    """Why an attempt failed.

    :ivar retry_after: the delay that the target asked for, in seconds; :ivar reached: whether the target had received
        the request, so that the job itself may have caused the failure.
    """

    error_class: ErrorClass
    message: str
    retry_after: float | None = None
    reached: bool = False


@frozen
class Transition:
    """The end of an attempt: what becomes of the job that was running.

    :ivar run_at: when the job may run again, milliseconds since the epoch; None leaves it as it is;
    :ivar counts: whether the attempt counts towards ``max_attempts``;
    :ivar uncounted_tries: the job's new number of attempts in a row that did not count;
    :ivar error: the error to show with the job, None for none.
    """

    state: State
    run_at: int | None
    counts: bool
    uncounted_tries: int
    error: JobError | None


def next_transition(job: Job, failure: AttemptError, now: int, jitter: float) -> Transition:
    """What becomes of the running ``job`` after ``failure``.

    :param now: milliseconds since the epoch; :param jitter: from 0 to 1; spreads the retries of many jobs.
    """
    unreachable = failure.error_class == "unreachable"
    not_reached = unreachable and not failure.reached
    breaks_off_again = unreachable and failure.reached and job.uncounted_tries >= MAX_UNCOUNTED_TRIES
    counts = failure.error_class not in _UNCOUNTED or breaks_off_again
    # An attempt that did not reach the target says nothing about the job: the number neither grows nor is reset.
    uncounted_tries = 0 if counts else job.uncounted_tries if not_reached else job.uncounted_tries + 1
    # ``attempt`` already includes this one: the claim has counted it.
    error = JobError(failure.error_class, failure.message, job.attempt)
    if job.cancel_asked_at is not None:
        return Transition("cancelled", None, counts, 0, None)
    if failure.error_class in _FINAL:
        return Transition("failed", None, counts=True, uncounted_tries=0, error=error)
    if failure.error_class == "expired":
        return Transition("discarded", None, counts=True, uncounted_tries=0, error=error)
    if counts and job.attempt >= job.max_attempts:
        return Transition("discarded", None, counts=True, uncounted_tries=0, error=error)
    # The worker claims nothing while the target cannot be reached, so the job needs no delay of its own.
    tries = job.attempt if counts else uncounted_tries
    delay = 0.0 if not_reached else retry_delay(tries, failure.retry_after, jitter)
    run_at = now + round(1000 * delay)
    if job.deadline is not None and run_at >= job.deadline:
        expired = JobError(
            "expired", f"its deadline comes before the next attempt; the last error: {failure.message}", job.attempt
        )
        return Transition("discarded", None, counts, uncounted_tries, expired)
    if not_reached:
        return Transition("queued", None, counts=False, uncounted_tries=uncounted_tries, error=error)
    return Transition("scheduled", run_at, counts, uncounted_tries, error)


def retry_delay(tries: int, retry_after: float | None, jitter: float) -> float:
    """The delay before the next attempt, in seconds: half of it is fixed, the other half is multiplied by ``jitter``.

    :param tries: attempts so far, 1 or more; :param retry_after: what the target asked for; it takes precedence.
    """
    if retry_after is not None:
        return min(MAX_RETRY_DELAY, max(1.0, retry_after))  # in this order NaN becomes 1.0
    whole = RETRY_DELAYS[min(max(tries, 1), len(RETRY_DELAYS)) - 1]
    return whole / 2 + whole / 2 * jitter


def rescue_transition(job: Job) -> Transition:
    """What becomes of a job that was running when foreman died."""
    if job.cancel_asked_at is not None:
        return Transition("cancelled", None, counts=False, uncounted_tries=0, error=None)
    error = JobError("lost", "foreman died while this job was running", job.attempt)
    if job.rescues >= MAX_RESCUES:
        return Transition("discarded", None, counts=False, uncounted_tries=0, error=error)
    return Transition("queued", None, counts=False, uncounted_tries=0, error=error)
