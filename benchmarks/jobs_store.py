"""What is measured of the store by itself, each in a process of its own: ``python -m benchmarks.jobs_store NAME PATH SIZES``.

The figures go to standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from ulid import ULID

from benchmarks import machine
from benchmarks.jobs_fill import MODELS, log_of, payload_bytes
from benchmarks.jobs_stats import Samples, Ticker, spread, stalls
from foreman.jobs.artifacts import Artifact
from foreman.jobs.job import NewJob
from foreman.jobs.queries import Filter
from foreman.store.notifications import Notifications
from foreman.store.sqlite import opening
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements import enqueue
from foreman.store.sqlite.statements.transaction import Transaction
from foreman.store.sqlite.store import SQLiteJobStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

reactor: Any = installed
#: So high that no job is refused because the queue is full.
MAX_JOBS = 1_000_000_000


def new_job(number: int = 0) -> NewJob:
    """A chat of about 600 bytes."""
    return NewJob(
        endpoint="/api/chat",
        lane="gate",
        family="ollama",
        model=MODELS[0],
        owner="bench",
        payload=payload_bytes(number),
        stream=False,
        fingerprint="f" * 64,
    )


async def at_once(count: int, together: int, do: Callable[[], Awaitable[object]]) -> tuple[float, list[float]]:
    """Do something ``count`` times, ``together`` at a time; return the seconds in all, and of each."""
    took: list[float] = []
    begun = 0

    async def one_by_one() -> None:
        nonlocal begun
        while begun < count:
            begun += 1
            began = time.monotonic()
            await do()
            took.append(time.monotonic() - began)

    began = time.monotonic()
    await gatherResults([Deferred.fromCoroutine(one_by_one()) for _ in range(together)])
    return time.monotonic() - began, took


async def quiet() -> None:
    """Wait until this process is idle, at most a minute: a large database is checked after it was opened."""
    deadline, calm = time.monotonic() + 60, 0
    while calm < 3 and time.monotonic() < deadline:
        before = machine.cpu_ns([os.getpid()])
        await deferLater(reactor, 0.1)
        calm = calm + 1 if machine.cpu_ns([os.getpid()]) - before < 10_000_000 else 0


# the experiments


async def enqueues(store: SQLiteJobStore, count: int) -> Samples:
    """Submit jobs one by one, 64 and 256 at a time, and measure the latency of the reactor."""
    ticker, samples = Ticker(reactor), Samples()
    ticker.start()
    await at_once(count // 4, 64, lambda: store.enqueue([new_job()]))  # nothing is measured cold
    await deferLater(reactor, 1)
    ticker.take()
    await deferLater(reactor, 1)
    samples |= stalls("stall, idle", ticker.take())
    for together in (1, 64, 256):
        cpu = machine.cpu_ns([os.getpid()])
        seconds, took = await at_once(
            count if together > 1 else count // 4, together, lambda: store.enqueue([new_job()])
        )
        cpu = machine.cpu_ns([os.getpid()]) - cpu
        samples |= {f"store {together}": len(took) / seconds, **spread(f"store {together}", took)}
        samples |= {f"store {together} cpu": cpu / len(took) / 1000}
        if together == 256:
            samples |= stalls("stall, store flat out", ticker.take())
        ticker.take()
    return samples


async def claims(store: SQLiteJobStore, count: int) -> Samples:
    """Claim jobs, and end each, so that the next claim takes another one."""
    await quiet()
    took = []
    answer = Artifact("response", "application/json", b"{}" * 400)
    for _ in range(count):
        began = time.monotonic()
        claim = await store.claim("gate", lambda model: 30_000 if model == MODELS[0] else 0)
        took.append(time.monotonic() - began)
        assert claim is not None
        await store.succeed(claim, [answer], None)
    return spread("claim", took)


async def looks(store: SQLiteJobStore, count: int) -> Samples:
    """Read pages, jobs and places in the queue of a large store; chosen at random, but the same in each run."""
    await quiet()
    rng, samples = random.Random(1), Samples()
    ids = [job.id for before in _middles(rng, 200) for job in await store.list_jobs(Filter(), before, 1)]
    queued = [job.id for job in await store.list_jobs(Filter(states=("queued",)), None, 200)]
    first = await store.peek("gate", lambda _: 0)
    kinds: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "first page": lambda: store.list_jobs(Filter(), None, 51),
        "middle page": lambda: store.list_jobs(Filter(), rng.choice(ids), 51),
        "page of a state": lambda: store.list_jobs(Filter(states=("failed",)), rng.choice(ids), 51),
        "page of active jobs": lambda: store.list_jobs(Filter(states=("scheduled", "queued", "running")), None, 51),
        "page of a model": lambda: store.list_jobs(Filter(model=rng.choice(MODELS)), rng.choice(ids), 51),
        "page of an owner": lambda: store.list_jobs(Filter(owner="user3"), rng.choice(ids), 51),
        "page of a state and a model": lambda: store.list_jobs(
            Filter(states=("failed",), model=MODELS[5]), rng.choice(ids), 51
        ),
        "page of metadata": lambda: store.list_jobs(Filter(metadata={"batch": "b7"}), None, 51),
        "get": lambda: store.get(rng.choice(ids)),
        "get, far back in the queue": lambda: store.get(rng.choice(queued)),
        "get, next in the queue": lambda: store.get(first.id if first else ids[0]),
        "counts": store.counts,
    }
    for name, look in kinds.items():
        _, took = await at_once(count, 1, look)
        samples |= spread(name, took)
    return samples


def _middles(rng: random.Random, count: int) -> list[str]:
    now = int(time.time() * 1000)
    return [str(ULID.from_timestamp((now - rng.randrange(1, 18_000_000)) / 1000)) for _ in range(count)]


async def sizes(store: SQLiteJobStore, count: int) -> Samples:
    """Bytes on the disk and in the log for each job; an open read keeps the log from being restarted, so that it can be measured."""
    path = store.database.path
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        began = log_of(path).stat().st_size
        await at_once(count, 64, lambda: store.enqueue([new_job()]))
        enqueued = log_of(path).stat().st_size
        for _ in range(count):
            claim = await store.claim("gate", lambda _: 0)
            assert claim is not None
            await store.succeed(claim, [], None)
        ended = log_of(path).stat().st_size
    await store.database.between_commits(
        lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    )
    return {
        "disk": path.stat().st_size / count,
        "log, enqueue": (enqueued - began) / count,
        "log, claim and success": (ended - enqueued) / count,
    }


def rival(path: Path, count: int) -> Samples:
    """The same rows by plain ``sqlite3``: one commit for each insert, ``synchronous=FULL``, nothing else in the process."""
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").fetchone()
    cursor, took, began = connection.cursor(), [], time.monotonic()
    for _ in range(count):
        at = time.monotonic()
        cursor.execute("BEGIN IMMEDIATE")
        enqueue.enqueue(Transaction(cursor, int(time.time() * 1000)), [new_job()], [str(ULID())], MAX_JOBS)
        cursor.execute("COMMIT")
        took.append(time.monotonic() - at)
    return {"plain": count / (time.monotonic() - began), **spread("plain", took)}


def main(name: str, path: Path, count: int) -> None:
    """Open the store, run one experiment, and print its samples as JSON."""
    if name == "rival":
        opening.open_database(path, str(ULID()), int(time.time() * 1000)).lock.release()
        print(json.dumps(rival(path, count)))
        return
    measure = {"enqueues": enqueues, "claims": claims, "looks": looks, "sizes": sizes}[name]
    reactor.seconds = time.monotonic
    database = Database(reactor, path, str(ULID()), time.time, Notifications())
    database.open()
    outcome: list[Any] = []

    async def work() -> None:
        database.start()
        try:
            outcome.append(await measure(SQLiteJobStore(database, ULID, MAX_JOBS), count))
        finally:
            await database.stop()

    def begin() -> None:
        Deferred.fromCoroutine(work()).addErrback(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if not isinstance(outcome[0], dict):
        sys.exit(str(outcome[0]))
    print(json.dumps(outcome[0]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
