"""foreman with one safeguard removed, to show that the checks would notice: ``python -m crash.mutations NAME serve``.

The safeguards are removed here, by patching; foreman itself has no switch for any of them.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Mapping
from typing import Any

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from foreman.jobs.job import Claim, Job
from foreman.store.errors import StaleClaim
from foreman.store.sqlite import opening
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements import execution
from foreman.store.sqlite.statements.rows import JOB_COLUMNS, job_from
from foreman.store.sqlite.statements.transaction import Transaction
from foreman.store.sqlite.writer import Writer

#: How long after the response the commit follows, in seconds.
LATE = 0.01


def _replace(owner: Any, name: str, replacement: Any) -> Any:
    """Replace an attribute of ``owner``; return what it was before.

    :raises AttributeError: there is none of that name: foreman has changed, and this mutation would do nothing.
    """
    was = getattr(owner, name)
    setattr(owner, name, replacement)
    return was


class _ChangingCursor:
    """A cursor that changes or skips the statements it executes."""

    def __init__(self, cursor: Any, change: Callable[[str], str | None]) -> None:
        self._cursor, self._change = cursor, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *values: Any) -> Any:
        changed = self._change(statement)
        return self if changed is None else self._cursor.execute(changed, *values)


class _LateConnection:
    """A connection that does not commit."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> Any:
        return _ChangingCursor(
            self._connection.cursor(), lambda statement: None if statement == "COMMIT" else statement
        )


def ack_before_commit() -> None:
    """Respond before the commit. Reads in between see the change, as if it had been committed."""

    def checkpoint_where_due(self: Any, is_due: bool | None) -> Deferred[None]:
        from twisted.internet import reactor

        late: Deferred[Any] = deferLater(reactor, LATE)
        late.addCallback(lambda _: self._pool.runWithConnection(_commit_now))
        return late.addCallback(lambda _: checkpoint(self, is_due))

    def commit(self: Any, connection: Any, steps: Any, now: int) -> Any:
        return commit_at_once(self, _LateConnection(connection), steps, now)

    def read(self: Any, look: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        found: Deferred[Any] = self._writing.runWithConnection(lambda connection: look(connection.cursor(), *arguments))
        return found

    # adbapi commits by itself after each use of a connection, by the method of the connection that it wraps.
    adbapi.Connection.commit = lambda _: None  # type: ignore[attr-defined]
    _replace(Database, "read", read)
    commit_at_once = _replace(Writer, "_commit", commit)
    checkpoint = _replace(Writer, "_checkpoint_if_due", checkpoint_where_due)


def _commit_now(connection: Any) -> None:
    if connection.in_transaction:
        connection.cursor().execute("COMMIT")


def sync_normal() -> None:
    """Do not sync commits to the disk."""

    def relaxed(connection: sqlite3.Connection) -> None:
        configure(connection)
        connection.execute("PRAGMA synchronous = NORMAL")

    configure = _replace(opening, "configure", relaxed)


def no_fence() -> None:
    """Accept the outcome of a job from any earlier claim, also from a foreman whose database another one has taken over."""

    def own(tx: Transaction, claim: Claim) -> Job:
        statement = f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ? AND state = 'running'"
        row = tx.cursor.execute(statement, (claim.job.id,)).fetchone()
        if row is None:
            raise StaleClaim(claim.job.id)
        return job_from(row)

    _replace(execution, "claimed_job", own)
    _replace(Writer, "_check_ownership", lambda _self, _cursor: None)


def no_rescue_fence() -> None:
    """Do not increase the fence of a rescued job."""
    bump = ", fence = fence + 1"

    def change(statement: str) -> str:
        if not statement.startswith("UPDATE jobs SET rescues"):
            return statement
        assert bump in statement, "the statement of rescue has changed: change this mutation, too"
        return statement.replace(bump, "")

    def without_fence(tx: Transaction, instance: str) -> int:
        cursor: Any = _ChangingCursor(tx.cursor, change)
        return int(rescue(Transaction(cursor, tx.now), instance))

    rescue = _replace(opening, "rescue", without_fence)


MUTATIONS: Mapping[str, Callable[[], None]] = {
    "ack-before-commit": ack_before_commit,
    "sync-normal": sync_normal,
    "no-fence": no_fence,
    "no-rescue-fence": no_rescue_fence,
}


def main() -> None:
    """Remove the safeguard, then run foreman."""
    MUTATIONS[sys.argv.pop(1)]()
    from foreman.cli.main import main as be_foreman

    be_foreman()


if __name__ == "__main__":
    main()
