"""Job stores on each database that foreman knows, for tests of what ``JobStore`` promises."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from ulid import ULID

from foreman.store.job_store import JobStore
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import SQLiteJobStore

reactor: Any = installed_reactor


def soon(work: Any) -> Deferred[Any]:
    """Begin a coroutine."""
    return Deferred.fromCoroutine(work)


async def outcome(work: Any) -> Any:
    """What it gives, or the exception."""
    try:
        return await work
    except Exception as problem:  # noqa: BLE001 - to be looked at
        return problem


class Wall:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Stores(Protocol):
    """Makes stores on one database, one after the other, as starts of foreman do."""

    wall: Wall

    def store(self, *, max_jobs: int = 10_000) -> JobStore:
        """A store that has been opened and started; the next one takes its place when it has been stopped."""

    def rows(self) -> int:
        """How many jobs another connection to the database sees."""

    async def close(self) -> None:
        """Stop all stores that were made."""


class SQLiteStores:
    """Stores in one SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs" / "jobs.sqlite"
        self.wall = Wall()
        self.stores: list[SQLiteJobStore] = []

    def store(self, *, max_jobs: int = 10_000) -> SQLiteJobStore:
        database = Database(reactor, self.path, str(ULID()), self.wall, Notifications())
        store = SQLiteJobStore(database, lambda: ULID.from_timestamp(self.wall.now), max_jobs)
        store.open()
        self.stores.append(store)
        store.start()
        return store

    def rows(self) -> int:
        with closing(sqlite3.connect(self.path)) as other:
            (count,) = other.execute("SELECT count(*) FROM jobs").fetchone()
        return int(count)

    async def close(self) -> None:
        for store in self.stores:
            await store.stop()


#: By the name of the database: what makes its stores in a folder.
DATABASES = {"sqlite": SQLiteStores}
