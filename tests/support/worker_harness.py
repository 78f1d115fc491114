"""A worker on a real store in front of a fake target, under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater
from ulid import ULID

from foreman import errors
from foreman.jobs.job import Job, NewJob
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements.execution import OUTPUT
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.util.cooperator import cooperator
from foreman.worker.attempt import Bounds
from foreman.worker.due_jobs import DueJobs
from foreman.worker.worker import Worker
from support.fake_target import TargetCall
from support.inference_harness import InferenceHarness
from support.live_foreman import artifact_bytes, reactor

JSON = [(b"Content-Type", b"application/json")]


VECTOR = b'{"embeddings":[[1]]}'


async def stored_lines(store: SQLiteJobStore, id_: str) -> list[bytes]:
    """The lines that the store has of the first attempt of a job."""
    rows: list[tuple[bytes]] = await store.database.read(lambda cursor: cursor.execute(OUTPUT, (id_, 1)).fetchall())
    return [data for (data,) in rows]


class WorkerHarness:
    """A worker, its store, inference and fake target.

    :ivar wall_offset: how far the wall clock was set, in seconds.
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self.work = InferenceHarness(settings.pop("turns", 1))
        self.clock, self.target, self.inference = self.work.clock, self.work.target, self.work.inference
        self.clock.advance(1000)
        self.wall_offset = 0.0
        self.database = Database(reactor, path, str(ULID()), self.wall, Notifications())
        self.database.open()
        self.database.start()
        self.store = SQLiteJobStore(self.database, ULID, 1000)
        self.due_jobs = DueJobs(self.clock, self.store)
        patience, most = settings.pop("patience", 1800.0), settings.pop("max_artifact", 1_000_000)
        bounds = Bounds(most, settings.pop("silence", 86_400.0))
        self.worker = Worker(
            self.clock,
            self.store,
            self.inference.target,
            self.inference,
            cooperator(self.clock),
            lambda: 0.0,
            patience,
            bounds,
        )
        self.inference.target.inventory.on_recovery = self.worker.nudge
        assert not settings

    def wall(self) -> float:
        return 1_800_000_000 + self.wall_offset + self.clock.seconds()

    def start(self) -> None:
        self.due_jobs.start()
        self.worker.start()

    async def hand_over(self, *jobs: NewJob) -> list[str]:
        return [one.id for one in await self.store.enqueue(jobs)]

    async def job(self, id_: str) -> Job:
        found = await self.store.get(id_)
        assert found is not None
        return found

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Run threads and what is due, without moving the clock, until ``condition`` is true."""
        for _ in range(5000):
            if condition():
                return
            self.clock.advance(0)
            await deferLater(reactor, 0.003)
        raise AssertionError(f"it never came to be: {what or condition}")

    async def turn(self) -> None:
        """Run what is due now."""
        for _ in range(12):
            self.clock.advance(0)
            await deferLater(reactor, 0.004)

    async def wait(self, seconds: float, step: float = 1.0) -> None:
        """Move the clock."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await deferLater(reactor, 0.004)
        await self.turn()

    async def target_call(self, count: int = 1) -> TargetCall:
        """Wait for ``count`` requests to the target; returns the last one."""
        await self.until(lambda: len(self.target.calls) >= count, f"{count} requests")
        assert len(self.target.calls) == count
        return self.target.calls[-1]

    async def becomes(self, id_: str, state: str) -> Job:
        """Wait until a job is in ``state``; returns it."""
        for _ in range(3000):
            job = await self.job(id_)
            if job.state == state:
                return job
            self.clock.advance(0)
            await deferLater(reactor, 0.003)
        raise AssertionError(f"it is {job.state}, {job.error}, and not {state}")

    async def artifact(self, id_: str, name: str) -> bytes | None:
        return await artifact_bytes(self.store, id_, name)

    async def events(self, id_: str) -> list[str]:
        return [event.type for event in await self.store.events(id_, 0)]

    def set_target_away(self, *, away: bool = True) -> None:
        """Make the target unreachable, or reachable again."""
        problem = errors.ConnectionError("refused", "nobody there")
        self.target.problem = problem if away else None
        self.target.failures = [problem] * 1000 if away else []

    async def end(self) -> None:
        """Stop everything as the service does."""
        self.worker.close()
        self.inference.close()
        await self.inference.target.inventory.stop()
        self.inference.stop()
        idle = self.worker.when_idle()
        await self.until(lambda: idle.called, "the worker is idle")
        await self.due_jobs.stop()
        await self.database.stop()
        self.clock.advance(0)
        assert self.clock.getDelayedCalls() == []
        assert (self.inference.target.gate.running, self.inference.target.gate.waiting_jobs) == ([], [])
        assert self.inference.when_idle().called
