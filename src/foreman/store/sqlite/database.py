"""The database file in use: opened, read and written in threads, closed, and tried again while it cannot be opened."""

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

from foreman.store.errors import (
    Condition,
    StoreRefused,
    StoreUnavailable,
    TookTooLong,
    is_interrupt,
    named,
    unavailable,
)
from foreman.store.notifications import Notifications
from foreman.store.sqlite import opening, read_only, read_queue
from foreman.store.sqlite.locking import Lock, real, take_lock
from foreman.store.sqlite.opening import Opened
from foreman.store.sqlite.read_queue import READERS, ReadQueue
from foreman.store.sqlite.statements.transaction import Transaction
from foreman.store.sqlite.writer import Writer
from foreman.util.file_permissions import database_problems

T = TypeVar("T")

#: What is known of the room on the disk is used for so long, in seconds: to look takes as long as to hand a job over.
ROOM_FRESH = 0.25
#: How often a database that could not be opened is tried again, in seconds.
REOPEN = 30.0


@define(eq=False)
class Database:
    """One SQLite file, this process's alone.

    :ivar path: of the file; :ivar boot: a ULID of this start; :ivar wall_clock: seconds since the epoch;
    :ivar notifications: ring after each commit; :ivar reserve: room on the disk below which nothing new is taken, in bytes.
    """

    _reactor: Any
    path: Path = field(converter=real)
    boot: str
    _wall_clock: Callable[[], float]
    notifications: Notifications
    _reserve: int = 0
    _opened: Opened | None = field(default=None, init=False)
    _problem: StoreUnavailable = field(factory=lambda: unavailable("off", ""), init=False)
    _writer: Writer | None = field(default=None, init=False)
    _writing: ConnectionPool | None = field(default=None, init=False)
    _reading: ConnectionPool | None = field(default=None, init=False)
    _reads: ReadQueue | None = field(default=None, init=False)
    _reopening: LoopingCall | None = field(default=None, init=False)
    #: Of the tries to open it: kept from one to the next, since to close the file would give up the readers' locks of it.
    _lock: Lock | None = field(default=None, init=False)
    _is_trying: bool = field(default=False, init=False)
    _ill_since: float | None = field(default=None, init=False)
    _room_seen_at: float = field(default=float("-inf"), init=False)
    _room: int | None = field(default=None, init=False)
    _log = Logger()

    @property
    def condition(self) -> Condition:
        """How it is, in one word."""
        if self._writer is None:
            condition = self._problem.condition
        else:
            condition = self._writer.condition
            if condition == "ok" and self._is_nearly_full():
                condition = "full"
        if condition == "ok":
            self._ill_since = None
        elif self._ill_since is None:
            self._ill_since = self._reactor.seconds()
        return condition

    @property
    def is_out_of_room(self) -> bool:
        """Whether the last that was to be written did not fit on the disk."""
        return self._writer is not None and self._writer.condition == "full"

    @property
    def ill_since(self) -> float:
        """Since when ``condition`` is not ok, as far as anybody looked; now, while it is; seconds of the clock."""
        return float(self._reactor.seconds()) if self._ill_since is None else self._ill_since

    @property
    def detail(self) -> str:
        """Why it is not well; empty while it is."""
        return str(self._problem) if self._writer is None else self._writer.detail

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._wall_clock() * 1000)

    def seconds(self) -> float:
        """Seconds of the clock, which only goes forward."""
        return float(self._reactor.seconds())

    def write(self, step: Callable[[Transaction], T], *, is_large: bool = False) -> Deferred[T]:
        """Run ``step`` within the next commit; see ``Writer.write``."""
        if self._writer is None:
            return maybeDeferred(self._refuse)
        return self._writer.write(step, is_large=is_large)

    def read(
        self, look: Callable[..., T], *arguments: Any, caller: str | None = None, patient: bool = False
    ) -> Deferred[T]:
        """Run ``look`` with a cursor and ``arguments`` in one snapshot of the database; see ``ReadQueue.look``.

        :param caller: who asks, None for foreman itself.
        :raises StoreUnavailable: as the Deferred's failure.
        """
        if self._reads is None or (self._writer is not None and self._writer.condition == "broken"):
            return maybeDeferred(self._refuse)
        return self._reads.look(look, arguments, caller, patient=patient).addErrback(self._unreadable)

    def aside(self, work: Callable[[Any], T]) -> Deferred[T]:
        """Run ``work`` with the writer's connection, between two commits and outside of them.

        :raises StoreUnavailable: as the Deferred's failure.
        """
        if self._writer is None or self._writing is None or self._writer.condition == "broken":
            return maybeDeferred(self._refuse)
        done: Deferred[T] = self._writing.runWithConnection(work)
        return done.addErrback(self._unreadable)

    def in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        """Run ``work``, which needs no database, in a thread. Cancelling the Deferred does not end it."""
        done: Deferred[T] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)
        return done

    def check_room(self) -> int | None:
        """See that there is room for more than what is under way.

        :return: how many bytes are free beyond what is kept so; None where the system does not say.
        :raises StoreUnavailable: when the disk is nearly full.
        """
        if self._is_nearly_full():
            raise unavailable("full", f"less than {self._reserve} bytes are free, which FOREMAN_DISK_RESERVE keeps")
        return self._room

    def _is_nearly_full(self) -> bool:
        now = self._reactor.seconds()
        if now - self._room_seen_at >= ROOM_FRESH:
            self._room_seen_at = now
            try:
                self._room = shutil.disk_usage(self.path.parent).free - self._reserve
            except OSError:
                self._room = None  # what is wrong there, writing will tell
        return self._room is not None and self._room < 0

    # from start to end

    def open(self) -> None:
        """Open the database; blocks, and is for the time before the reactor runs.

        Where it cannot be written now, that is said, and it is tried again once the reactor runs.

        :raises StoreRefused: when it is not to be used.
        """
        try:
            self._opened = opening.open_database(self.path, self.boot, self.now())
        except StoreUnavailable as problem:
            self._problem = problem
            self._log.error("{problem}; jobs are refused until it can be used", problem=problem)
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
            self._reopening = LoopingCall(self._try_again)
            self._reopening.clock = self._reactor
            self._reopening.start(REOPEN, now=False)

    async def stop(self) -> None:
        """Write what waits to be written, and close the file."""
        if self._reopening is not None and self._reopening.running:
            self._reopening.stop()
        if self._writer is not None and self._writing is not None:
            await self._writer.when_idle()
            # From here on whoever asks is refused: a pool that is closed would never answer.
            broken = self._writer.condition == "broken"
            self._problem = unavailable("off", "foreman is stopping")
            self._writer = None
            self._stop_reading()
            if not broken:
                await self._writing.runWithConnection(opening.empty_log).addErrback(self._log_problem)
            self._writing.close()
        if self._reading is not None:
            self._problem = unavailable("off", "foreman is stopping")
        self._stop_reading()
        if self._opened is not None:
            self._opened.lock.release()
            self._opened = None
        elif not self._is_trying:
            self._give_lock_back()

    def _stop_reading(self) -> None:
        if self._reads is not None:
            self._reads.close(self._problem)
        reading, self._reading, self._reads = self._reading, None, None
        if reading is not None:
            for connection in list(reading.connections.values()):
                connection.interrupt()  # looks, and the look through the whole file, which takes minutes for a large one
            reading.close()

    def _serve(self, opened: Opened) -> None:
        self._writing = self._pool(1, opening.configure)
        # One more than look, to look through a large file at the start.
        self._reading = self._pool(READERS + 1, read_only.configure_reader)
        self._writing.start()
        self._reading.start()
        self._reads = ReadQueue(self._reading, self._reactor)
        self._writer = Writer(self._writing, self.path, self.boot, self.now, self.notifications.ring)
        if opened.copy is not None:
            self._log.info("the jobs as the older foreman left them are kept in {copy} for a week", copy=opened.copy)
        if opened.rescued:
            self._log.warn("{count} jobs were running when foreman ended; they run again", count=opened.rescued)
        if not opened.checked:
            self._reading.runWithConnection(lambda connection: opening.check(connection, self.path)).addErrback(
                self._looked_through
            )

    def _pool(self, size: int, configure: Callable[[sqlite3.Connection], None]) -> ConnectionPool:
        return ConnectionPool(
            "sqlite3",
            str(self.path),
            isolation_level=None,
            check_same_thread=False,  # closed by the thread that stops it
            cp_min=size,
            cp_max=size,
            cp_noisy=False,
            cp_reactor=self._reactor,
            cp_openfun=configure,
        )

    def _try_again(self) -> Deferred[None]:
        self._is_trying = True
        return self.in_thread(partial(self._open_again, self.now())).addCallbacks(self._opened_late, self._still_closed)

    def _open_again(self, now: int) -> Opened:  # in a thread
        if self._lock is None:
            with opening.naming(self.path):
                opening.make_folder(self.path.parent)
                self._lock = take_lock(self.path, only_name=True)
        return opening.open_database(self.path, self.boot, now, self._lock)

    def _give_lock_back(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _opened_late(self, opened: Opened) -> None:
        assert self._reopening is not None
        self._is_trying = False
        if not self._reopening.running:  # foreman stopped meanwhile
            self._give_lock_back()
            return
        self._reopening.stop()
        self._lock = None  # it is that of ``opened`` now
        self._opened = opened
        # Whoever waits for a look is to ask again: it was not run, and what was wrong before is wrong no more.
        self._problem = StoreUnavailable("ok", "the job store can be written again; ask once more")
        self._stop_reading()  # what has only been read until now
        self._serve(opened)
        self._log.info("the job store can be used now")
        self.notifications.ring(frozenset(), True)

    def _still_closed(self, failure: Failure) -> None:
        self._is_trying = False
        if self._reopening is not None and not self._reopening.running:  # foreman stopped meanwhile
            self._give_lock_back()
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

    def _looked_through(self, failure: Failure) -> None:
        """The look through the whole file came to no good end; that it was interrupted says nothing of the file."""
        problem = failure.value
        if isinstance(problem, StoreRefused) or (isinstance(problem, sqlite3.Error) and named(problem) == "broken"):
            self._give_up(problem)
        else:
            self._log.warn("the job store could not be looked through: {problem}", problem=problem)

    def _unreadable(self, failure: Failure) -> Failure:
        problem = failure.value
        if not isinstance(problem, sqlite3.Error):
            return failure
        if is_interrupt(problem):
            if self._reads is None:  # foreman stops
                raise self._problem from None
            raise TookTooLong(read_queue.PATIENCE) from None
        refusal = unavailable(named(problem) or "unwritable", problem)
        if refusal.condition == "broken":  # what cannot be read is not to be built on
            self._give_up(problem)
        raise refusal from None

    def _give_up(self, problem: object) -> None:
        if self._writer is not None:
            self._writer.give_up(problem)

    def _log_problem(self, failure: Failure) -> None:
        self._log.warn("closing the job store: {problem}", problem=failure.value)

    def _refuse(self) -> Any:
        if self._writer is None:
            raise self._problem
        raise self._writer.refusal()
