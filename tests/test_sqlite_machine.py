"""The store's statements against a model of them in memory, in any order: with crashes, clocks, and claims gone stale."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args

import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from twisted.python.failure import Failure
from ulid import ULID

from foreman.errors import ForemanError
from foreman.jobs.artifacts import NDJSON, PARTIAL, Artifact
from foreman.jobs.job import ENDED, FOLLOWS, STATES, Claim, ErrorClass, Job, JobError, JobLane, NewJob, State, Usage
from foreman.jobs.queries import Filter
from foreman.jobs.retry_policy import MAX_RETRY_DELAY, AttemptError, Transition, next_transition, rescue_transition
from foreman.protocol.model_names import parse, same_model
from foreman.store.errors import KeyReused, StaleClaim, TooManyJobs, WrongState
from foreman.store.sqlite import opening, queries
from foreman.store.sqlite.statements import enqueue, execution, sweep, user_actions
from foreman.store.sqlite.statements.rows import JOB_COLUMNS, job_from
from foreman.store.sqlite.statements.transaction import Transaction, expired_error, require_job
from foreman.store.sqlite.writer import _in_savepoint

T = TypeVar("T")

#: Where a file needs no disk, if this machine has such a place: nothing here asks what a power cut leaves.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
#: Each is a story of sixty steps; thousands of them were run when this was written.
EXAMPLES = 200
MAX_WAITING = 9
BEGINNING = 1_700_000_000_000
MINUTE = 60_000
LONGEST_DELAY = round(MAX_RETRY_DELAY * 1000)


@define
class Known:
    """What the model knows of a job beside its row."""

    fingerprint: str
    metadata: dict[str, str]
    payload: int
    artifacts: dict[str, tuple[Artifact, int, int]] = field(factory=dict)
    pieces: dict[int, list[bytes]] = field(factory=dict)
    events: list[tuple[str, int]] = field(factory=list)
    attempts: dict[int, str | None] = field(factory=dict)


@define
class Model:
    """What the store must hold."""

    jobs: dict[str, Job] = field(factory=dict)
    known: dict[str, Known] = field(factory=dict)
    kept: int = 0

    def in_state(self, *states: State) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in states]

    def change(self, id_: str, told: str | None = None, **changes: Any) -> Job:
        job = self.jobs[id_] = evolve(self.jobs[id_], **changes)
        if told is not None:
            self.known[id_].events.append((told, job.fence))
        return job

    def finish(self, job: Job, ending: Transition, now: int, told: str | None = None) -> None:
        """A try ends."""
        known = self.known[job.id]
        known.attempts[job.fence] = told or ending.state
        known.pieces.clear()
        if told == "rescued" and ending.state in ENDED:
            known.events.append((told, self.jobs[job.id].fence))
            told = None
        self.change(
            job.id,
            told=told or ending.state,
            state=ending.state,
            instance=None,
            finished_at=now if ending.state in ENDED else None,
            run_at=job.run_at if ending.run_at is None else ending.run_at,
            attempt=job.attempt - (not ending.counts),
            uncounted_tries=ending.uncounted_tries,
            error=ending.error,
        )

    def end_waiting(self, job: Job, state: State, now: int, error: JobError | None = None) -> None:
        self.change(job.id, told=state, state=state, finished_at=now, error=error or job.error)

    def position(self, job: Job) -> int | None:
        if job.state != "queued":
            return None
        key = (job.sort_key, job.id)
        return 1 + sum((other.sort_key, other.id) < key for other in self.in_state("queued") if other.lane == job.lane)


#: Three models, some of them in several spellings.
models = st.sampled_from(["a", "b", "c", " A", "library/b:latest"])
owners = st.sampled_from(["alice", "bob"])
some_moments = st.integers(-5, 200).map(lambda minutes: BEGINNING + minutes * MINUTE)
moments = st.none() | some_moments
#: Most jobs can run at once, since a story in which nothing runs has little to tell.
seldom = st.sampled_from([True, False, False, False]).flatmap(lambda given: some_moments if given else st.none())
names = st.sampled_from(["response", "stream", "error", "partial", "note"])
artifacts = st.lists(
    st.builds(Artifact, names, st.just("text/plain"), st.binary(max_size=8)),
    max_size=3,
    unique_by=lambda artifact: artifact.name,
)
new_jobs = st.builds(
    NewJob,
    endpoint=st.just("/api/chat"),
    lane=st.sampled_from(["gate", "gate", "gate", "embedding"]),
    family=st.just("ollama"),
    model=models,
    owner=owners,
    payload=st.binary(max_size=8),
    stream=st.booleans(),
    fingerprint=st.sampled_from(["f", "f", "g"]),
    priority=st.integers(0, 9),
    run_at=seldom,
    deadline=moments,
    max_attempts=st.integers(1, 3),
    metadata=st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["x", "y"]), max_size=2),
    idempotency_key=st.sampled_from([None, None, None, "1", "2", "3"]),
)
bonuses = st.fixed_dictionaries({name: st.sampled_from([0, 0, 0, 0, 2 * MINUTE, None]) for name in "abc"})
mishaps = st.builds(
    AttemptError,
    st.sampled_from(get_args(ErrorClass)),
    st.just("why"),
    st.sampled_from([None, None, 0.0, 5.0, 9999.0]),
    st.booleans(),
)
steps_of_time = st.sampled_from([1, 1000, 30_000, 30_000, MINUTE, 5 * MINUTE, 90 * MINUTE, -1, -MINUTE, -90 * MINUTE])


class StoreMachine(RuleBasedStateMachine):
    """Each rule does something to the store and to the model; then both must say the same."""

    claims = Bundle("claims")
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.now = BEGINNING
        self.boots = 0
        self.last_id = 0
        self.model = Model()
        self.given: list[Claim] = []
        self.open()

    def teardown(self) -> None:
        try:
            assert self.rows("PRAGMA integrity_check") == [("ok",)]
            assert not self.rows("PRAGMA foreign_key_check")
        finally:
            self.close()
            shutil.rmtree(self.folder)

    # the store

    def open(self) -> None:
        self.boots += 1
        self.boot = f"boot-{self.boots}"
        path = self.folder / "jobs.sqlite"
        opened = opening.open_database(path, self.boot, self.now)
        self.lock = opened.lock
        self.rescued = opened.rescued
        self.connection = sqlite3.connect(path, isolation_level=None)
        opening.configure(self.connection)
        self.connection.execute("PRAGMA synchronous = OFF")

    def close(self) -> None:
        self.connection.close()
        self.lock.release()

    def do(self, step: Callable[[Transaction], T]) -> T:
        """Run a step as the writer does; what it raised is raised."""
        before = dict(self.model.jobs)
        tx = Transaction(self.connection.cursor(), self.now)
        tx.cursor.execute("BEGIN IMMEDIATE")
        outcome = _in_savepoint(step, tx)
        tx.cursor.execute("COMMIT")
        self.told = (before, tx)
        if isinstance(outcome, Failure):
            self.told = None
            outcome.raiseException()
        result: T = outcome
        return result

    told: tuple[dict[str, Job], Transaction] | None = None

    def rows(self, statement: str, *values: Any) -> list[Any]:
        return self.connection.execute(statement, values).fetchall()

    def new_ids(self, count: int) -> list[str]:
        self.last_id = count + max(self.last_id, int(ULID.from_timestamp(self.now / 1000)))
        return [str(ULID.from_int(self.last_id - count + number)) for number in range(count)]

    # handing over

    @rule(target=ids, new=st.lists(new_jobs, min_size=1, max_size=3))
    def enqueue(self, new: list[NewJob]) -> Any:
        new = [self.as_of_now(one) for one in new]
        given = self.new_ids(len(new))
        expected, added = self.expected(new, given)
        try:
            enqueued: Any = self.do(lambda tx: enqueue.enqueue(tx, new, given, MAX_WAITING))
        except TooManyJobs:
            enqueued = "full"
        except KeyReused as problem:
            enqueued = problem.index
        if not isinstance(enqueued, list):
            assert enqueued == expected
            return multiple()
        assert [(one.id, one.replayed) for one in enqueued] == expected
        for job, one in added:
            self.model.jobs[job.id] = job
            self.model.known[job.id] = Known(
                one.fingerprint, dict(one.metadata), len(one.payload), events=[(job.state, 0)]
            )
        return multiple(*(job.id for job, _ in added))

    def as_of_now(self, new: NewJob) -> NewJob:
        """The job, its times counted from now instead of from the beginning."""
        later = self.now - BEGINNING
        run_at, deadline = (None if moment is None else moment + later for moment in (new.run_at, new.deadline))
        return evolve(new, run_at=run_at, deadline=deadline)

    def expected(self, new: Sequence[NewJob], given: Sequence[str]) -> tuple[Any, list[tuple[Job, NewJob]]]:
        """What enqueueing gives: the index of a wrong key, ``full``, or each id and whether it is known; and what is new."""
        keys = {
            (job.owner, job.idempotency_key): (job.id, self.model.known[job.id].fingerprint)
            for job in self.model.jobs.values()
            if job.idempotency_key is not None
        }
        outcome, added = [], []
        for index, (one, id_) in enumerate(zip(new, given, strict=True)):
            known = keys.get((one.owner, one.idempotency_key or ""))
            if known is not None:
                if known[1] != one.fingerprint:
                    return index, []
                outcome.append((known[0], True))
                continue
            if one.idempotency_key is not None:
                keys[one.owner, one.idempotency_key] = (id_, one.fingerprint)
            outcome.append((id_, False))
            added.append((self.as_job(one, id_), one))
        owners = [job.owner for job in (*self.model.in_state("scheduled", "queued"), *(job for job, _ in added))]
        left = MAX_WAITING - len(owners)
        # The last of a caller's was one too many if it had its share before.
        if added and (left < 0 or any(owners.count(one.owner) > 7 * (left + 1) for one in new)):
            return "full", []
        return outcome, added

    def as_job(self, new: NewJob, id_: str) -> Job:
        run_at = max(self.now, new.run_at or 0)
        taken = (
            "endpoint",
            "lane",
            "family",
            "model",
            "owner",
            "priority",
            "deadline",
            "max_attempts",
            "idempotency_key",
        )
        facts: dict[str, Any] = {
            **dict.fromkeys(("attempt", "uncounted_tries", "rescues", "fence"), 0),
            **dict.fromkeys(("instance", "cancel_asked_at", "error", "usage", "started_at", "finished_at")),
            **{name: getattr(new, name) for name in taken},
        }
        return Job(
            id=id_,
            state="scheduled" if run_at > self.now else "queued",
            sort_key=run_at + new.priority * MINUTE,
            run_at=run_at,
            created_at=self.now,
            **facts,
        )

    # running

    @rule(target=claims, lane=st.sampled_from(["gate", "gate", "gate", "embedding"]), bonus=bonuses)
    def claim(self, lane: JobLane, bonus: dict[str, int | None]) -> Any:
        claim = self.do(
            lambda tx: execution.claim(tx, lane, self.boot, lambda model: bonus[parse(model).model.lower()])
        )
        while True:
            able = [
                (job.sort_key - of, job.id)
                for job in self.model.in_state("queued")
                if job.lane == lane and (of := bonus[parse(job.model).model.lower()]) is not None
            ]
            if not able:
                assert claim is None
                return multiple()
            job = self.model.jobs[min(able)[1]]
            if job.deadline is None or job.deadline > self.now:
                break
            self.model.end_waiting(job, "discarded", self.now, expired_error(job))
        fence = job.fence + 1
        job = self.model.change(
            job.id, "running",
            state="running", attempt=job.attempt + 1, fence=fence, instance=self.boot, started_at=self.now,
        )  # fmt: skip
        self.model.known[job.id].attempts[fence] = None
        assert claim is not None
        assert claim.job == job
        self.given.append(claim)
        return claim

    @rule(target=claims)
    def claim_a_chat(self) -> Any:
        return self.claim("gate", dict.fromkeys("abc", 0))

    @rule(write=st.sampled_from(["keep", "succeed", "end", "release"]))
    def all_who_are_stale_try_to_write(self, write: str) -> None:
        for claim in self.given[-20:]:
            if self.owned(claim) is None:
                if write == "keep":
                    self.keep(claim)
                elif write == "succeed":
                    self.succeed(claim, [], None)
                elif write == "end":
                    self.end(claim, AttemptError("refused", "why"), 0.5, [])
                else:
                    self.release(claim)

    def owned(self, claim: Claim) -> Job | None:
        """The job, if it is the claim's."""
        job = self.model.jobs.get(claim.job.id)
        if job is None or job.state != "running" or (job.fence, job.instance) != (claim.job.fence, claim.job.instance):
            return None
        return job

    def written(self, claim: Claim, step: Callable[[Transaction], object]) -> Job | None:
        """Do what a claim writes, which must be refused when the claim is stale."""
        job = self.owned(claim)
        if job is None:
            with pytest.raises(StaleClaim):
                self.do(step)
            return None
        self.do(step)
        return job

    @rule(claim=claims)
    def keep(self, claim: Claim) -> None:
        self.model.kept += 1
        number, data = self.model.kept, str(self.model.kept).encode()
        if (job := self.written(claim, lambda tx: execution.append_output(tx, claim, number, data))) is not None:
            self.model.known[job.id].pieces.setdefault(job.fence, []).append(data)

    @rule(claim=claims, given=artifacts, usage=st.none() | st.just(Usage(3, None, 5, 7)))
    def succeed(self, claim: Claim, given: list[Artifact], usage: Usage | None) -> None:
        given = [one for one in given if one.name not in {"partial", "error"}]
        if (job := self.written(claim, lambda tx: execution.succeed(tx, claim, given, usage))) is not None:
            self.put(job.id, given)
            for name in ("partial", "error"):
                self.model.known[job.id].artifacts.pop(name, None)
            self.model.change(job.id, usage=usage)
            self.model.finish(job, Transition("succeeded", None, counts=True, uncounted_tries=0, error=None), self.now)

    @rule(claim=claims, mishap=mishaps, jitter=st.sampled_from([0.0, 0.5, 1.0]), given=artifacts)
    def end(self, claim: Claim, mishap: AttemptError, jitter: float, given: list[Artifact]) -> None:
        def decide(job: Job, now: int) -> Transition:
            return next_transition(job, mishap, now, jitter)

        if (job := self.written(claim, lambda tx: execution.end_attempt(tx, claim, decide, given))) is not None:
            self.put(job.id, given)
            self.model.finish(job, decide(job, self.now), self.now)

    def left_behind(self, job: Job) -> None:
        """What was kept of a try that nobody hears to its end is its partial answer."""
        known = self.model.known[job.id]
        if lines := known.pieces.get(job.fence):
            known.artifacts[PARTIAL] = (Artifact(PARTIAL, NDJSON, b"".join(lines)), job.fence, self.now)

    @rule(claim=claims)
    def release(self, claim: Claim) -> None:
        if (job := self.written(claim, lambda tx: execution.release(tx, claim))) is not None:
            asked = job.cancel_asked_at is not None
            state: State = "cancelled" if asked else "queued"
            ending = Transition(state, None, counts=False, uncounted_tries=job.uncounted_tries, error=job.error)
            self.left_behind(job)
            self.model.finish(job, ending, self.now, None if asked else "released")

    def put(self, id_: str, given: Sequence[Artifact]) -> None:
        for one in given:
            self.model.known[id_].artifacts[one.name] = (one, self.model.jobs[id_].fence, self.now)

    # by hand

    def allowed(self, id_: str, *states: State, step: Callable[[Transaction], T]) -> T | None:
        """Do what only these states allow."""
        job = self.model.jobs.get(id_)
        if job is None or job.state not in states:
            with pytest.raises(WrongState):
                self.do(step)
            return None
        return self.do(step)

    @rule(id_=ids)
    def cancel(self, id_: str) -> None:
        states: tuple[State, ...] = ("scheduled", "queued", "running", "cancelled")
        answered = self.allowed(id_, *states, step=lambda tx: user_actions.cancel(tx, id_))
        if answered is None:
            return
        job = self.model.jobs[id_]
        if job.state == "running":
            self.model.change(id_, cancel_asked_at=job.cancel_asked_at or self.now)
        elif job.state != "cancelled":
            self.model.end_waiting(job, "cancelled", self.now)
        assert answered == self.model.jobs[id_]

    @rule(id_=ids)
    def retry(self, id_: str) -> None:
        answered = self.allowed(id_, "failed", "discarded", "cancelled", step=lambda tx: user_actions.retry(tx, id_))
        if answered is not None:
            priority = self.model.jobs[id_].priority
            fresh = self.model.change(
                id_, "queued",
                state="queued", run_at=self.now, sort_key=self.now + priority * MINUTE,
                **dict.fromkeys(("attempt", "uncounted_tries", "rescues"), 0),
                **dict.fromkeys(("finished_at", "cancel_asked_at", "deadline")),
            )  # fmt: skip
            assert answered == fresh

    @rule()
    def cancel_what_runs(self) -> None:
        for job in self.model.in_state("running"):
            self.cancel(job.id)

    @rule()
    def retry_what_was_cancelled(self) -> None:
        for job in self.model.in_state("cancelled")[-2:]:
            self.retry(job.id)

    @rule(id_=ids)
    def delete(self, id_: str) -> None:
        job = self.model.jobs.get(id_)
        self.allowed(id_, *ENDED, step=lambda tx: user_actions.delete(tx, id_))
        if job is not None and job.ended:
            del self.model.jobs[id_], self.model.known[id_]

    @rule(id_=ids, data=st.binary(max_size=8))
    def put_by_hand(self, id_: str, data: bytes) -> None:
        mine = Artifact("mine", "text/plain", data)
        answered = self.allowed(id_, *STATES, step=lambda tx: user_actions.put_user_artifact(tx, id_, mine))
        if answered is not None:
            assert answered[1] == ("mine" not in self.model.known[id_].artifacts)
            self.put(id_, [mine])

    # the clock, and the end of the process

    @rule(by=steps_of_time)
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule()
    def sweep(self) -> None:
        following = self.do(sweep.sweep)
        for job in sorted(self.model.in_state("scheduled"), key=lambda job: (job.run_at, job.id)):
            if job.run_at <= self.now:
                self.model.change(job.id, "queued", state="queued")
        for job in self.model.in_state("scheduled", "queued"):
            if job.deadline is not None and job.deadline <= self.now:
                self.model.end_waiting(job, "discarded", self.now, expired_error(job))
        moments = [job.run_at for job in self.model.in_state("scheduled")]
        moments += [job.deadline for job in self.model.in_state("scheduled", "queued") if job.deadline is not None]
        assert following == min(moments, default=None)

    @rule()
    def the_next_deadline_comes(self) -> None:
        deadlines = [job.deadline or 0 for job in self.model.in_state("scheduled", "queued", "running")]
        if later := [deadline for deadline in deadlines if deadline > self.now]:
            self.now = min(later)
            self.sweep()

    @rule()
    def hasten(self) -> None:
        self.do(lambda tx: sweep.cap_retry_delays(tx, LONGEST_DELAY))
        self.told = None  # whoever hastens looks for what is due next, and need not be told
        for job in self.model.in_state("scheduled"):
            if job.fence > 0 and job.run_at > self.now + LONGEST_DELAY:
                self.model.change(job.id, run_at=self.now)

    @rule(new=new_jobs, claimed=st.booleans())
    def crash(self, new: NewJob, claimed: bool) -> None:
        """In the middle of a transaction, of which then nothing is left; what ran is queued again."""
        tx = Transaction(self.connection.cursor(), self.now)
        tx.cursor.execute("BEGIN IMMEDIATE")
        _in_savepoint(lambda tx: enqueue.enqueue(tx, [new], self.new_ids(1), 10**6), tx)
        if claimed:
            execution.claim(tx, "gate", self.boot, lambda _: 0)
        self.told = None
        self.close()
        self.open()
        ran = self.model.in_state("running")
        assert self.rescued == len(ran)
        for job in ran:
            self.left_behind(job)
            self.model.change(job.id, fence=job.fence + 1, rescues=job.rescues + 1)
            self.model.finish(job, rescue_transition(job), self.now, "rescued")

    # looking

    @rule(
        states=st.lists(st.sampled_from(STATES), max_size=3),
        model=st.none() | models,
        owner=st.none() | owners,
        lane=st.none() | st.sampled_from(["gate", "embedding"]),
        metadata=st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["x", "y"]), max_size=2),
        after=moments,
        until=moments,
        limit=st.integers(1, 5),
    )
    def walk_through_a_list(
        self, states: list[State], limit: int, after: int | None, until: int | None, **by: Any
    ) -> None:
        wanted = Filter(states=tuple(states), created_after=after, created_before=until, **by)
        found: list[str] = []
        before = None
        while page := queries.list_jobs(self.connection.cursor(), wanted, before, limit):
            found += [job.id for job in page]
            before = page[-1].id
        assert found == sorted(
            (
                job.id
                for job in self.model.jobs.values()
                if (not states or job.state in states)
                and (by["model"] is None or same_model(by["model"], job.model))
                and all(by[name] in {None, getattr(job, name)} for name in ("owner", "lane"))
                and by["metadata"].items() <= self.model.known[job.id].metadata.items()
                and (after is None or job.created_at >= after)
                and (until is None or job.created_at < until)
            ),
            reverse=True,
        )

    @invariant()
    def the_rows_are_those_of_the_model(self) -> None:
        rows = self.rows(f"SELECT {JOB_COLUMNS} FROM jobs ORDER BY id")
        assert [job_from(row) for row in rows] == [self.model.jobs[id_] for id_ in sorted(self.model.jobs)]

    @invariant()
    def all_that_belongs_to_a_job_is_there(self) -> None:
        of_model = self.model.known.items()
        assert set(self.rows("SELECT job_id, name, type, data, fence, created_at FROM artifacts")) == {
            (id_, name, one.type, one.data, fence, at)
            for id_, known in of_model
            for name, (one, fence, at) in known.artifacts.items()
        }
        assert set(self.rows("SELECT job_id, fence, outcome FROM attempts")) == {
            (id_, fence, outcome) for id_, known in of_model for fence, outcome in known.attempts.items()
        }
        assert self.rows("SELECT job_id, fence, data FROM pieces ORDER BY job_id, fence, number") == [
            (id_, fence, data)
            for id_, known in sorted(of_model)
            for fence, pieces in sorted(known.pieces.items())
            for data in pieces
        ]
        assert {row[0] for row in self.rows("SELECT job_id FROM payloads")} == set(self.model.jobs)

    @invariant()
    def the_events_tell_only_of_what_may_follow(self) -> None:
        for id_, known in self.model.known.items():
            told = [(event.type, event.attempt) for event in queries.events(self.connection.cursor(), id_, 0, 10_000)]
            assert told == known.events
            states: list[Any] = ["queued" if type_ in {"released", "rescued"} else type_ for type_, _ in told]
            assert states[0] in {"queued", "scheduled"}
            assert all(new in FOLLOWS[old] for old, new in pairwise(states))
            assert states.count("succeeded") <= 1
            assert states[-1] == self.model.jobs[id_].state

    @invariant()
    def what_must_always_hold_holds(self) -> None:
        (waiting,) = self.rows("SELECT value FROM meta WHERE key = 'waiting'")
        assert waiting == (str(len(self.model.in_state("scheduled", "queued"))),)
        held: dict[str, tuple[int, int]] = {}
        for id_, job in self.model.jobs.items():
            count, size = held.get(job.owner, (0, 0))
            kept = sum(len(one.data) for one, _, _ in self.model.known[id_].artifacts.values())
            size += self.model.known[id_].payload + kept
            held[job.owner] = count + (job.state in {"scheduled", "queued"}), size
        counted = {owner: (count, size) for owner, count, size in self.rows("SELECT * FROM owners")}
        assert {owner: have for owner, have in counted.items() if have != (0, 0)} == {
            owner: have for owner, have in held.items() if have != (0, 0)
        }
        assert not self.rows(
            "SELECT 1 FROM jobs WHERE (state = 'running') <> (boot IS NOT NULL) OR boot <> ?", self.boot
        )
        assert not self.rows(
            "SELECT 1 FROM attempts a JOIN jobs j ON j.id = a.job_id "
            "WHERE (a.ended_at IS NULL) <> (j.state = 'running' AND j.fence = a.fence)"
        )
        assert not self.rows("SELECT 1 FROM events e LEFT JOIN jobs j ON j.id = e.job_id WHERE j.id IS NULL")

    @invariant()
    def a_list_and_the_counts_say_the_same(self) -> None:
        cursor = self.connection.cursor()
        for job in queries.list_jobs(cursor, Filter(), None, 1000):
            known = self.model.known[job.id]
            assert job.position == self.model.position(self.model.jobs[job.id])
            assert job.metadata == known.metadata
            assert [one.name for one in job.artifacts] == sorted(known.artifacts)
        counts = queries.counts(cursor)
        assert counts.scheduled == len(self.model.in_state("scheduled"))
        assert counts.queued == len(self.model.in_state("queued"))
        assert {job.id for job in counts.running} == {job.id for job in self.model.in_state("running")}

    @invariant()
    def who_must_hear_of_a_change_hears_of_it(self) -> None:
        if self.told is None:
            return
        (before, tx), self.told = self.told, None
        after = self.model.jobs
        changed = {id_ for id_ in before.keys() | after.keys() if before.get(id_) != after.get(id_)}
        assert {id_ for id_ in changed if self.state_of(before, id_) != self.state_of(after, id_)} <= tx.changed
        assert tx.changed <= changed
        moments = []
        for id_ in changed & after.keys():
            job, was = after[id_], self.state_of(before, id_)
            if job.state == "queued" and was != "queued":
                assert tx.queued
            if job.state == "scheduled":
                moments.append(job.run_at)
            if job.state in {"scheduled", "queued"} and was not in {"scheduled", "queued"} and job.deadline is not None:
                moments.append(job.deadline)
        if moments:
            assert tx.due is not None
            assert tx.due <= min(moments)

    @staticmethod
    def state_of(of: dict[str, Job], id_: str) -> State | None:
        return of[id_].state if id_ in of else None


