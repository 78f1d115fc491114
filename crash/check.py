"""Check a recorded history and the final state of the database against the promises of docs/jobs.md.

Pure functions of values: each violation is a finding, which has a kind.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from math import inf

from attrs import define, field

from crash import check_jobs
from crash.history import GONE, Change, FinalState, History, Row
from foreman.jobs.job import ACTIVE, ENDED

#: The kinds of findings, and what each means.
KINDS = {
    "lost": "acknowledged, but missing",
    "duplicated": "present twice, or run again",
    "phantom": "present, but never submitted",
    "regressed": "seen, and different later",
    "torn": "incomplete",
    "illegal": "a transition or value that no state allows",
    "stale": "written by a claim that had ended",
    "unjustified": "an attempt or an end without cause",
    "stuck": "runnable, but never ended",
    "damaged": "SQLite reports an error",
    "miscounted": "the counter differs from the count",
}


@define
class _Facts:
    """The history, indexed by job."""

    history: History
    state: FinalState
    rows: dict[str, Row] = field(init=False)
    by_prompt: dict[str, list[Row]] = field(init=False)
    changes: dict[str, list[Change]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rows = {row.id: row for row in self.state.rows}
        self.by_prompt, self.changes = defaultdict(list), defaultdict(list)
        for row in self.state.rows:
            self.by_prompt[row.prompt].append(row)
        for change in self.history.changes:
            self.changes[change.id].append(change)

    def could_explain(self, kinds: Iterable[str], id_: str, began: float = -inf, ended: float = inf) -> bool:
        """Whether a change of one of these kinds may have happened to the job between two times."""
        return any(
            change.kind in kinds and change.outcome != "refused" and change.began <= ended and change.ended >= began
            for change in self.changes[id_]
        )


Finding = tuple[str, str]


def check(history: History, state: FinalState) -> list[Finding]:
    """Every finding: its kind, and a sentence."""
    facts = _Facts(history, state)
    found: list[Finding] = []
    steps: tuple[Callable[[_Facts], Iterator[Finding]], ...] = (
        _lost, _duplicated, _run_again, _phantom, _incomplete_arrays, _regressed, _artifacts, _retries, _database,
    )  # fmt: skip
    for step in steps:
        found += step(facts)
    numbers = {arrival.number: arrival for arrival in history.arrivals}
    for row in state.rows:
        cancelled = facts.could_explain({"cancel"}, row.id)
        found += check_jobs.check(row, numbers, cancelled=cancelled)
    return found


def _lost(facts: _Facts) -> Iterator[Finding]:
    for enqueue in facts.history.enqueues:
        for id_ in enqueue.ids:
            if id_ not in facts.rows and not facts.could_explain({"delete"}, id_):
                yield "lost", f"{id_} was acknowledged"
    for seen in facts.history.observations:
        if seen.state != GONE and seen.id not in facts.rows and not facts.could_explain({"delete"}, seen.id):
            yield "lost", f"{seen.id} was seen as {seen.state}"


def _duplicated(facts: _Facts) -> Iterator[Finding]:
    keys = Counter((row.owner, row.key) for row in facts.state.rows if row.key is not None)
    for (_owner, name), count in keys.items():
        if count > 1:
            yield "duplicated", f"{count} jobs have the key {name}"
    given: dict[str, set[str]] = defaultdict(set)
    for enqueue in facts.history.enqueues:
        for key, id_ in zip(enqueue.keys, enqueue.ids, strict=False):
            if key is not None:
                given[key].add(id_)
    for key, ids in given.items():
        lasting = [id_ for id_ in ids if not facts.could_explain({"delete"}, id_)]
        if len(lasting) > 1:
            yield "duplicated", f"the key {key} was answered with {sorted(lasting)}"
    for prompt, rows in facts.by_prompt.items():
        if len(rows) > 1:
            yield "duplicated", f"{len(rows)} jobs have the prompt {prompt[:40]!r}"


def _run_again(facts: _Facts) -> Iterator[Finding]:
    """By the target's own count: at most one run for each claim, and none after the success could be seen."""
    arrivals: dict[str, list[float]] = defaultdict(list)
    for arrival in facts.history.arrivals:
        arrivals[arrival.prompt].append(arrival.at)
    for row in facts.state.rows:
        claims = sum(event.type == "running" for event in row.events)
        if len(arrivals[row.prompt]) > claims and not _had_predecessor(facts, row):
            yield "duplicated", f"{row.id} reached the target {len(arrivals[row.prompt])} times in {claims} attempts"
    prompts = {row.id: row.prompt for row in facts.state.rows}
    for enqueue in facts.history.enqueues:
        prompts |= dict(zip(enqueue.ids, enqueue.prompts, strict=False))
    seen_at: dict[str, float] = {}
    for seen in facts.history.observations:
        if seen.state == "succeeded":
            seen_at[seen.id] = min(seen.ended, seen_at.get(seen.id, inf))
    for id_, at in seen_at.items():
        came = max(arrivals[prompts.get(id_, "")], default=-inf)
        if came > at and not facts.could_explain({"delete"}, id_):
            yield "duplicated", f"{id_} reached the target after its success was seen"


