"""What an error of SQLite's says about the store."""

from __future__ import annotations

import sqlite3

from foreman.store.errors import Condition

#: After these the database cannot be relied on: a failed fsync may have lost pages that later commits build on.
_BROKEN = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: These occur before anything is written: nothing can have been lost.
_NO_SHARED_MEMORY = frozenset({sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMLOCK})
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
)


def is_interrupt(error: sqlite3.Error) -> bool:
    """Whether a statement was interrupted on request, which says nothing about the store."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def condition_of(error: sqlite3.Error) -> Condition | None:
    """The condition that an error puts the store in; None for a mistake in a statement or its values."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the shared-memory file beside the log could not be enlarged
        return "full"
    if code in _NO_SHARED_MEMORY:
        return "unwritable"
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return "full"
    if primary in _BROKEN:
        return "broken"
    return "unwritable" if primary in _UNWRITABLE else None
