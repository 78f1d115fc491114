"""Open the database before anything is served: the lock, the look at the file, migrations, and the rescue.

All of this blocks, and happens before the reactor runs and before twistd forks: no connection is left open, only the lock.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from importlib import resources
from pathlib import Path

from attrs import frozen

from foreman.errors import one_line
from foreman.protocol.model_names import canonical
from foreman.store.errors import StoreRefused, StoreUnavailable, named, unavailable
from foreman.store.sqlite.locking import Lock, check_names, real, take_lock
from foreman.store.sqlite.statements.execution import rescue
from foreman.store.sqlite.statements.rows import group_key_of
from foreman.store.sqlite.statements.transaction import Transaction

#: "FMAN", in the file's header.
APPLICATION_ID = 0x464D414E
#: Tables that are STRICT came with it.
OLDEST_SQLITE = (3, 37, 0)
#: A file up to this size is looked through before it is served, a larger one beside that; bytes.
CHECKED_FIRST = 64 * 1024 * 1024
#: How long another process may hold the file, in milliseconds: a backup, or a person's sqlite3.
PATIENCE_MS = 5000
#: How long readers are waited for before the log of changes is cut, in milliseconds.
LOG_PATIENCE_MS = 200
#: So many unused pages, and a quarter of all, are kept for what comes next; and how many are given back at once.
LEAST_FREE_PAGES = 4096
FREED_AT_ONCE = 500


@frozen
class Opened:
    """A database that is ready.

    :ivar rescued: how many jobs were running when foreman died; :ivar checked: whether the whole file was looked through;
    :ivar copy: of the file as it was before its schema was changed, None where that was not needed.
    """

    lock: Lock
    rescued: int
    checked: bool
    copy: Path | None


def open_database(path: Path, boot: str, now: int, lock: Lock | None = None) -> Opened:
    """Make the database at ``path`` ready for ``boot``, a ULID of this start.

    :param now: milliseconds since the epoch; :param lock: of ``take_lock``, which stays taken whatever happens.
    :raises StoreRefused: when it is in use, of a newer foreman, not foreman's, or damaged; StoreUnavailable: when not writable.
    """
    check_library()
    with naming(path):
        path = real(path)
        make_folder(path.parent)
        taken = take_lock(path) if lock is None else lock
        try:
            _make_file(path)
            taken.take_file(path)
            check_names(path)
            return _open(path, taken, boot, now)
        except BaseException:
            if lock is None:
                taken.release()
            raise


def examine(path: Path) -> None:
    """Whether a foreman could use the database at ``path``, which is there; nothing in it is changed.

    :raises StoreRefused, StoreUnavailable: as ``open_database`` would.
    """
    check_library()
    with naming(path):
        path = real(path)
        lock = take_lock(path)
        try:
            check_names(path)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                _version(connection, path)
                if path.stat().st_size <= CHECKED_FIRST:
                    check(connection, path)
        finally:
            lock.release()


def check_library() -> None:
    """Whether this Python's SQLite can keep jobs.

    :raises StoreUnavailable: when it is too old, which nothing but another one changes.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        text = f"jobs need SQLite {oldest} or newer, and this Python has {sqlite3.sqlite_version}"
        raise StoreUnavailable("broken", f"there is no job store: {text}; everything else works")


