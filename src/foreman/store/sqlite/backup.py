"""Copies of the database: made while foreman runs, verified, and put back while it does not.

All of this blocks, and is for commands; a running foreman is not disturbed by a copy, which reads one snapshot.
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
from foreman.store.errors import StoreRefused, StoreUnavailable, named
from foreman.store.sqlite.locking import check_names, real, take_lock
from foreman.store.sqlite.opening import APPLICATION_ID, migrations, naming

#: What belongs to a database beside its file.
_BESIDE = ("-wal", "-shm")


@frozen
class Content:
    """What a copy holds: how many jobs, how many of them have not ended, and its size in bytes."""

    jobs: int
    active: int
    bytes: int


def back_up(path: Path, copy: Path) -> Content:
    """Copy the database at ``path`` to ``copy`` and verify it; whoever sees ``copy`` sees the whole.

    :raises StoreRefused: when there is no database, the copy is there already, or it turns out damaged.
    :raises StoreUnavailable: when it cannot be read or written.
    """
    if not path.exists():
        raise StoreRefused(f"there are no jobs at {path}")
    if copy.exists():
        raise StoreRefused(f"{copy} is there already; choose another name")
    if not copy.parent.is_dir():
        raise StoreRefused(f"there is no folder {copy.parent}; make it first: mkdir -p {shlex.quote(str(copy.parent))}")
    with naming(path):
        check_names(real(path))
    with _naming_copy(path, copy):
        unfinished = copy.with_name(f"{copy.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        # Made first, so that it is nobody else's to read; SQLite takes an empty file for a new database.
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as source:
                source.execute(
                    "PRAGMA wal_autocheckpoint = 0"
                )  # writing the log into the database is its writer's alone
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
def _naming_copy(path: Path, copy: Path) -> Iterator[None]:
    """Name what keeps ``path`` from being copied to ``copy``: most often the place of the copy, not the database."""
    try:
        yield
    except sqlite3.Error as problem:
        condition = named(problem) or "unwritable"
        why = "there is no room for the copy" if condition == "full" else "the jobs cannot be copied"
        raise StoreUnavailable(condition, f"{why}: from {path} to {copy}: {problem}") from None
    except OSError as problem:
        raise StoreUnavailable("unwritable", f"the copy {copy} cannot be written: {problem.strerror}") from None


def verify(copy: Path) -> Content:
    """Look through every page of a copy, and every reference in it.

    :raises StoreRefused: when it is damaged, something else, or of a newer foreman.
    """
    if not copy.is_file():
        raise StoreRefused(f"there is no file {copy}")
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise StoreRefused(f"{copy} is no copy of foreman's jobs")
            if version > len(migrations()):
                raise StoreRefused(f"{copy} was written by a newer foreman (schema {version})")
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok" or connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise StoreRefused(f"{copy} is damaged: {one_line(found)}")
            (jobs,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
            (active,) = connection.execute("SELECT count(*) FROM jobs WHERE finished_at IS NULL").fetchone()
    except sqlite3.DatabaseError as problem:
        raise StoreRefused(f"{copy} is damaged, or no copy of foreman's jobs ({problem})") from None
    return Content(jobs, active, copy.stat().st_size)


def restore(copy: Path, path: Path, now: str) -> tuple[Content, Path | None]:
    """Put a verified copy in the place of the database at ``path``, which no foreman may be using.

    :param now: for the name under which what was there is kept; where that is taken, a number comes behind it.
    :return: what the copy holds, and where the old database is now, None where there was none.
    :raises StoreRefused: when the copy cannot be used, or a foreman runs.
    :raises StoreUnavailable: when it cannot be written.
    """
    content, path = verify(copy), real(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = take_lock(path)
        try:
            check_names(path)
            incoming = path.with_name(f"{path.name}.incoming")
            incoming.unlink(missing_ok=True)
            os.close(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            with closing(sqlite3.connect(copy, isolation_level=None)) as source:
                source.execute("VACUUM INTO ?", (str(incoming),))
            verify(incoming)
            _sync(incoming)
            old = _put_aside(path, f"{path.name}.before-restore-{now}")
            incoming.rename(path)
            _sync(path.parent)
        finally:
            lock.release()
    return content, old


def drop_copies(path: Path, before: float) -> list[Path]:
    """Delete the copies that were made of the database at ``path`` before its schema was changed; blocks.

    :param before: only those made before this, seconds since the epoch.
    :return: those that are gone.
    """
    gone: list[Path] = []
    for copy in path.parent.iterdir():
        number = copy.name.removeprefix(f"{path.name}.before-")
        if number != copy.name and number.isascii() and number.isdigit() and copy.stat().st_mtime < before:
            copy.unlink()
            gone.append(copy)
    return gone


def _put_aside(path: Path, name: str) -> Path | None:
    """Give a database and what belongs to it another name; the log of changes first, which without it says nothing.

    :param name: of the file from then on; where something has that name already, a number comes behind it.
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
    """See that a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
