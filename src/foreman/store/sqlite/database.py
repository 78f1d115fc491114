"""The database file in use: opened, read and written in threads, closed; opening is retried while it fails."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman.store.errors import Condition, ReadTimedOut, StoreRefused, StoreUnavailable, unavailable
from foreman.store.notifications import Notifications
from foreman.store.sqlite import maintenance, opening, read_only, read_queue
from foreman.store.sqlite.error_codes import condition_of, is_interrupt
from foreman.store.sqlite.locking import Lock, real_path, take_lock
from foreman.store.sqlite.opening import ReadyDatabase
from foreman.store.sqlite.read_queue import READERS, ReadQueue
from foreman.store.sqlite.statements.transaction import Transaction
from foreman.store.sqlite.writer import Writer
from foreman.util.file_permissions import database_problems

T = TypeVar("T")

#: For how long the free space of the disk, once read, is used, in seconds: reading it takes as long as storing a job.
FREE_SPACE_MAX_AGE = 0.25
#: How often opening is retried, in seconds.
REOPEN_INTERVAL = 30.0


@define(eq=False)
class Database:
    """One SQLite file, used by this process alone.

    :ivar path: of the file; :ivar instance: a ULID of this start of foreman; :ivar wall_clock: seconds since the epoch;
    :ivar notifications: announce each commit; :ivar reserve: free space below which no new jobs are stored, in bytes.
    """

    _reactor: Any
    path: Path = field(converter=real_path)
    instance: str
    _wall_clock: Callable[[], float]
    notifications: Notifications
    _reserve: int = 0
    _opened: ReadyDatabase | None = field(default=None, init=False)
    _problem: StoreUnavailable = field(factory=lambda: unavailable("off", ""), init=False)
    _writer: Writer | None = field(default=None, init=False)
    _writing: ConnectionPool | None = field(default=None, init=False)
    _reading: ConnectionPool | None = field(default=None, init=False)
    _reads: ReadQueue | None = field(default=None, init=False)
    _reopening: LoopingCall | None = field(default=None, init=False)
    #: Kept from one attempt at opening to the next: closing the file would release SQLite's locks of the readers.
    _lock: Lock | None = field(default=None, init=False)
    _is_reopening: bool = field(default=False, init=False)
    _unavailable_since: float | None = field(default=None, init=False)
    _free_read_at: float = field(default=float("-inf"), init=False)
    _free: int | None = field(default=None, init=False)
    _log = Logger()

    @property
    def condition(self) -> Condition:
        """The condition of the store."""
        if self._writer is None:
            condition = self._problem.condition
        else:
            condition = self._writer.condition
            if condition == "ok" and self._is_nearly_full():
                condition = "full"
        if condition == "ok":
            self._unavailable_since = None
        elif self._unavailable_since is None:
            self._unavailable_since = self._reactor.seconds()
        return condition

    @property
    def is_out_of_space(self) -> bool:
        """Whether the last write did not fit on the disk."""
        return self._writer is not None and self._writer.condition == "full"

    @property
    def unavailable_since(self) -> float:
        """Since when ``condition`` has not been ok, as of the last check; now, while it is ok; seconds of the clock."""
        return float(self._reactor.seconds()) if self._unavailable_since is None else self._unavailable_since

    @property
    def detail(self) -> str:
        """Why ``condition`` is not ok; empty while it is."""
        return str(self._problem) if self._writer is None else self._writer.detail

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._wall_clock() * 1000)

    def seconds(self) -> float:
        """Seconds of the monotonic clock."""
        return float(self._reactor.seconds())

    def write(self, step: Callable[[Transaction], T], *, is_large: bool = False) -> Deferred[T]:
        """Run ``step`` within the next commit; see ``Writer.write``."""
        if self._writer is None:
            return maybeDeferred(self._refuse)
        return self._writer.write(step, is_large=is_large)

    def read(
        self, function: Callable[..., T], *arguments: Any, caller: str | None = None, patient: bool = False
    ) -> Deferred[T]:
        """Call ``function`` with a cursor and ``arguments`` in one snapshot of the database; see ``ReadQueue.read``.

        :param caller: for whom, None for foreman itself; :param patient: it waits instead of being refused.
        :raises StoreUnavailable: as the Deferred's failure.
        """
        if self._reads is None or (self._writer is not None and self._writer.condition == "broken"):
            return maybeDeferred(self._refuse)
        return self._reads.read(function, arguments, caller, patient=patient).addErrback(self._read_failed)

    def between_commits(self, function: Callable[[Any], T]) -> Deferred[T]:
        """Call ``function`` with the writer's connection, between two commits, outside of a transaction.

        :raises StoreUnavailable: as the Deferred's failure.
        """
        if self._writer is None or self._writing is None or self._writer.condition == "broken":
            return maybeDeferred(self._refuse)
        done: Deferred[T] = self._writing.runWithConnection(function)
        return done.addErrback(self._read_failed)

    def in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        """Call ``function``, which needs no database, in a thread. Cancelling the Deferred does not end it."""
        done: Deferred[T] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)
        return done

    def check_free_space(self) -> int | None:
        """Check that the disk has free space for new jobs.

        :return: how many bytes are free beyond the reserve; None where the system does not say.
        :raises StoreUnavailable: when the disk is nearly full.
        """
        if self._is_nearly_full():
            raise unavailable(
                "full", f"fewer than {self._reserve} bytes are free, which FOREMAN_DISK_RESERVE keeps free"
            )
        return self._free

    def _is_nearly_full(self) -> bool:
        now = self._reactor.seconds()
        if now - self._free_read_at >= FREE_SPACE_MAX_AGE:
            self._free_read_at = now
            try:
                self._free = shutil.disk_usage(self.path.parent).free - self._reserve
            except OSError:
                self._free = None  # a write will show what is wrong
        return self._free is not None and self._free < 0

    # lifecycle

    def open(self) -> None:
        """Open the database; blocks, and is called before the reactor runs.

        Where it cannot be written now, that is logged, and opening is retried once the reactor runs.

        :raises StoreRefused: when it must not be used.
        """
        try:
            self._opened = opening.open_database(self.path, self.instance, self.now())
        except StoreUnavailable as problem:
            self._problem = problem
            self._log.error("{problem}; no jobs are accepted until it can be used", problem=problem)
        for sentence in database_problems(self.path):
            self._log.warn("{sentence}", sentence=sentence)

    def start(self) -> None:
        """Begin to serve."""
        if self._opened is not None:
            self._serve(self._opened)
        elif self._problem.condition not in {"off", "broken"}:
            self._reading = read_only.pool_for(self._reactor, self.path)
            if self._reading is not None:
                self._reads = ReadQueue(self._reading, self._reactor)
            self._reopening = LoopingCall(self._reopen)
            self._reopening.clock = self._reactor
            self._reopening.start(REOPEN_INTERVAL, now=False)

    async def stop(self) -> None:
        """Write what waits to be written, refuse everything else, and close the file."""
        if self._reopening is not None and self._reopening.running:
            self._reopening.stop()
        if self._writer is not None and self._writing is not None:
            await self._writer.when_idle()
            # From here on all calls are refused: a closed pool would never answer.
            broken = self._writer.condition == "broken"
            self._problem = unavailable("off", "foreman is stopping")
            self._writer = None
            self._stop_reading()
            if not broken:
                await self._writing.runWithConnection(maintenance.truncate_log).addErrback(self._log_problem)
            self._writing.close()
        if self._reading is not None:
            self._problem = unavailable("off", "foreman is stopping")
        self._stop_reading()
        if self._opened is not None:
            self._opened.lock.release()
            self._opened = None
        elif not self._is_reopening:
            self._release_lock()

    def _stop_reading(self) -> None:
        if self._reads is not None:
            self._reads.close(self._problem)
        reading, self._reading, self._reads = self._reading, None, None
        if reading is not None:
            for connection in list(reading.connections.values()):
                connection.interrupt()  # reads, and the check of the whole file, which takes minutes for a large one
            reading.close()

    def _serve(self, opened: ReadyDatabase) -> None:
        self._writing = self._pool(1, opening.configure)
        # One more than the read queue uses, for the check of a large file at the start.
        self._reading = self._pool(READERS + 1, read_only.configure_reader)
        self._writing.start()
        self._reading.start()
        self._reads = ReadQueue(self._reading, self._reactor)
        self._writer = Writer(self._writing, self.path, self.instance, self.now, self.notifications.committed)
        if opened.copy is not None:
            self._log.info(
                "the database was upgraded; a copy of it as it was before is kept in {copy} for a week",
                copy=opened.copy,
            )
        if opened.rescued:
            self._log.warn("{count} jobs were running when foreman died; they were queued again", count=opened.rescued)
        if not opened.checked:
            self._reading.runWithConnection(lambda connection: opening.check(connection, self.path)).addErrback(
                self._check_failed
            )

    def _pool(self, size: int, configure: Callable[[sqlite3.Connection], None]) -> ConnectionPool:
        return ConnectionPool(
            "sqlite3",
            str(self.path),
            isolation_level=None,
            check_same_thread=False,  # the reactor's thread closes it
            cp_min=size,
            cp_max=size,
            cp_noisy=False,
            cp_reactor=self._reactor,
            cp_openfun=configure,
        )

    def _reopen(self) -> Deferred[None]:
        self._is_reopening = True
        return self.in_thread(partial(self._open_in_thread, self.now())).addCallbacks(
            self._reopened, self._reopen_failed
        )

    def _open_in_thread(self, now: int) -> ReadyDatabase:
        if self._lock is None:
            with opening.naming_errors(self.path):
                opening.make_folder(self.path.parent)
                self._lock = take_lock(self.path, only_name=True)
        return opening.open_database(self.path, self.instance, now, self._lock)

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _reopened(self, opened: ReadyDatabase) -> None:
        assert self._reopening is not None
        self._is_reopening = False
        if not self._reopening.running:  # foreman has stopped meanwhile
            self._release_lock()
            return
        self._reopening.stop()
        self._lock = None  # ``opened`` has it now
        self._opened = opened
        # Reads that still wait are refused with this text: they have not run, but can be made again now.
        self._problem = StoreUnavailable("ok", "the job store can be written again; repeat the request")
        self._stop_reading()  # the read-only connections
        self._serve(opened)
        self._log.info("the job store can be used now")
        self.notifications.announce(frozenset(), True)

    def _reopen_failed(self, failure: Failure) -> None:
        self._is_reopening = False
        if self._reopening is not None and not self._reopening.running:  # foreman has stopped meanwhile
            self._release_lock()
            return
        problem = failure.value
        if isinstance(problem, StoreUnavailable):
            self._problem = problem
            return
        if not isinstance(problem, StoreRefused):
            self._log.failure("opening the store failed", failure)
        elif str(problem) not in str(self._problem):
            self._log.error("{problem}", problem=problem)
        self._problem = unavailable("unwritable", problem)

    def _check_failed(self, failure: Failure) -> None:
        """The check of the whole file failed; an interrupt says nothing about the file."""
        problem = failure.value
        if isinstance(problem, StoreRefused) or (
            isinstance(problem, sqlite3.Error) and condition_of(problem) == "broken"
        ):
            self._mark_broken(problem)
        else:
            self._log.warn("the job store could not be checked: {problem}", problem=problem)

    def _read_failed(self, failure: Failure) -> Failure:
        problem = failure.value
        if not isinstance(problem, sqlite3.Error):
            return failure
        if is_interrupt(problem):
            if self._reads is None:  # foreman is stopping
                raise self._problem from None
            raise ReadTimedOut(read_queue.MAX_DURATION) from None
        refusal = unavailable(condition_of(problem) or "unwritable", problem)
        if refusal.condition == "broken":  # nothing more may be written into a damaged file
            self._mark_broken(problem)
        raise refusal from None

    def _mark_broken(self, problem: object) -> None:
        if self._writer is not None:
            self._writer.mark_broken(problem)

    def _log_problem(self, failure: Failure) -> None:
        self._log.warn("closing the job store: {problem}", problem=failure.value)

    def _refuse(self) -> Any:
        if self._writer is None:
            raise self._problem
        raise self._writer.refusal()
