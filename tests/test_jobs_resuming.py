"""The stream of a job, cut anywhere and resumed any number of times, has the same lines as the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from foreman.jobs.artifacts import ArtifactInfo, StoredArtifact
from foreman.jobs.job import Job, JobError
from foreman.jobs.queries import Event
from foreman.store.errors import ArtifactGone
from foreman.store.notifications import Notifications
from foreman.web.jobs.artifact_reader import ReaderLimit
from foreman.web.jobs.streaming import JobStreams
from foreman.web.jobs.wakeups import Wakeups
from foreman.worker.live_output import LiveOutput
from support.jobs_api import events, line

#: How long a look into the store takes: what is seen is what was there when it began, or when it ended.
LOOK = 0.001
JOB = Job(
    id="01KBTWZ5M0XJ3Q9V7D2E8R4A6C", state="queued", endpoint="/api/chat", lane="gate", family="ollama", model="m",
    owner="alice", priority=5, sort_key=0, run_at=0, deadline=None, attempt=0, max_attempts=5, uncounted_tries=0, rescues=0,
    fence=0, instance=None, cancel_asked_at=None, idempotency_key=None, error=None, usage=None, created_at=0,
    started_at=None, finished_at=None,
)  # fmt: skip


@define(eq=False)
class Memory:
    """A store of one job, which answers late, and the worker that has its lines."""

    clock: Clock
    late: bool
    notifications: Notifications = field(factory=Notifications)
    job: Job = JOB
    kept: dict[str, tuple[StoredArtifact, bytes]] = field(factory=dict)
    told: list[Event] = field(factory=list)
    output: LiveOutput | None = None

    async def get(self, _: str) -> Job:
        seen: Job = await self._look(lambda: self.job)
        return seen

    async def get_artifact(self, _: str, name: str, _caller: str = "") -> StoredArtifact | None:
        seen: StoredArtifact | None = await self._look(lambda: self.kept[name][0] if name in self.kept else None)
        return seen

    async def read_artifact(self, stored: StoredArtifact, start: int, stop: int, _caller: str) -> bytes:
        seen, data = self.kept[stored.info.name]
        if seen != stored:
            raise ArtifactGone
        piece: bytes = await self._look(lambda: data[start:stop])
        return piece

    async def events(self, _: str, after: int, limit: int, _caller: str) -> list[Event]:
        seen: list[Event] = await self._look(lambda: [event for event in self.told if event.id > after][:limit])
        return seen

    def output_of(self, _: str) -> LiveOutput | None:
        return self.output

    def cancel(self, _: str) -> None:
        raise AssertionError

    async def _look(self, seen: Callable[[], Any]) -> Any:
        if self.late:
            return await deferLater(self.clock, LOOK, seen)
        now = seen()
        return await deferLater(self.clock, LOOK, lambda: now)

    def become(self, told: str, **changes: Any) -> None:
        """The job changes, which those who listen are told later."""
        self.job = evolve(self.job, **changes)
        self.told.append(Event(len(self.told) + 1, 0, told, self.job.fence, None))

    def keep(self, name: str, data: bytes) -> None:
        info = ArtifactInfo(name, "application/x-ndjson", len(data), "", 0)
        self.kept[name] = StoredArtifact(self.job.id, info, self.job.fence), data

    def ring(self) -> None:
        self.notifications.announce(frozenset((JOB.id,)), False)


@define(eq=False)
class Ear:
    """A reader that leaves after so many pieces."""

    clock: Clock
    most: int
    pieces: list[bytes] = field(factory=list)
    startedWriting: int = 0
    method: bytes = b"GET"
    caller: str = "alice"
    leave: Callable[[], None] = lambda: None

    def headers_named(self, name: bytes) -> list[bytes]:
        return [b"text/event-stream"] if name == b"accept" else []

    def http_date(self) -> bytes:
        return b""

    def begin(self, *_: object) -> None:
        self.startedWriting = 1

    def write(self, data: bytes) -> None:
        if len(self.pieces) < self.most:
            self.pieces.append(data)
            if len(self.pieces) == self.most:
                self.clock.callLater(0, self.leave)

    def set_producer(self, producer: object) -> None:
        pass

    def finish(self) -> None:
        pass


@define(eq=False)
class Story:
    """A job from its beginning to its end, and what its reader hears of it."""

    clock: Clock
    memory: Memory
    what: str
    cuts: list[int]
    heard: list[tuple[str, str, Any]] = field(factory=list)
    tries: list[list[int]] = field(factory=list)
    numbers: Any = field(factory=count)
    reading: Deferred[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reading = Deferred.fromCoroutine(self.read())

    async def read(self) -> None:
        following = JobStreams(self.clock, self.memory, self.memory, Wakeups(self.clock), ReaderLimit(), 5.0)  # type: ignore[arg-type]
        for most in [*self.cuts, 10**6]:
            ear, after = Ear(self.clock, most), self.heard[-1][1] if self.heard else None
            more = {"follows": True} if self.what == "events" else {}
            asked: Any = getattr(following, self.what)(ear, self.memory.job, after, **more)
            working = Deferred.fromCoroutine(asked)
            ear.leave = working.cancel
            try:
                await working
            except CancelledError:
                await deferLater(self.clock, 0)
            self.heard += events(b"".join(ear.pieces))

    def turn(self, times: int) -> None:
        for _ in range(times):
            self.clock.advance(LOOK / 2)

    def begin(self, lags: list[int]) -> None:
        """A try begins, as the worker and the store do it."""
        memory = self.memory
        memory.become("running", state="running", fence=memory.job.fence + 1)
        self.turn(lags[0])
        memory.ring()
        self.turn(lags[1])
        memory.output = LiveOutput(memory.job.fence)
        memory.ring()
        self.tries.append([])
        self.turn(lags[2])

    def say(self) -> None:
        number = next(self.numbers)
        self.tries[-1].append(number)
        assert self.memory.output is not None
        self.memory.output.add(line(number))

    def end(self, lags: list[int], state: str, artifact: str) -> None:
        """A try ends."""
        memory, output = self.memory, self.memory.output
        assert output is not None
        error = None if state == "succeeded" else JobError("refused", "no", 1)
        self.turn(lags[2])
        memory.keep(artifact, b"".join(output.lines))
        memory.become(state, state=state, error=error)
        self.turn(lags[0])
        memory.ring()
        self.turn(lags[1])
        memory.output = None
        output.end()
        self.turn(lags[2])

    def to_the_end(self, steps: list[tuple[str, list[int]]], last: list[int], *, succeeds: bool) -> None:
        """Tell it."""
        self.begin([0, 0, 0])
        for kind, lags in steps:
            if kind == "line":
                self.say()
                self.turn(lags[0])
            else:
                self.end(lags, "queued", "partial")
                self.begin(lags)
        self.end(last, *(("succeeded", "stream") if succeeds else ("failed", "partial")))
        for _ in range(400):
            self.clock.advance(LOOK)
        assert self.reading.called


LAGS = st.lists(st.integers(0, 3), min_size=3, max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(["line", "line", "line", "again"]), LAGS), max_size=16)
CUTS = st.lists(st.integers(1, 4), max_size=10)


@given(steps=STEPS, cuts=CUTS, last=LAGS, succeeds=st.booleans(), late=st.booleans())
def test_no_line_is_lost_or_doubled(
    steps: list[tuple[str, list[int]]], cuts: list[int], last: list[int], succeeds: bool, late: bool
) -> None:
    clock = Clock()
    story = Story(clock, Memory(clock, late), "stream", cuts)
    story.to_the_end(steps, last, succeeds=succeeds)
    said: dict[int, list[int]] = {}
    current = 1
    for kind, at, data in story.heard:
        attempt = int(at.partition("-")[0])
        if kind == "attempt":
            assert attempt > current
            assert data == {"attempt": attempt}
            current = attempt
        assert attempt == current
        if kind == "message":
            said.setdefault(attempt, []).append(int(data["response"]))
            assert at == f"{attempt}-{len(said[attempt])}"
    # Of a try that is void a beginning may have been heard, of the last one everything.
    for attempt, lines in said.items():
        assert lines == story.tries[attempt - 1][: len(lines)]
    assert said.get(len(story.tries), []) == story.tries[-1]
    errors = [data for kind, _, data in story.heard if kind == "error"]
    assert errors == ([] if succeeds else [{"error": "no"}])
    assert not clock.getDelayedCalls()
    assert not story.memory.notifications._changed


@given(steps=STEPS, cuts=CUTS, last=LAGS, succeeds=st.booleans(), late=st.booleans())
def test_no_event_is_lost_or_doubled(
    steps: list[tuple[str, list[int]]], cuts: list[int], last: list[int], succeeds: bool, late: bool
) -> None:
    clock = Clock()
    story = Story(clock, Memory(clock, late), "events", cuts)
    story.to_the_end(steps, last, succeeds=succeeds)
    assert [data["id"] for _, _, data in story.heard] == [event.id for event in story.memory.told]
    assert json.dumps(story.heard[-1][2]["type"]) == f'"{"succeeded" if succeeds else "failed"}"'
    assert not clock.getDelayedCalls()


def test_a_reader_goes_on_when_a_failed_job_is_queued_again_meanwhile() -> None:
    clock = Clock()
    memory = Memory(clock, late=True)
    memory.become("running", state="running", fence=1)
    memory.become("failed", state="failed")
    story = Story(clock, memory, "events", [])
    clock.advance(LOOK)  # the job is seen as it has ended
    memory.become("queued", state="queued")
    memory.ring()
    story.turn(8)
    assert not story.reading.called
    memory.become("cancelled", state="cancelled")
    memory.ring()
    story.turn(8)
    assert story.reading.called
    assert [data["type"] for _, _, data in story.heard] == ["running", "failed", "queued", "cancelled"]
