"""The one thread that writes: many steps in one commit, each answered only after it."""

from __future__ import annotations

import errno
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field, frozen
from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from foreman.store.errors import Condition, StoreUnavailable, named, unavailable
from foreman.store.sqlite.statements.transaction import Transaction
from foreman.util.tracked_set import TrackedSet

T = TypeVar("T")
Step = Callable[[Transaction], Any]

#: How many steps share a commit at the most.
BATCH = 64
#: How many may wait for one; beyond, whoever comes is sent away.
MAX_WAITING = 10_000
#: After so many changed rows the log of changes is written into the database, or when its file has grown by so much; bytes.
CHECKPOINT_ROWS = 1000
CHECKPOINT_BYTES = 4 * 1024 * 1024
#: In a log so large readers must have kept it from beginning anew: wait for them; bytes.
RESTART_BYTES = 256 * 1024 * 1024


@frozen
class Committed:
    """What became of a batch.

    :ivar outcomes: of each step its result, or a Failure; :ivar changed: jobs to tell of; :ivar queued: some may run;
    :ivar due: the first moment at which the clock changes one; :ivar wrote: whether anything was
        written; :ivar log_due: whether the log is to be written into the database.
    """

    outcomes: list[Any]
    changed: frozenset[str]
    queued: bool
    due: int | None
    wrote: bool
    log_due: bool


