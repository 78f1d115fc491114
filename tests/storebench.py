"""How fast jobs are handed over: ``python tests/storebench.py [jobs] [at once]``, and where the time goes."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from ulid import ULID

from foreman.jobs.job import NewJob
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import Store
from foreman.store.sqlite.writer import Writer

reactor: Any = installed_reactor
JOB = NewJob(
    endpoint="/api/chat",
    lane="gate",
    family="ollama",
    model="llama3.2:3b",
    owner="alice",
    payload=b'{"model": "llama3.2:3b", "prompt": "' + b"x" * 500 + b'"}',
    stream=True,
    fingerprint="f" * 64,
)


async def measure(folder: Path, count: int, at_once: int) -> None:
    """Hand ``count`` jobs over and say how that went."""
    database = Database(reactor, folder / "jobs.sqlite", str(ULID()), time.time, Notifications())
    database.open()
    database.start()
    store = Store(database, ULID, 10**9)
    commits: list[tuple[float, float]] = []
    commit = Writer._commit

    def timed(self: Writer, *given: Any) -> Any:
        wall, cpu = time.perf_counter(), time.thread_time()
        committed = commit(self, *given)
        commits.append((time.perf_counter() - wall, time.thread_time() - cpu))
        return committed

    Writer._commit = timed  # type: ignore[method-assign, assignment]
    taken: list[float] = []

    async def client() -> None:
        for _ in range(count // at_once):
            began = time.perf_counter()
            await store.enqueue([JOB])
            taken.append(time.perf_counter() - began)

    wall, here = time.perf_counter(), time.thread_time()
    await gatherResults([Deferred.fromCoroutine(client()) for _ in range(at_once)])
    wall, here = time.perf_counter() - wall, time.thread_time() - here
    taken.sort()
    jobs = len(taken)
    print(f"{jobs / wall:.0f} jobs/s, {at_once} at once: {len(commits)} commits, {jobs / len(commits):.0f} jobs each")
    print(
        f"p50 {taken[jobs // 2] * 1000:.1f} ms, p99 {taken[int(jobs * 0.99)] * 1000:.1f} ms, max {taken[-1] * 1000:.1f} ms"
    )
    print(
        f"per job: reactor's thread {here / jobs * 1e6:.0f} us of CPU; writer's {sum(c for _, c in commits) / jobs * 1e6:.0f} us "
        f"of CPU in {sum(w for w, _ in commits) / jobs * 1e6:.0f} us of commits"
    )
    await database.stop()


def main() -> None:
    """Measure in a folder beside this one, since /tmp may be in memory."""
    given = [int(word) for word in sys.argv[1:]]
    count, at_once = (given + [20_000, 64][len(given) :])[:2]
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:

        def begin() -> None:
            measured = Deferred.fromCoroutine(measure(Path(folder), count, at_once))
            measured.addErrback(lambda failure: failure.printTraceback())
            measured.addBoth(lambda _: reactor.stop())

        reactor.callWhenRunning(begin)
        reactor.run()


if __name__ == "__main__":
    main()