def _had_predecessor(facts: _Facts, row: Row) -> bool:
    """Whether an earlier job with the same prompt may have existed and been deleted."""
    return row.key is not None and any(
        facts.could_explain({"delete"}, id_)
        for enqueue in facts.history.enqueues
        if row.prompt in enqueue.prompts
        for id_ in enqueue.ids
    )


def _phantom(facts: _Facts) -> Iterator[Finding]:
    possible = {
        prompt for enqueue in facts.history.enqueues if enqueue.outcome != "refused" for prompt in enqueue.prompts
    }
    for row in facts.state.rows:
        if row.prompt not in possible:
            yield "phantom", f"{row.id} has the prompt {row.prompt[:40]!r}"


def _incomplete_arrays(facts: _Facts) -> Iterator[Finding]:
    """An array is accepted as a whole or not at all."""
    deleted = {change.id for change in facts.history.changes if change.kind == "delete"}
    known = {
        prompt
        for enqueue in facts.history.enqueues
        if deleted & set(enqueue.ids)
        for prompt in enqueue.prompts
    }  # fmt: skip
    for enqueue in facts.history.enqueues:
        there = [prompt in facts.by_prompt for prompt in enqueue.prompts]
        if any(there) and not all(there) and not known & set(enqueue.prompts):
            yield "torn", f"{there.count(True)} of the {len(there)} jobs of an array exist"


def _regressed(facts: _Facts) -> Iterator[Finding]:
    by_id: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for seen in facts.history.observations:
        by_id[seen.id].append((seen.began, seen.ended, seen.state))
    for id_, sightings in by_id.items():
        row = facts.rows.get(id_)
        sightings.append((inf, inf, GONE if row is None else row.state))
        sightings.sort(key=lambda sighting: sighting[1])
        finals = [sighting for sighting in sightings if sighting[2] in ENDED]
        for place, (began, ended, state) in enumerate(sightings):
            before = next((final for final in reversed(finals) if final[1] < began), None)
            if before is None or before[2] == state or (began, place) == (before[0], place):
                continue
            kinds = {"delete"} if state == GONE else {"retry", "delete"}
            if not facts.could_explain(kinds, id_, before[0], ended):
                yield "regressed", f"{id_} was {before[2]}, and is {state} later"
    for change in facts.history.changes:
        if change.kind == "delete" and change.outcome == "acked":
            again = any(began > change.ended and state != GONE for began, _, state in by_id[change.id])
            if change.id in facts.rows or again:
                yield "regressed", f"{change.id} was deleted, but exists"


def _artifacts(facts: _Facts) -> Iterator[Finding]:
    for seen in facts.history.observed_artifacts:
        row = facts.rows.get(seen.id)
        if row is None or seen.sha256 is None:
            continue
        kept = row.artifacts.get(seen.name)
        own = seen.name == "response"
        if own and row.state == "succeeded" and (kept is None or kept.sha256 != seen.sha256):
            yield "regressed", f"the {seen.name} of {seen.id} was a different one"
    puts: dict[tuple[str, str], list[tuple[float, float, str, str]]] = defaultdict(list)
    for put in facts.history.puts:
        if put.outcome != "refused":
            puts[put.id, put.name].append((put.began, put.ended, put.sha256, put.outcome))
    for (id_, name), tries in puts.items():
        row = facts.rows.get(id_)
        acked = [attempt for attempt in tries if attempt[3] == "acked"]
        if row is None or not acked:
            continue
        last = max(began for began, *_ in acked)
        possible = {digest for _began, ended, digest, _outcome in tries if ended >= last}
        kept = row.artifacts.get(name)
        if kept is None:
            yield "lost", f"the artifact {name} of {id_} was acknowledged"
        elif kept.sha256 not in possible:
            yield "regressed", f"the artifact {name} of {id_} is an earlier version"


def _retries(facts: _Facts) -> Iterator[Finding]:
    for id_, changes in facts.changes.items():
        row = facts.rows.get(id_)
        if row is None:
            continue
        retries = [change.outcome for change in changes if change.kind == "retry" and change.outcome != "refused"]
        again = sum(
            before.type in ENDED and event.type == "queued"
            for before, event in zip(row.events, row.events[1:], strict=False)
        )
        if again < retries.count("acked"):
            yield "lost", f"a retry of {id_} was acknowledged, but it was not queued again"
        if again > len(retries):
            yield "duplicated", f"{id_} was queued again {again} times after {len(retries)} requests to retry it"


def _database(facts: _Facts) -> Iterator[Finding]:
    for text in facts.state.damage:
        yield "damaged", text
    waiting = sum(row.state in {"scheduled", "queued"} for row in facts.state.rows)
    if waiting != facts.state.waiting:
        yield "miscounted", f"{facts.state.waiting} jobs are waiting by the counter, {waiting} by the rows"
    for row in facts.state.rows:
        if row.state in ACTIVE:
            yield "stuck", f"{row.id} is {row.state}"
