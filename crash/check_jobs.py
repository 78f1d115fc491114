"""Whether one job in the file is as it should be: its states, its tries, its answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import cast

from crash import prompts
from crash.history import Arrival, Attempt, Row
from crash.prompts import Prompt
from foreman.jobs.job import ENDED, FOLLOWS, MAX_RESCUES, State

#: What the log calls a job that was given back.
_BACK = frozenset({"released", "rescued"})
#: What burns no attempt: but a target that breaks off before it answers, again and again, may.
_BLAMELESS = frozenset({"unreachable", "busy", "model_missing", "unauthorized"})

Finding = tuple[str, str]


def check(row: Row, arrivals: Mapping[int, Arrival], *, cancelled: bool) -> Iterator[Finding]:
    """What is wrong with it. ``arrivals`` by their numbers; ``cancelled``: whether anybody may have asked for that."""
    yield from _order(row)
    yield from _shape(row)
    yield from _fences(row)
    yield from _burned(row)
    if row.state == "succeeded":
        yield from _answer(row, arrivals)
    if row.state in ENDED:
        yield from _just_end(row, cancelled=cancelled)


def _order(row: Row) -> Iterator[Finding]:
    states: list[State] = []
    for event in row.events:
        # A rescued job is queued, unless its end stands in the next row.
        state: State = "queued" if event.type in _BACK else cast("State", event.type)
        allowed = state in FOLLOWS[states[-1]] if states else state in {"queued", "scheduled"}
        if not allowed:
            yield "illegal", f"{row.id} went from {states[-1] if states else 'nothing'} to {event.type}"
        states.append(state)
    if not states or states[-1] != row.state:
        yield "illegal", f"{row.id} is {row.state}, and its log ends with {states[-1] if states else 'nothing'}"
    if states.count("succeeded") > 1:
        yield "doubled", f"{row.id} succeeded {states.count('succeeded')} times"


def _shape(row: Row) -> Iterator[Finding]:
    running = row.state == "running"
    if running != (row.boot is not None):
        yield "illegal", f"{row.id} is {row.state}, and {'nobody' if running else 'somebody'} runs it"
    if (row.state in ENDED) != row.finished:
        yield "illegal", f"{row.id} is {row.state}, and its end is {'' if row.finished else 'not '}noted"
    still_open = [attempt.fence for attempt in row.attempts if attempt.ended_at is None]
    if len(still_open) != (1 if running else 0):
        yield "illegal", f"{row.id} is {row.state}, and {len(still_open)} of its tries are open"
    if row.pieces and not running:
        yield "torn", f"{row.id} is {row.state}, and pieces of a try are left"
    for name, kept in row.artifacts.items():
        if kept.size != len(kept.data) or kept.sha256 != sha256(kept.data).hexdigest():
            yield "torn", f"the artifact {name} of {row.id} is not what its row says"


def _fences(row: Row) -> Iterator[Finding]:
    """A claim and a rescue each make the fence greater, so that whoever held it before holds it no more."""
    last = 0
    for event in row.events:
        if event.type in {"running", "rescued"}:
            if event.fence <= last:
                yield "stale", f"{row.id} was {event.type} with the fence {event.fence}, which was given before"
            last = event.fence
    if row.fence != last:
        yield "stale", f"{row.id} has the fence {row.fence}, and its log ends with {last}"


def _burned(row: Row) -> Iterator[Finding]:
    """Tries that count are those that came to an end of their own, since the job was last queued by hand."""
    since = 0
    for before, event in zip(row.events, row.events[1:], strict=False):
        if before.type in ENDED and event.type == "queued":
            since = event.fence
    counted = [attempt for attempt in row.attempts if attempt.fence > since and _counts(attempt)]
    # Of one that was cancelled it depends on when.
    unsure = sum(
        attempt.fence > since and (attempt.outcome == "cancelled" or attempt.error_class == "unreachable")
        for attempt in row.attempts
    )
    running = row.state == "running"
    if not len(counted) <= row.attempt - running <= len(counted) + unsure:
        yield "burned", f"{row.id} counts {row.attempt} tries, and had {len(counted)}"


def _counts(attempt: Attempt) -> bool:
    return (
        attempt.ended_at is not None
        and attempt.outcome not in {*_BACK, "cancelled"}
        and attempt.error_class not in _BLAMELESS
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
        yield "torn", f"the answer of {row.id} is not what the target said"
        return
    assert answers[0] is not None
    arrival = arrivals.get(answers[0][1])
    winners = [attempt for attempt in row.attempts if attempt.outcome == "succeeded"]
    if arrival is None or arrival.prompt != row.prompt:
        yield "torn", f"the answer of {row.id} is another job's"
    elif len(winners) != 1:
        yield "illegal", f"{len(winners)} tries of {row.id} succeeded"
    elif arrival.wall < winners[0].started_at or response.fence != winners[0].fence:
        yield "stale", f"the answer of {row.id} is that of an earlier try than the one that is said to have succeeded"


def _just_end(row: Row, *, cancelled: bool) -> Iterator[Finding]:
    """Whether the job ended as the target said, or for a reason of its own."""
    behaviour = Prompt.read(row.prompt).behaviour if row.prompt.count(" ") >= 2 else "ok"
    rescues = sum(event.type == "rescued" for event in row.events)
    if row.state == "cancelled":
        just = cancelled
    elif row.state == "succeeded":
        just = behaviour == "ok"
    elif row.error_class == "lost":
        just = rescues > MAX_RESCUES
    elif row.error_class == "expired":
        just = True
    else:
        just = behaviour != "ok"
    if not just:
        yield "burned", f"{row.id} is {row.state} ({row.error_class}), and the target was told to: {behaviour}"