@define(eq=False)
class Writer:
    """Runs steps in the writer's thread.

    :ivar boot: every batch looks whether the database is still this start's; :ivar now: milliseconds since the epoch;
    :ivar changed: called after each commit with the jobs that it changed, whether one of them may run, and the first
        moment at which the clock changes one;
    :ivar condition: how the store is; once ``broken`` it stays so.
    """

    _pool: ConnectionPool
    _path: Path
    boot: str
    _now: Callable[[], int]
    _changed: Callable[[frozenset[str], bool, int | None], None]
    condition: Condition = field(default="ok", init=False)
    detail: str = field(default="", init=False)
    _waiting: deque[tuple[Step, Deferred[Any]]] = field(factory=deque, init=False)
    _large: deque[tuple[Step, Deferred[Any]]] = field(factory=deque, init=False)
    _under_way: TrackedSet[object] = field(factory=TrackedSet, init=False)
    _files: tuple[Any, ...] = field(default=(), init=False)
    _changes: int = field(default=0, init=False)
    _log_bytes: int = field(default=0, init=False)
    _log = Logger()

    def write(self, step: Callable[[Transaction], T], *, is_large: bool = False) -> Deferred[T]:
        """Run ``step`` in the next commit.

        Cancelling the Deferred says that nobody wants to know; the step is committed all the same.

        :param is_large: it writes much: only one such step is in a commit, so that the others do not wait for many.
        :return: fires with what the step returned, after the commit; fails with what it raised.
        :raises StoreUnavailable: as the Deferred's failure, when it could not be committed.
        """
        done: Deferred[T] = Deferred()
        if self.condition == "broken":
            done.errback(self.refusal())
        elif len(self._waiting) + len(self._large) >= MAX_WAITING:
            done.errback(unavailable("unwritable", f"{MAX_WAITING} changes wait to be written"))
        else:
            (self._large if is_large else self._waiting).append((step, done))
            if not self._under_way:
                self._begin()
        return done

    def when_idle(self) -> Deferred[None]:
        """Fires when nothing is left to write."""
        return self._under_way.when_empty()

    def give_up(self, detail: object) -> None:
        """The file cannot be relied on any more."""
        self._became(unavailable("broken", detail))

    def refusal(self) -> StoreUnavailable:
        """The failure for those who want something of a store that is not well."""
        return StoreUnavailable(self.condition, self.detail)

    def _begin(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        if self._large:
            batch.append(self._large.popleft())
        steps = [step for step, _ in batch]
        self._under_way.add(self)
        running: Deferred[Any] = self._pool.runWithConnection(self._commit, steps, self._now())
        running.addCallbacks(self._committed, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        running.addErrback(lambda failure: self._log.failure("telling of a commit failed", failure))
        running.addCallback(self._checkpoint_where_due)
        running.addErrback(self._checkpoint_failed)
        running.addBoth(self._next)

    def _next(self, _: object) -> None:
        if (self._waiting or self._large) and self.condition != "broken":
            self._begin()
            return
        left = [*self._waiting, *self._large]
        self._waiting, self._large = deque(), deque()
        for _step, done in left:
            done.errback(self.refusal())
        self._under_way.discard(self)

    def _committed(self, committed: Committed, batch: Sequence[tuple[Step, Deferred[Any]]]) -> bool:
        if self.condition == "broken":  # found while this was on its way: what is in the file may not stay there
            for _step, done in batch:
                done.errback(self.refusal())
            return False
        # Taking the lock shows that the file can be locked; that there is room is shown by what was written only.
        if self.condition == "unwritable" or (self.condition == "full" and committed.wrote):
            self._log.info("the job store can be written again")
            self.condition, self.detail = "ok", ""
        if committed.changed or committed.queued:
            try:
                self._changed(committed.changed, committed.queued, committed.due)
            except Exception:  # noqa: BLE001 - a listener's mistake is not theirs who have been committed
                self._log.failure("telling of changes failed")
        for (_step, done), outcome in zip(batch, committed.outcomes, strict=True):
            if isinstance(outcome, Failure):
                done.errback(outcome)
            else:
                done.callback(outcome)
        return committed.log_due

    def _failed(self, failure: Failure, batch: Sequence[tuple[Step, Deferred[Any]]]) -> None:
        problem = failure.value
        if isinstance(problem, sqlite3.Error):
            condition = named(problem)
            if condition is None:
                self._log.failure("writing to the store failed", failure)
            problem = unavailable(condition or "unwritable", problem)
        if isinstance(problem, StoreUnavailable):
            self._became(problem)
        for _step, done in batch:
            done.errback(Failure(problem))

    def _checkpoint_failed(self, failure: Failure) -> None:
        problem = failure.value
        condition = named(problem) if isinstance(problem, sqlite3.Error) else None
        if condition == "broken":
            self.give_up(problem)
        else:  # it is tried again after the next commit
            self._log.warn("the log of the job store cannot be written into it: {problem}", problem=problem)

    def _became(self, problem: StoreUnavailable) -> None:
        if self.condition in {problem.condition, "broken"}:
            return
        self._log.error("{problem}", problem=problem)
        self.condition, self.detail = problem.condition, str(problem)

    def _checkpoint_where_due(self, is_due: bool | None) -> Deferred[None]:
        # A store that has failed is left as it is: its log may be all that is whole.
        if not is_due or self.condition == "broken":
            return succeed(None)
        written: Deferred[None] = self._pool.runWithConnection(self._checkpoint)
        return written

    # in the writer's thread

    def _commit(self, connection: Any, steps: Sequence[Step], now: int) -> Committed:
        cursor = connection.cursor()
        changes = connection.total_changes
        cursor.execute("BEGIN IMMEDIATE")
        try:
            self._check_ours(cursor)
            outcomes: list[Any] = []
            whole = Transaction(cursor, now)
            for step in steps:
                tx = Transaction(cursor, now)
                outcome = _in_savepoint(step, tx)
                outcomes.append(outcome)
                if not isinstance(outcome, Failure):
                    whole.changed |= tx.changed
                    whole.queued = whole.queued or tx.queued
                    whole.will_be_due(tx.due)
            cursor.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise
        wrote = connection.total_changes > changes
        log_due = wrote and self._log_is_due(connection)
        return Committed(outcomes, frozenset(whole.changed), whole.queued, whole.due, wrote, log_due)

    def _check_ours(self, cursor: Any) -> None:
        """See that the file is still that of this start, and still has its name: else nobody would find it again."""
        files = tuple(map(_identity, (self._path, self._path.with_name(f"{self._path.name}-wal"))))
        self._files = self._files or files
        if None in files or files != self._files:
            raise unavailable("broken", f"somebody has removed or replaced {self._path}, or the log beside it")
        boot = cursor.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
        if boot is None or boot[0] != self.boot:
            raise unavailable("broken", "another foreman has taken the file over")

    def _log_is_due(self, connection: Any) -> bool:
        size = self._log_size()
        self._log_bytes = min(self._log_bytes, size)  # begun anew, it may have been cut
        grown = size - self._log_bytes >= CHECKPOINT_BYTES
        return grown or connection.total_changes - self._changes >= CHECKPOINT_ROWS

    def _checkpoint(self, connection: Any) -> None:
        """Write the log into the database; SQLite's own way of doing it swallows a failed fsync."""
        self._changes, self._log_bytes = connection.total_changes, self._log_size()
        kind = "RESTART" if self._log_bytes > RESTART_BYTES else "PASSIVE"
        connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()

    def _log_size(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except OSError:  # what has been committed is to be answered, whatever became of a name
            return 0


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None where none has.

    :raises StoreUnavailable: when the system cannot say it.
    """
    try:
        found = path.stat()
    except OSError as problem:
        if problem.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        # EIO and ESTALE come of a disk, or a server of files, that is gone; rights may be given back.
        condition: Condition = "unwritable" if problem.errno in {errno.EACCES, errno.EPERM} else "broken"
        raise unavailable(condition, f"{path}: {problem.strerror}") from None
    return found.st_dev, found.st_ino


def _in_savepoint(step: Step, tx: Transaction) -> Any:
    """What the step returned, or the Failure that it raised; then nothing of it is left.

    :raises sqlite3.Error: when it says something of the store, and so of the whole batch.
    """
    tx.cursor.execute("SAVEPOINT step")
    try:
        outcome = step(tx)
    except sqlite3.Error as problem:
        if named(problem) is not None:
            raise
        outcome = Failure()
    except Exception:  # noqa: BLE001 - it is its asker's to hear
        outcome = Failure()
    if isinstance(outcome, Failure):
        tx.cursor.execute("ROLLBACK TO step")
    tx.cursor.execute("RELEASE step")
    return outcome
