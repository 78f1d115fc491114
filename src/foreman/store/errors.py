"""What can be wrong with the store, named by what happened."""

from __future__ import annotations

import sqlite3
from typing import Literal

from foreman.errors import ForemanError

#: How the store is; the words of ``/healthz`` and ``/queue``.
Condition = Literal["ok", "full", "unwritable", "broken", "off"]

#: After these nothing that SQLite says can be relied on: a failed fsync may have lost pages that later commits build on.
_BROKEN = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: These come before anything is written: nothing can have been lost.
_NO_SHARED_MEMORY = frozenset({sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMLOCK})
_UNWRITABLE = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
)


class StoreRefused(ForemanError):
    """The file is not to be used: somebody else's, a newer foreman's, or damaged. foreman does not start with it."""


class StoreInUse(StoreRefused):
    """Another foreman has it."""


class StoreUnavailable(ForemanError):
    """The store cannot be used now; ``condition`` says how it is."""

    def __init__(self, condition: Condition, detail: str) -> None:
        super().__init__(detail)
        self.condition = condition


class TookTooLong(StoreUnavailable):
    """A look was given up, since it took too long; nothing is wrong with the store."""

    def __init__(self, seconds: float) -> None:
        super().__init__("ok", f"this took longer than {seconds:g} s; ask for less, or try again later")


class TooManyLooks(StoreUnavailable):
    """A look was not begun, since many others wait; nothing is wrong with the store."""

    def __init__(self) -> None:
        super().__init__("ok", "too many lists of jobs are being read; try again soon")


def is_interrupt(problem: sqlite3.Error) -> bool:
    """Whether SQLite was told to stop; it says nothing of the store."""
    return getattr(problem, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def named(problem: sqlite3.Error) -> Condition | None:
    """What an error of SQLite's says of the store; None where it is a mistake in a statement."""
    code = getattr(problem, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the file of shared memory beside the log could not be made larger
        return "full"
    if code in _NO_SHARED_MEMORY:
        return "unwritable"
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return "full"
    if primary in _BROKEN:
        return "broken"
    return "unwritable" if primary in _UNWRITABLE else None


def unavailable(condition: Condition, problem: object) -> StoreUnavailable:
    """The failure for those who want something of a store that is in ``condition``."""
    sentences: dict[Condition, str] = {
        "full": "the disk of the job store is full; make room, and try again",
        "unwritable": "the job store cannot be written now",
        "broken": "the job store has failed and is closed until foreman is started again",
        "off": "there is no job store",
        "ok": "",
    }
    return StoreUnavailable(condition, f"{sentences[condition]} ({problem})" if problem else sentences[condition])
