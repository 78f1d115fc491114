"""Open the database before anything is served: lock it, check the file, migrate its schema, rescue running jobs.

All of this blocks, and happens before the reactor runs and before twistd forks: no connection stays open, only the lock.
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
from foreman.store.errors import StoreRefused, StoreUnavailable, unavailable
from foreman.store.sqlite.error_codes import condition_of
from foreman.store.sqlite.locking import Lock, check_single_name, real_path, take_lock
from foreman.store.sqlite.statements.execution import rescue
from foreman.store.sqlite.statements.rows import group_key_of
from foreman.store.sqlite.statements.transaction import Transaction

#: "FMAN", in the file's header.
APPLICATION_ID = 0x464D414E
#: The first version with STRICT tables.
OLDEST_SQLITE = (3, 37, 0)
#: A file up to this size, in bytes, is checked before it is served; a larger one while it is served.
MAX_CHECKED_FIRST = 64 * 1024 * 1024
#: How long to wait for another process that holds the file, such as a backup or sqlite3, in milliseconds.
BUSY_TIMEOUT_MS = 5000


@frozen
class ReadyDatabase:
    """A database that is ready to be served.

    :ivar rescued: how many jobs were running when foreman died; :ivar checked: whether the whole file was checked;
    :ivar copy: of the file before an upgrade of its schema, None where there was none.
    """

    lock: Lock
    rescued: int
    checked: bool
    copy: Path | None


def open_database(path: Path, instance: str, now: int, lock: Lock | None = None) -> ReadyDatabase:
    """Make the database at ``path`` ready for ``instance``, a ULID of this start of foreman.

    :param now: milliseconds since the epoch; :param lock: from ``take_lock``; it stays locked whatever happens.
    :raises StoreRefused: when it is in use, a newer foreman's, not foreman's, or damaged; StoreUnavailable: when not writable.
    """
    check_library()
    with naming_errors(path):
        path = real_path(path)
        make_folder(path.parent)
        taken = take_lock(path) if lock is None else lock
        try:
            _make_file(path)
            taken.take_file(path)
            check_single_name(path)
            return _open(path, taken, instance, now)
        except BaseException:
            if lock is None:
                taken.release()
            raise


def examine(path: Path) -> None:
    """Check that a foreman could use the database at ``path``, which must exist; nothing in it is changed.

    :raises StoreRefused, StoreUnavailable: as ``open_database`` would.
    """
    check_library()
    with naming_errors(path):
        path = real_path(path)
        lock = take_lock(path)
        try:
            check_single_name(path)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                _version(connection, path)
                if path.stat().st_size <= MAX_CHECKED_FIRST:
                    check(connection, path)
        finally:
            lock.release()


def check_library() -> None:
    """Check that this Python's SQLite is new enough.

    :raises StoreUnavailable: when it is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        text = f"jobs need SQLite {oldest} or newer, and this Python has {sqlite3.sqlite_version}"
        raise StoreUnavailable("broken", f"there is no job store: {text}; everything else works")


def make_folder(folder: Path) -> None:
    """Create the folder of the database, accessible to its owner alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def configure(connection: sqlite3.Connection) -> None:
    """Configure a connection that writes; each result is checked, since SQLite may ignore a PRAGMA silently.

    :raises StoreUnavailable: when a setting does not take effect.
    """
    connection.text_factory = decode_text
    for pragma, expected in (
        ("journal_mode = WAL", "wal"),
        ("synchronous = FULL", None),
        ("foreign_keys = ON", None),
        (f"busy_timeout = {BUSY_TIMEOUT_MS}", BUSY_TIMEOUT_MS),
        ("wal_autocheckpoint = 0", 0),  # it would ignore a failed fsync; the writer's checkpoints do not
        ("journal_size_limit = 67108864", 67108864),
        ("cache_size = -65536", None),
        ("temp_store = MEMORY", None),
        ("mmap_size = 0", None),  # an I/O error in a mapping raises a signal, not an exception
        ("secure_delete = ON", 1),  # deleted data is overwritten, also in free pages (ADR-0023)
        ("trusted_schema = OFF", None),
    ):
        row = connection.execute(f"PRAGMA {pragma}").fetchone()
        if expected is not None and (row is None or row[0] != expected):
            raise unavailable("unwritable", f"PRAGMA {pragma} returned {row}")


#: Decodes a text of the database. Bytes of a damaged row that are not UTF-8 must not make the rows beside it unreadable.
decode_text = partial(str, encoding="utf-8", errors="replace")


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the database is foreman's and has the current schema."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return bool(application == APPLICATION_ID and version == len(migrations()))


def migrations() -> list[str]:
    """The scripts that create the schema, in order; the first creates version 1."""
    folder = resources.files("foreman.store.sqlite") / "schema"
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [script.read_text("utf-8") for script in scripts]


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and the system as errors of the store that name ``path``."""
    try:
        yield
    except sqlite3.Error as problem:
        condition = condition_of(problem)
        if condition == "broken":
            raise StoreRefused(
                f"{path} is damaged, or not a database of foreman's ({problem}); it is left as it is: put a backup in its "
                "place, or name another file with FOREMAN_DB_PATH"
            ) from None
        raise unavailable(condition or "unwritable", f"{path}: {problem}") from None
    except OSError as problem:
        raise unavailable("unwritable", f"{path}: {problem.strerror}") from None


def _open(path: Path, lock: Lock, instance: str, now: int) -> ReadyDatabase:
    checked = path.stat().st_size <= MAX_CHECKED_FIRST
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with _inspected(path, checked):
            version = _version(connection, path)
        if version == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        configure(connection)
        copy = _migrate(connection, path, version)
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (instance,))
        cursor.execute(
            "INSERT OR REPLACE INTO meta SELECT 'waiting', "
            "(SELECT count(*) FROM jobs INDEXED BY jobs_due WHERE state = 'scheduled') + "
            "(SELECT count(*) FROM jobs INDEXED BY jobs_ready WHERE state = 'queued')"
        )
        rescued = rescue(Transaction(cursor, now), instance)
        cursor.execute("COMMIT")
        return ReadyDatabase(lock, rescued, checked, copy)


def _make_file(path: Path) -> None:
    """Create the file, readable by its owner alone. One that exists is not opened: closing it would lose locks."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


@contextmanager
def _inspected(path: Path, whole: bool) -> Iterator[None]:
    """Inspect the file before a connection that may write is opened, whose closing would write the log into it.

    :param whole: check all of it.
    """
    # One that is empty, or was left by a crash while it was created, cannot be opened read-only.
    if path.stat().st_size == 0 or path.with_name(f"{path.name}-journal").exists():
        yield
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        _version(connection, path)
        if whole:
            check(connection, path)
        yield


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Check the whole file.

    :raises StoreRefused: when it is damaged.
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreRefused(
            f"{path} is damaged ({one_line(found)}); it is left as it is: put a backup in its place, or name another file with "
            "FOREMAN_DB_PATH"
        )


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the file's schema; 0 for an empty file.

    :raises StoreRefused: when the file is not foreman's, or a newer foreman's.
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
    # Functions that the scripts call.
    connection.create_function("canonical", 1, canonical, deterministic=True)
    connection.create_function("group_key_of", 1, group_key_of, deterministic=True)
    # A script that replaces a table would otherwise delete, by the references, the rows that belong to it.
    connection.execute("PRAGMA foreign_keys = OFF")
    for number, script in enumerate(scripts[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {number};\nCOMMIT;"
        )
    connection.execute("PRAGMA foreign_keys = ON")
    return backup
