"""The one thread that writes: many steps share a commit, and each gets its result only after the commit."""

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

from foreman.store.errors import Condition, StoreUnavailable, unavailable
from foreman.store.sqlite.error_codes import condition_of
from foreman.store.sqlite.statements.transaction import Transaction
from foreman.util.tracked_set import TrackedSet

T = TypeVar("T")
Step = Callable[[Transaction], Any]

#: How many steps share a commit.
MAX_BATCH = 64
#: How many steps may wait for a commit; others are refused.
MAX_WAITING = 10_000
#: A checkpoint follows after so many changed rows, or when the write-ahead log has grown by so many bytes.
CHECKPOINT_ROWS = 1000
CHECKPOINT_BYTES = 4 * 1024 * 1024
#: When the log is larger than this, in bytes, readers have kept it from being reset: the checkpoint waits for them.
RESTART_BYTES = 256 * 1024 * 1024


@frozen
class CommitResult:
    """The result of a batch.

    :ivar results: of each step its result, or a Failure; :ivar changed: the jobs that changed; :ivar queued: whether one
        of them may be able to run now; :ivar due: the first time at which one is due or expires; :ivar wrote: whether
        anything was written; :ivar checkpoint_due: whether the log is to be written into the database.
    """

    results: list[Any]
    changed: frozenset[str]
    queued: bool
    due: int | None
    wrote: bool
    checkpoint_due: bool