def make_folder(folder: Path) -> None:
    """The folder of the database, for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def configure(connection: sqlite3.Connection) -> None:
    """What every connection that writes needs; each answer is read, since SQLite may refuse without a word.

    :raises StoreUnavailable: when the file cannot be what it must be.
    """
    connection.text_factory = readable
    for pragma, wanted in (
        ("journal_mode = WAL", "wal"),
        ("synchronous = FULL", None),
        ("foreign_keys = ON", None),
        (f"busy_timeout = {PATIENCE_MS}", PATIENCE_MS),
        ("wal_autocheckpoint = 0", 0),  # it would swallow a failed fsync; the writer's own does not
        ("journal_size_limit = 67108864", 67108864),
        ("cache_size = -65536", None),
        ("temp_store = MEMORY", None),
        ("mmap_size = 0", None),  # an I/O error on a mapping is a signal, not an exception
        ("secure_delete = ON", 1),  # deleted is gone, also from pages that are free (ADR-0023)
        ("trusted_schema = OFF", None),
    ):
        row = connection.execute(f"PRAGMA {pragma}").fetchone()
        if wanted is not None and (row is None or row[0] != wanted):
            raise unavailable("unwritable", f"PRAGMA {pragma} was answered {row}")


#: A text of the database; bytes that are not UTF-8, of a damaged row, must not keep every row beside it from being read.
readable = partial(str, encoding="utf-8", errors="replace")


def shrink(connection: sqlite3.Connection) -> bool:
    """Give a few of the pages that nothing uses back to the disk, where they are many.

    All of them, once, where an older foreman made them: what they held was not overwritten then. In a file without
    incremental auto-vacuum (one that was made from a dump) none can be given back.

    :return: whether there may be more that can.
    """
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    clean = connection.execute("SELECT 1 FROM meta WHERE key = 'clean'").fetchone() is not None
    if not (free or clean):
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('clean', '1')")
    if free < (max(LEAST_FREE_PAGES, pages // 4) if clean else 1):
        return False
    # Stepped to its end, which ``execute`` would not do.
    connection.executescript(f"PRAGMA incremental_vacuum({FREED_AT_ONCE})")
    (left,) = connection.execute("PRAGMA freelist_count").fetchone()
    return bool(left < free)


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the database is one of foreman's, and of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(application == APPLICATION_ID and version == len(migrations()))


def empty_log(connection: sqlite3.Connection) -> bool:
    """Write the log of changes into the database and cut it: it holds older contents of pages, what was deleted among them.

    :return: whether it could be done; a reader may have kept it.
    """
    connection.execute(f"PRAGMA busy_timeout = {LOG_PATIENCE_MS}").fetchone()
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}").fetchone()
    return not busy


def migrations() -> list[str]:
    """The scripts that make the schema, in order; the first makes version 1."""
    folder = resources.files("foreman.store") / "schema"
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [script.read_text("utf-8") for script in scripts]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the troubles of ``path``."""
    try:
        yield
    except sqlite3.Error as problem:
        condition = named(problem)
        if condition == "broken":
            raise StoreRefused(
                f"{path} is damaged, or no database of foreman's ({problem}); it is left as it is: put a backup in its "
                "place, or name another file with FOREMAN_DB_PATH"
            ) from None
        raise unavailable(condition or "unwritable", f"{path}: {problem}") from None
    except OSError as problem:
        raise unavailable("unwritable", f"{path}: {problem.strerror}") from None


def _open(path: Path, lock: Lock, boot: str, now: int) -> Opened:
    checked = path.stat().st_size <= CHECKED_FIRST
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with _looked_at(path, checked):
            version = _version(connection, path)
        if version == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        configure(connection)
        copy = _migrate(connection, path, version)
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))
        cursor.execute(
            "INSERT OR REPLACE INTO meta SELECT 'waiting', "
            "(SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled') + "
            "(SELECT count(*) FROM jobs INDEXED BY jobs_ready WHERE state = 'queued')"
        )
        rescued = rescue(Transaction(cursor, now), boot)
        cursor.execute("COMMIT")
        return Opened(lock, rescued, checked, copy)


def _make_file(path: Path) -> None:
    """Made by us, so that it is nobody else's to read. One that is there is not opened: closing it would lose locks."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@contextmanager
def _looked_at(path: Path, whole: bool) -> Iterator[None]:
    """Look at the file before anything may write: to close it would write its log into one that is to be left as it is.

    :param whole: look through all of it.
    """
    # One that is empty, or that a crash left while it was made, can only be looked at by who may write.
    if path.stat().st_size == 0 or path.with_name(f"{path.name}-journal").exists():
        yield
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        _version(connection, path)
        if whole:
            check(connection, path)
        yield


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Look through the whole file.

    :raises StoreRefused: when something in it is damaged.
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreRefused(
            f"{path} is damaged ({one_line(found)}); it is left as it is: put a backup in its place, or name another file with "
            "FOREMAN_DB_PATH"
        )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Which schema the file has; 0 for an empty one.

    :raises StoreRefused: when it is not foreman's, or a newer foreman's.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (tables or version or application):
        raise StoreRefused(f"{path} is a database, but not foreman's; name another file with FOREMAN_DB_PATH")
    newest = len(migrations())
    if version > newest:
        raise StoreRefused(
            f"{path} was written by a newer foreman (schema {version}, this one knows {newest}); use that one, or name "
            "another file with FOREMAN_DB_PATH"
        )
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> Path | None:
    scripts, backup = migrations(), None
    if 0 < version < len(scripts):
        backup = path.with_name(f"{path.name}.before-{len(scripts)}")
        _make_file(backup)
        with closing(sqlite3.connect(backup)) as copy:
            connection.backup(copy)
    # What the scripts call to read model names.
    connection.create_function("canonical", 1, canonical, deterministic=True)
    connection.create_function("group_key_of", 1, group_key_of, deterministic=True)
    # A script that makes a table anew would take with it, by its references, what belongs to the old one.
    connection.execute("PRAGMA foreign_keys = OFF")
    for number, script in enumerate(scripts[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {number};\nCOMMIT;"
        )
    connection.execute("PRAGMA foreign_keys = ON")
    return backup