def run(machine: type[RuleBasedStateMachine], **more: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            stateful_step_count=60,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # to shorten a story of sixty steps takes minutes
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


def test_the_store_does_what_its_model_does() -> None:
    run(StoreMachine, max_examples=EXAMPLES)


class BentCursor(sqlite3.Cursor):
    """Runs other statements than it is given."""

    bend = ("", "")
    bent = 0

    def execute(self, statement: str, values: Any = ()) -> Any:
        instead = statement.replace(*self.bend)
        BentCursor.bent += instead != statement
        return super().execute(instead, values)


class BentConnection(sqlite3.Connection):
    """Whose cursors are bent."""

    def cursor(self, factory: Any = BentCursor) -> Any:
        return super().cursor(factory)


@pytest.mark.parametrize(
    "bend",
    [
        pytest.param((" AND fence = ? AND boot = ?", " AND ? > 0 AND boot = ?"), id="a claim without its fence"),
        pytest.param((" AND fence = ? AND boot = ?", " AND attempt = ? AND boot = ?"), id="tries for fences"),
        pytest.param((", fence = fence + 1 WHERE", " WHERE"), id="a rescue that leaves the fence"),
        pytest.param(("DELETE FROM pieces WHERE job_id = ?", "SELECT ?"), id="pieces that stay"),
        pytest.param(("RETURNING CAST(value", "AND 0 RETURNING CAST(value"), id="a counter that stands"),
    ],
)
def test_the_model_notices_a_store_that_does_something_else(
    bend: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BentCursor, "bend", bend)
    monkeypatch.setattr(BentCursor, "bent", 0)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=BentConnection))
    with pytest.raises((AssertionError, pytest.fail.Exception, LookupError, ForemanError, sqlite3.Error)):
        run(StoreMachine, max_examples=200, derandomize=True)
    assert BentCursor.bent


def test_the_model_notices_when_anything_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(tx: Transaction, id_: str) -> Job:
        tx.cursor.execute(
            "UPDATE jobs SET state = 'cancelled', finished_at = ?, boot = NULL WHERE id = ?", (tx.now, id_)
        )
        return require_job(tx, id_)

    monkeypatch.setattr(user_actions, "cancel", unguarded)
    with pytest.raises((AssertionError, pytest.fail.Exception, LookupError, ForemanError, sqlite3.Error)):
        run(StoreMachine, max_examples=200, derandomize=True)