@define(eq=False)
class Writer:
    """Runs steps in the writer's thread.

    :ivar instance: every batch checks that the database still belongs to it; :ivar now: milliseconds since the epoch;
    :ivar announce: called after each commit, as ``Notifications.announce``;
    :ivar condition: of the store; once ``broken`` it stays so.
    """

    _pool: ConnectionPool
    _path: Path
    instance: str
    _now: Callable[[], int]
    _announce: Callable[[frozenset[str], bool, int | None], None]
    condition: Condition = field(default="ok", init=False)
    detail: str = field(default="", init=False)
    _waiting: deque[tuple[Step, Deferred[Any]]] = field(factory=deque, init=False)
    _large: deque[tuple[Step, Deferred[Any]]] = field(factory=deque, init=False)
    _running: TrackedSet[object] = field(factory=TrackedSet, init=False)
    _files: tuple[Any, ...] = field(default=(), init=False)
    _changes: int = field(default=0, init=False)
    _log_bytes: int = field(default=0, init=False)
    _log = Logger()

    def write(self, step: Callable[[Transaction], T], *, is_large: bool = False) -> Deferred[T]:
        """Run ``step`` in the next commit.

        Cancelling the Deferred only drops the result; the step is committed all the same.

        :param is_large: it writes much: a commit has only one such step, so that small steps do not wait for several.
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
            if not self._running:
                self._begin()
        return done

    def when_idle(self) -> Deferred[None]:
        """Fires when nothing is left to write."""
        return self._running.when_empty()

    def mark_broken(self, detail: object) -> None:
        """Close the store until foreman is restarted: the file cannot be relied on any more."""
        self._set_condition(unavailable("broken", detail))

    def refusal(self) -> StoreUnavailable:
        """The error for callers while ``condition`` is not ok."""
        return StoreUnavailable(self.condition, self.detail)

    def _begin(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
        if self._large:
            batch.append(self._large.popleft())
        steps = [step for step, _ in batch]
        self._running.add(self)
        committing: Deferred[Any] = self._pool.runWithConnection(self._commit, steps, self._now())
        committing.addCallbacks(self._committed, self._failed, callbackArgs=(batch,), errbackArgs=(batch,))
        committing.addErrback(lambda failure: self._log.failure("handling a commit failed", failure))
        committing.addCallback(self._checkpoint_if_due)
        committing.addErrback(self._checkpoint_failed)
        committing.addBoth(self._next)

    def _next(self, _: object) -> None:
        if (self._waiting or self._large) and self.condition != "broken":
            self._begin()
            return
        refused = [*self._waiting, *self._large]
        self._waiting, self._large = deque(), deque()
        for _step, done in refused:
            done.errback(self.refusal())
        self._running.discard(self)

    def _committed(self, committed: CommitResult, batch: Sequence[tuple[Step, Deferred[Any]]]) -> bool:
        if self.condition == "broken":  # found meanwhile: what this has written may be lost
            for _step, done in batch:
                done.errback(self.refusal())
            return False
        # Any commit shows that the file can be locked; only one that wrote something shows that there is free space.
        if self.condition == "unwritable" or (self.condition == "full" and committed.wrote):
            self._log.info("the job store can be written again")
            self.condition, self.detail = "ok", ""
        if committed.changed or committed.queued:
            try:
                self._announce(committed.changed, committed.queued, committed.due)
            except Exception:  # noqa: BLE001 - the steps are committed, whatever a listener does
                self._log.failure("announcing changes failed")
        for (_step, done), result in zip(batch, committed.results, strict=True):
            if isinstance(result, Failure):
                done.errback(result)
            else:
                done.callback(result)
        return committed.checkpoint_due

    def _failed(self, failure: Failure, batch: Sequence[tuple[Step, Deferred[Any]]]) -> None:
        problem = failure.value
        if isinstance(problem, sqlite3.Error):
            condition = condition_of(problem)
            if condition is None:
                self._log.failure("writing to the store failed", failure)
            problem = unavailable(condition or "unwritable", problem)
        if isinstance(problem, StoreUnavailable):
            self._set_condition(problem)
        for _step, done in batch:
            done.errback(Failure(problem))

    def _checkpoint_failed(self, failure: Failure) -> None:
        problem = failure.value
        condition = condition_of(problem) if isinstance(problem, sqlite3.Error) else None
        if condition == "broken":
            self.mark_broken(problem)
        else:  # the next commit tries again
            self._log.warn("the checkpoint of the job store failed: {problem}", problem=problem)

    def _set_condition(self, problem: StoreUnavailable) -> None:
        if self.condition in {problem.condition, "broken"}:
            return
        self._log.error("{problem}", problem=problem)
        self.condition, self.detail = problem.condition, str(problem)

    def _checkpoint_if_due(self, is_due: bool | None) -> Deferred[None]:
        # A broken store is left as it is: its log may be the only part that is not damaged.
        if not is_due or self.condition == "broken":
            return succeed(None)
        done: Deferred[None] = self._pool.runWithConnection(self._checkpoint)
        return done

    # in the writer's thread

    def _commit(self, connection: Any, steps: Sequence[Step], now: int) -> CommitResult:
        cursor = connection.cursor()
        changes = connection.total_changes
        cursor.execute("BEGIN IMMEDIATE")
        try:
            self._check_ownership(cursor)
            results: list[Any] = []
            batch = Transaction(cursor, now)
            for step in steps:
                tx = Transaction(cursor, now)
                result = _in_savepoint(step, tx)
                results.append(result)
                if not isinstance(result, Failure):
                    batch.changed |= tx.changed
                    batch.queued = batch.queued or tx.queued
                    batch.will_be_due(tx.due)
            cursor.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise
        wrote = connection.total_changes > changes
        checkpoint_due = wrote and self._is_checkpoint_due(connection)
        return CommitResult(results, frozenset(batch.changed), batch.queued, batch.due, wrote, checkpoint_due)

    def _check_ownership(self, cursor: Any) -> None:
        """Check that the file still belongs to this instance, and still has its name: else what is written would be lost."""
        files = tuple(map(_identity, (self._path, self._path.with_name(f"{self._path.name}-wal"))))
        self._files = self._files or files
        if None in files or files != self._files:
            raise unavailable("broken", f"{self._path}, or the log beside it, was removed or replaced")
        row = cursor.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
        if row is None or row[0] != self.instance:
            raise unavailable("broken", "another foreman has taken over the file")

    def _is_checkpoint_due(self, connection: Any) -> bool:
        size = self._log_size()
        self._log_bytes = min(self._log_bytes, size)  # it may have been truncated when it was reset
        grown = size - self._log_bytes >= CHECKPOINT_BYTES
        return grown or connection.total_changes - self._changes >= CHECKPOINT_ROWS

    def _checkpoint(self, connection: Any) -> None:
        """Write the log into the database; SQLite's automatic checkpoint would ignore a failed fsync."""
        self._changes, self._log_bytes = connection.total_changes, self._log_size()
        kind = "RESTART" if self._log_bytes > RESTART_BYTES else "PASSIVE"
        connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()

    def _log_size(self) -> int:
        try:
            return self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except OSError:  # the commit has succeeded, whatever happened to the file's name
            return 0


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file with this name; None where there is none.

    :raises StoreUnavailable: when the system cannot tell.
    """
    try:
        found = path.stat()
    except OSError as problem:
        if problem.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        # EIO and ESTALE come from a disk or file server that is gone; permissions may be restored.
        condition: Condition = "unwritable" if problem.errno in {errno.EACCES, errno.EPERM} else "broken"
        raise unavailable(condition, f"{path}: {problem.strerror}") from None
    return found.st_dev, found.st_ino


def _in_savepoint(step: Step, tx: Transaction) -> Any:
    """The step's result, or the Failure that it raised, after which it is rolled back.

    :raises sqlite3.Error: when it concerns the store, and so the whole batch.
    """
    tx.cursor.execute("SAVEPOINT step")
    try:
        result = step(tx)
    except sqlite3.Error as problem:
        if condition_of(problem) is not None:
            raise
        result = Failure()
    except Exception:  # noqa: BLE001 - it goes to the step's caller
        result = Failure()
    if isinstance(result, Failure):
        tx.cursor.execute("ROLLBACK TO step")
    tx.cursor.execute("RELEASE step")
    return result
