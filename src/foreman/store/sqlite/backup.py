"""Backups of the database: made while foreman runs, verified, and restored while it does not.

All of this blocks, and is for commands. A backup reads one snapshot and does not disturb a running foreman.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import frozen

from foreman.errors import one_line
from foreman.store.errors import StoreRefused, StoreUnavailable
from foreman.store.sqlite.error_codes import condition_of
from foreman.store.sqlite.locking import check_single_name, real_path, take_lock
from foreman.store.sqlite.opening import APPLICATION_ID, migrations, naming_errors

#: The suffixes of the files that belong to a database, beside its own.
_BESIDE = ("-wal", "-shm")


@frozen
class BackupSummary:
    """What a backup contains: how many jobs, how many of them have not ended, and its size in bytes."""

    jobs: int
    active: int
    bytes: int


def back_up(path: Path, copy: Path) -> BackupSummary:
    """Copy the database at ``path`` to ``copy`` and verify it; ``copy`` appears only when it is complete.

    :raises StoreRefused: when there is no database, ``copy`` exists already, or the copy is damaged.
    :raises StoreUnavailable: when it cannot be read or written.
    """
    if not path.exists():
        raise StoreRefused(f"there are no jobs at {path}")
    if copy.exists():
        raise StoreRefused(f"{copy} exists already; choose another name")
    if not copy.parent.is_dir():
        raise StoreRefused(
            f"there is no folder {copy.parent}; create it first: mkdir -p {shlex.quote(str(copy.parent))}"
        )
    with naming_errors(path):
        check_single_name(real_path(path))
    with _naming_copy_errors(path, copy):
        unfinished = copy.with_name(f"{copy.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        # Created first, so that nobody else may read it; SQLite takes an empty file for a new database.
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as source:
                # Only the writer of the running foreman may write the log into the database.
                source.execute("PRAGMA wal_autocheckpoint = 0")
                source.execute("VACUUM INTO ?", (str(unfinished),))
            content = verify(unfinished)
            _sync(unfinished)
            unfinished.rename(copy)
            _sync(copy.parent)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return content


@contextmanager
def _naming_copy_errors(path: Path, copy: Path) -> Iterator[None]:
    """Say what keeps ``path`` from being copied to ``copy``: usually the place of the copy, not the database."""
    try:
        yield
    except sqlite3.Error as problem:
        condition = condition_of(problem) or "unwritable"
        why = "the disk has no space for the copy" if condition == "full" else "the jobs cannot be copied"
        raise StoreUnavailable(condition, f"{why}: from {path} to {copy}: {problem}") from None
    except OSError as problem:
        raise StoreUnavailable("unwritable", f"the copy {copy} cannot be written: {problem.strerror}") from None


def verify(copy: Path) -> BackupSummary:
    """Check every page of a backup, and every reference in it.

    :raises StoreRefused: when it is damaged, another kind of file, or a newer foreman's.
    """
    if not copy.is_file():
        raise StoreRefused(f"there is no file {copy}")
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise StoreRefused(f"{copy} is not a copy of foreman's jobs")
            if version > len(migrations()):
                raise StoreRefused(f"{copy} was written by a newer foreman (schema {version})")
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok" or connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise StoreRefused(f"{copy} is damaged: {one_line(found)}")
            (jobs,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
            (active,) = connection.execute("SELECT count(*) FROM jobs WHERE finished_at IS NULL").fetchone()
    except sqlite3.DatabaseError as problem:
        raise StoreRefused(f"{copy} is damaged, or not a copy of foreman's jobs ({problem})") from None
    return BackupSummary(jobs, active, copy.stat().st_size)


def restore(copy: Path, path: Path, now: str) -> tuple[BackupSummary, Path | None]:
    """Replace the database at ``path``, which no foreman may be using, by a verified backup.

    :param now: goes into the name under which the old database is kept; where that exists, a number is appended.
    :return: what the backup contains, and where the old database is now, None where there was none.
    :raises StoreRefused: when the backup cannot be used, or a foreman runs.
    :raises StoreUnavailable: when it cannot be written.
    """
    content, path = verify(copy), real_path(path)
    with naming_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = take_lock(path)
        try:
            check_single_name(path)
            incoming = path.with_name(f"{path.name}.incoming")
            incoming.unlink(missing_ok=True)
            os.close(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(copy, isolation_level=None)) as source:
                source.execute("VACUUM INTO ?", (str(incoming),))
            verify(incoming)
            _sync(incoming)
            old = _move_aside(path, f"{path.name}.before-restore-{now}")
            incoming.rename(path)
            _sync(path.parent)
        finally:
            lock.release()
    return content, old


def delete_upgrade_copies(path: Path, before: float) -> list[Path]:
    """Delete the copies of the database at ``path`` that were made before an upgrade of its schema; blocks.

    :param before: only those made before this, seconds since the epoch.
    :return: those that were deleted.
    """
    deleted: list[Path] = []
    for copy in path.parent.iterdir():
        number = copy.name.removeprefix(f"{path.name}.before-")
        if number != copy.name and number.isascii() and number.isdigit() and copy.stat().st_mtime < before:
            copy.unlink()
            deleted.append(copy)
    return deleted


def _move_aside(path: Path, name: str) -> Path | None:
    """Rename a database and the files beside it; the log first, since without the database it has no effect.

    :param name: the new name; where it exists already, a number is appended.
    :return: the new path, None where there was no database.
    """
    if not path.exists():
        for suffix in _BESIDE:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return None
    old, number = path.with_name(name), 1
    while any(os.path.lexists(old.with_name(old.name + suffix)) for suffix in (*_BESIDE, "")):
        number += 1
        old = path.with_name(f"{name}-{number}")
    for suffix in (*_BESIDE, ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(old.with_name(old.name + suffix))
    return old


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
