"""Check one job of the final state by itself: its states, attempts, fences, artifacts and response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import cast

from crash import prompts
from crash.history import Arrival, Attempt, Row
from crash.prompts import Prompt
from foreman.jobs.job import ENDED, FOLLOWS, State
from foreman.jobs.retry_policy import MAX_RESCUES

#: The events by which a running job returns to the queue.
_BACK = frozenset({"released", "rescued"})
#: Errors that do not count as an attempt; but a target that repeatedly closes the connection before it answers may count.
_NOT_COUNTED = frozenset({"unreachable", "busy", "model_missing", "unauthorized"})

Finding = tuple[str, str]


def check(row: Row, arrivals: Mapping[int, Arrival], *, cancelled: bool) -> Iterator[Finding]:
    """The findings of one job, given the arrivals by their numbers, and whether a client may have cancelled the job."""
    yield from _order(row)
    yield from _shape(row)
    yield from _fences(row)
    yield from _attempts(row)
    if row.state == "succeeded":
        yield from _answer(row, arrivals)
    if row.state in ENDED:
        yield from _justified_end(row, cancelled=cancelled)


def _order(row: Row) -> Iterator[Finding]:
    states: list[State] = []
    for event in row.events:
        # A rescued job is queued, unless the next event ends it.
        state: State = "queued" if event.type in _BACK else cast("State", event.type)
        allowed = state in FOLLOWS[states[-1]] if states else state in {"queued", "scheduled"}
        if not allowed:
            yield "illegal", f"{row.id} went from {states[-1] if states else 'nothing'} to {event.type}"
        states.append(state)
    if not states or states[-1] != row.state:
        yield "illegal", f"{row.id} is {row.state}, but its event log ends with {states[-1] if states else 'nothing'}"
    if states.count("succeeded") > 1:
        yield "duplicated", f"{row.id} succeeded {states.count('succeeded')} times"


def _shape(row: Row) -> Iterator[Finding]:
    running = row.state == "running"
    if running != (row.boot is not None):
        yield "illegal", f"{row.id} is {row.state}, but {'no' if running else 'an'} instance runs it"
    if (row.state in ENDED) != row.finished:
        yield "illegal", f"{row.id} is {row.state}, but finished_at is {'' if row.finished else 'not '}set"
    still_open = [attempt.fence for attempt in row.attempts if attempt.ended_at is None]
    if len(still_open) != (1 if running else 0):
        yield "illegal", f"{row.id} is {row.state}, but {len(still_open)} of its attempts are open"
    if row.pieces and not running:
        yield "torn", f"{row.id} is {row.state}, but pieces of an attempt are left"
    for name, kept in row.artifacts.items():
        if kept.size != len(kept.data) or kept.sha256 != sha256(kept.data).hexdigest():
            yield "torn", f"the artifact {name} of {row.id} does not match the size and digest of its row"


def _fences(row: Row) -> Iterator[Finding]:
    """Each claim and each rescue increases the fence, so that earlier claims become stale."""
    last = 0
    for event in row.events:
        if event.type in {"running", "rescued"}:
            if event.fence <= last:
                yield (
                    "stale",
                    f"{row.id} was {event.type} with the fence {event.fence}, which is not greater than the one before",
                )
            last = event.fence
    if row.fence != last:
        yield "stale", f"{row.id} has the fence {row.fence}, but its event log ends with {last}"


def _attempts(row: Row) -> Iterator[Finding]:
    """The attempts that count are those that ended by themselves since a user last queued the job."""
    since = 0
    for before, event in zip(row.events, row.events[1:], strict=False):
        if before.type in ENDED and event.type == "queued":
            since = event.fence
    counted = [attempt for attempt in row.attempts if attempt.fence > since and _counts(attempt)]
    # Whether a cancelled attempt counts depends on when it was cancelled.
    unsure = sum(
        attempt.fence > since and (attempt.outcome == "cancelled" or attempt.error_class == "unreachable")
        for attempt in row.attempts
    )
    running = row.state == "running"
    if not len(counted) <= row.attempt - running <= len(counted) + unsure:
        yield "unjustified", f"{row.id} counts {row.attempt} attempts, but had {len(counted)}"


def _counts(attempt: Attempt) -> bool:
    return (
        attempt.ended_at is not None
        and attempt.outcome not in {*_BACK, "cancelled"}
        and attempt.error_class not in _NOT_COUNTED
    )


def _answer(row: Row, arrivals: Mapping[int, Arrival]) -> Iterator[Finding]:
    response = row.artifacts.get("response")
    if response is None:
        yield "torn", f"{row.id} succeeded without a response"
        return
    answers = [prompts.read_response(row.endpoint, response.data)]
    if row.endpoint in {"/api/chat", "/api/generate"}:
        stream = row.artifacts.get("stream")
        answers.append(None if stream is None else prompts.read_stream(row.endpoint, stream.data))
    if any(answer is None or answer[0] != prompts.checksum(row.prompt) for answer in answers) or len(set(answers)) > 1:
        yield "torn", f"the answer of {row.id} is not what the target sent"
        return
    assert answers[0] is not None
    arrival = arrivals.get(answers[0][1])
    winners = [attempt for attempt in row.attempts if attempt.outcome == "succeeded"]
    if arrival is None or arrival.prompt != row.prompt:
        yield "torn", f"the answer of {row.id} belongs to another job"
    elif len(winners) != 1:
        yield "illegal", f"{len(winners)} attempts of {row.id} succeeded"
    elif arrival.wall < winners[0].started_at or response.fence != winners[0].fence:
        yield "stale", f"the answer of {row.id} came from an earlier attempt than the one recorded as succeeded"


def _justified_end(row: Row, *, cancelled: bool) -> Iterator[Finding]:
    """Whether the end of the job has a cause: the target's answer, a cancel, a deadline, or too many rescues."""
    behaviour = Prompt.read(row.prompt).behaviour if row.prompt.count(" ") >= 2 else "ok"
    rescues = sum(event.type == "rescued" for event in row.events)
    if row.state == "cancelled":
        justified = cancelled
    elif row.state == "succeeded":
        justified = behaviour == "ok"
    elif row.error_class == "lost":
        justified = rescues > MAX_RESCUES
    elif row.error_class == "expired":
        justified = True
    else:
        justified = behaviour != "ok"
    if not justified:
        yield (
            "unjustified",
            f"{row.id} is {row.state} ({row.error_class}), but its prompt tells the target to: {behaviour}",
        )
