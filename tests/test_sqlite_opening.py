"""Which files the store takes, and that it leaves the others as they are."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed_reactor
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread

from foreman.cli.commands import checks
from foreman.config.settings import Config
from foreman.jobs.job import NewJob
from foreman.store.errors import ReadTimedOut, StoreRefused, StoreUnavailable
from foreman.store.notifications import Notifications
from foreman.store.sqlite import backup, locking, opening
from foreman.store.sqlite import database as database_module
from foreman.store.sqlite import read_queue as read_queue_module
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.read_only import READER_CACHE
from foreman.store.sqlite.read_queue import READERS
from foreman.store.sqlite.statements import enqueue, execution
from foreman.store.sqlite.statements.transaction import Transaction

reactor: Any = installed_reactor
NOW = 1_700_000_000_000
#: The schema that there is, and one more script.
NEWEST = len(opening.migrations())
ANOTHER = "CREATE TABLE more (a TEXT) STRICT;\nINSERT INTO more VALUES ('new');"


def make(path: Path, jobs: int = 3, *, claimed: bool = False) -> None:
    """A database with some jobs, of a foreman that has ended."""
    opening.open_database(path, "first", NOW).lock.release()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        opening.configure(connection)
        add(connection, jobs, claimed=claimed)


def add(connection: sqlite3.Connection, jobs: int, *, claimed: bool = False) -> None:
    tx = Transaction(connection.cursor(), NOW)
    tx.cursor.execute("BEGIN IMMEDIATE")
    new = NewJob(
        endpoint="/api/chat", lane="gate", family="ollama", model="m", owner="o", payload=b"x" * 2000, stream=True,
        fingerprint="f",
    )  # fmt: skip
    (known,) = tx.cursor.execute("SELECT count(*) FROM jobs").fetchone()
    enqueue.enqueue(tx, [new] * jobs, [f"{number:026}" for number in range(known, known + jobs)], 10**6)
    if claimed:
        execution.claim(tx, "gate", "first", lambda _: 0)
    tx.cursor.execute("COMMIT")


def ask(path: Path, statement: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchone()[0]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.stat().st_size and not path.name.endswith("-shm")
    }


def refused(path: Path) -> str:
    """The sentence with which the file is refused; nothing in it may have changed."""
    before = digests(path.parent)
    with pytest.raises(StoreRefused) as caught:
        opening.open_database(path, "second", NOW)
    assert digests(path.parent) == before
    assert str(path) in str(caught.value)
    assert "FOREMAN_DB_PATH" in str(caught.value)
    locking.take_lock(path).release()
    return str(caught.value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "jobs.sqlite"
    lock = opening.open_database(path, "first", NOW).lock
    with closing(sqlite3.connect(path)) as connection:
        opening.configure(connection)
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
        connection.commit()
        assert mode(path.parent) == 0o700
        files = {file.name: mode(file) for file in path.parent.iterdir()}
    lock.release()
    assert files == dict.fromkeys(["jobs.sqlite", "jobs.sqlite.lock", "jobs.sqlite-wal", "jobs.sqlite-shm"], 0o600)


def test_what_ran_when_foreman_died_is_queued_again(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path, claimed=True)
    opened = opening.open_database(path, "second", NOW)
    opened.lock.release()
    assert (opened.rescued, opened.checked) == (1, True)
    assert ask(path, "SELECT count(*) FROM jobs WHERE state = 'queued'") == 3
    assert ask(path, "SELECT value FROM meta WHERE key = 'waiting'") == "3"


def test_a_second_foreman_is_told_at_once_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    lock = opening.open_database(path, "first", NOW).lock
    began = time.monotonic()
    with pytest.raises(StoreRefused, match=r"another foreman uses the jobs in .*FOREMAN_DB_PATH"):
        opening.open_database(path, "second", NOW)
    assert time.monotonic() - began < opening.BUSY_TIMEOUT_MS / 1000
    lock.release()
    opening.open_database(path, "second", NOW).lock.release()


def opened_elsewhere(path: Path) -> str:
    """What another process is told that opens the database at ``path``, and does not keep it; empty where nothing."""
    program = "import sys; from pathlib import Path; from foreman.store import errors\nfrom foreman.store.sqlite import opening\n"
    program += "try: opening.open_database(Path(sys.argv[1]), 'other', 0).lock.release()\n"
    program += "except errors.StoreRefused as problem: print(problem)"
    return subprocess.run(
        [sys.executable, "-c", program, path], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="there are no locks of open files")
def test_a_file_with_two_names_belongs_to_one_foreman(tmp_path: Path) -> None:
    path, other = tmp_path / "jobs.sqlite", tmp_path / "elsewhere" / "other.sqlite"
    make(path)
    other.parent.mkdir()
    lock = opening.open_database(path, "first", NOW).lock
    other.hardlink_to(path)
    assert "another foreman uses the jobs" in opened_elsewhere(other)
    with closing(sqlite3.connect(path)) as connection:  # what SQLite opens and closes does not give it up
        opening.configure(connection)
        add(connection, 1)
        assert "by another name" in opened_elsewhere(other)
    assert "by another name" in opened_elsewhere(other)
    child = os.fork()
    if not child:  # twistd's daemon, whose parent ends
        time.sleep(60)
        os._exit(0)
    lock.release()
    assert "by another name" in opened_elsewhere(other)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    path.unlink()
    assert opened_elsewhere(other) == ""


def test_a_file_with_two_names_is_not_opened_looked_at_or_copied(tmp_path: Path) -> None:
    """After a crash its log is beside one of them: by the other, jobs would be missing, and the file would be damaged."""
    path, other = tmp_path / "jobs.sqlite", tmp_path / "elsewhere" / "other.sqlite"
    make(path)
    backup.back_up(path, tmp_path / "copy")
    other.parent.mkdir()
    other.hardlink_to(path)
    before = {one: one.read_bytes() for one in sorted(tmp_path.rglob("*")) if one.is_file()}
    for name in (path, other):
        for use in (
            lambda name=name: opening.open_database(name, "second", NOW),
            lambda name=name: opening.examine(name),
            lambda name=name: backup.back_up(name, tmp_path / "another"),
            lambda name=name: backup.restore(tmp_path / "copy", name, "now"),
        ):
            with pytest.raises(StoreUnavailable, match=r"has 2 names \(hard links\).*find / -xdev") as raised:
                use()
            assert raised.value.condition == "broken"
        found = checks.check_store(Config(db_path=name))
        assert (found.state, "2 names" in found.text) == ("bad", True)
    after = {one: one.read_bytes() for one in sorted(tmp_path.rglob("*")) if one.is_file()}
    assert {one: after[one] for one in before} == before
    assert {one.name for one in after.keys() - before.keys()} <= {"jobs.sqlite.lock", "other.sqlite.lock"}
    other.unlink()
    opening.open_database(path, "second", NOW).lock.release()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts")
def test_a_file_that_is_mounted_by_itself_is_not_opened(tmp_path: Path) -> None:
    path, folder = tmp_path / "jobs.sqlite", tmp_path / "else where"
    make(path)
    folder.mkdir()
    (folder / "other.sqlite").touch()
    if subprocess.run(
        ["mount", "--bind", path, folder / "other.sqlite"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(StoreUnavailable, match="mounted by itself"):
            opening.open_database(folder / "other.sqlite", "second", NOW)
    finally:
        subprocess.run(["umount", folder / "other.sqlite"], stdin=subprocess.DEVNULL, check=True)
    opening.open_database(path, "second", NOW).lock.release()


def test_what_sqlite_finds_damaged_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path, 50)
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xff" * 4096)
    for look in (lambda: opening.open_database(path, "second", NOW), lambda: backup.verify(path)):
        with pytest.raises(StoreRefused, match="damaged") as raised:
            look()
        assert "\n" not in str(raised.value)


@pytest.mark.skipif(sys.platform != "linux", reason="there are no locks of open files")
def test_a_file_is_locked_by_its_name_where_its_bytes_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EINVAL, "no such lock")

    monkeypatch.setattr(locking, "lock_byte", fails)
    path = tmp_path / "jobs.sqlite"
    lock = opening.open_database(path, "first", NOW).lock
    assert "another foreman uses the jobs" in opened_elsewhere(path)
    lock.release()
    assert opened_elsewhere(path) == ""


@ensureDeferred
async def test_a_path_that_is_a_symbolic_link_is_the_file_that_it_points_to(tmp_path: Path) -> None:
    path, link = tmp_path / "real" / "jobs.sqlite", tmp_path / "link.db"
    link.symlink_to(path)  # which is not there yet
    database = Database(reactor, link, "first", lambda: NOW / 1000, Notifications())
    database.open()
    assert "another foreman uses the jobs" in opened_elsewhere(path)
    database.start()
    for _ in range(3):
        await database.write(add_one)
    assert database.condition == "ok"
    assert names_in(path.parent) == {f"jobs.sqlite{end}" for end in ("", "-wal", "-shm", ".lock")}
    await database.stop()
    assert names_in(tmp_path) == {"real", "link.db"}
    assert ask(link, "SELECT count(*) FROM jobs") == 3


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def add_one(tx: Transaction) -> None:
    (known,) = tx.cursor.execute("SELECT count(*) FROM jobs").fetchone()
    new = NewJob(
        endpoint="/api/chat", lane="gate", family="ollama", model="m", owner="o", payload=b"x", stream=True,
        fingerprint="f",
    )  # fmt: skip
    enqueue.enqueue(tx, [new], [f"{known:026}"], 100)


def test_a_symbolic_link_that_points_to_itself_is_said(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(link)
    with pytest.raises(StoreUnavailable):
        opening.open_database(link, "first", NOW)


def test_a_lock_file_that_was_copied_or_left_behind_locks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one" / "jobs.sqlite"
    make(path)
    lock = opening.open_database(path, "first", NOW).lock
    shutil.copytree(path.parent, tmp_path / "two")
    opening.open_database(tmp_path / "two" / "jobs.sqlite", "second", NOW).lock.release()
    lock.release()


@pytest.mark.parametrize(
    "content", [b"hello", b"a text\n" * 1000, random.Random(1).randbytes(50_000)], ids=["short", "text", "noise"]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(content)
    assert "damaged, or not a database of foreman's" in refused(path)


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE theirs (a)", "PRAGMA application_id = 77", "PRAGMA user_version = 1"]
)
@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path, statement: str, journal: str) -> None:
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute(statement)
        connection.commit()
    assert "not foreman's" in refused(path)


def test_a_file_of_a_newer_foreman_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.sqlite"
    scripts = opening.migrations()
    with monkeypatch.context() as newer:
        newer.setattr(opening, "migrations", lambda: [*scripts, ANOTHER])
        make(path)
    assert f"newer foreman (schema {NEWEST + 1}, this one knows {NEWEST})" in refused(path)


def test_a_damaged_file_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Wherever a page was overwritten: either it is refused as it is, or what was there is all there."""
    whole = tmp_path / "whole.sqlite"
    make(whole, 40)
    content = whole.read_bytes()
    chance = random.Random(2)
    refusals = 0
    for number in range(40):
        path = tmp_path / str(number) / "jobs.sqlite"
        path.parent.mkdir()
        page = number % (len(content) // 4096)
        hurt = bytearray(content)
        hurt[page * 4096 : page * 4096 + 64] = chance.randbytes(64)
        path.write_bytes(hurt)
        before = path.read_bytes()
        try:
            opening.open_database(path, "second", NOW).lock.release()
        except (StoreRefused, StoreUnavailable):
            refusals += 1
            assert path.read_bytes() == before
        else:
            assert ask(path, "SELECT count(*) FROM jobs") == 40
    assert refusals >= 30


def test_a_damaged_file_is_left_with_its_log_beside_it(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole" / "jobs.sqlite", tmp_path / "hurt" / "jobs.sqlite"
    make(whole, 40)
    path.parent.mkdir()
    with closing(sqlite3.connect(whole, isolation_level=None)) as connection:
        opening.configure(connection)
        add(connection, 1)
        for name in ("jobs.sqlite", "jobs.sqlite-wal"):
            shutil.copy(whole.with_name(name), path.with_name(name))
    root = int(ask(whole, "SELECT rootpage FROM sqlite_schema WHERE name = 'job_metadata_value'"))
    hurt = bytearray(path.read_bytes())
    hurt[(root - 1) * 4096 : (root - 1) * 4096 + 64] = b"\xa5" * 64
    path.write_bytes(hurt)
    assert path.with_name("jobs.sqlite-wal").stat().st_size > 0
    assert "damaged" in refused(path)


@contextmanager
def nobody() -> Iterator[None]:
    """Somebody whom modes of files hold back, which they do not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def of_nobody(tmp_path: Path) -> Iterator[Path]:
    """A folder that belongs to ``nobody``, at a place that they can reach."""
    folder = Path(shutil.copytree(tmp_path, Path("/tmp") / f"foreman-test-{os.getpid()}-{tmp_path.name}"))
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    folder.chmod(0o700)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_made(of_nobody: Path) -> None:
    of_nobody.chmod(0o500)
    with nobody(), pytest.raises(StoreUnavailable, match="Permission denied") as caught:
        opening.open_database(of_nobody / "jobs.sqlite", "first", NOW)
    assert caught.value.condition == "unwritable"
    assert not list(of_nobody.iterdir())


def test_a_file_that_cannot_be_written_is_said(of_nobody: Path) -> None:
    path = of_nobody / "jobs.sqlite"
    with nobody():
        make(path)
        path.chmod(0o400)
        with pytest.raises(StoreUnavailable, match="readonly") as caught:
            opening.open_database(path, "second", NOW)
    assert caught.value.condition == "unwritable"


@pytest.mark.parametrize("place", ["a file/jobs.sqlite", "a folder"])
def test_a_place_where_no_file_can_be_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "a folder").mkdir()
    with pytest.raises(StoreUnavailable):
        opening.open_database(tmp_path / place, "first", NOW)


@ensureDeferred
async def test_a_store_that_could_not_be_opened_is_tried_again_until_it_can(tmp_path: Path) -> None:
    hindrance = tmp_path / "jobs"
    hindrance.write_text("in the way")
    database = Database(reactor, hindrance / "jobs.sqlite", "first", lambda: NOW / 1000, Notifications())
    database.open()
    clock = Clock()
    clock.getThreadPool = reactor.getThreadPool  # type: ignore[attr-defined]
    clock.callFromThread = reactor.callFromThread  # type: ignore[attr-defined]
    database._reactor = clock
    database.start()
    assert (database.condition, database.detail) != ("ok", "")
    problem = await database.read(print).addErrback(lambda failure: failure.value)
    assert isinstance(problem, StoreUnavailable)
    clock.advance(database_module.REOPEN_INTERVAL)
    await deferLater(reactor, 0.1)
    assert database.detail.count("cannot be written") == 1
    hindrance.unlink()
    database._reactor = reactor
    rung: list[str] = []
    database.notifications.on_queued = lambda: rung.append("queued")
    assert database._reopening is not None
    await database._reopen()
    assert rung
    assert database.condition == "ok"
    assert await database.write(lambda tx: tx.now) == NOW
    assert not database._reopening.running
    await database.stop()


@ensureDeferred
async def test_the_locks_of_readers_outlive_the_tries_to_open_a_store_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path)
    whole = opening._open

    def full(*_: Any) -> Any:
        problem = sqlite3.OperationalError("database or disk is full")
        problem.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise problem

    monkeypatch.setattr(opening, "_open", full)
    conditions: list[str] = []
    database = Database(reactor, path, "second", lambda: NOW / 1000, Notifications())
    database.open()
    database.start()
    conditions.append(database.condition)
    count = "SELECT count(*) FROM jobs"
    assert await database.read(lambda cursor: cursor.execute(count).fetchone()) == (3,)
    cache = "PRAGMA cache_size"
    assert await database.read(lambda cursor: cursor.execute(cache).fetchone()) == (-READER_CACHE,)
    # To close any descriptor of a file gives up all locks that the process has of it.
    close, closed = os.close, []

    def closing_(file: int) -> None:
        if os.path.samestat(os.fstat(file), path.stat()):
            closed.append(file)
        close(file)

    monkeypatch.setattr(os, "close", closing_)
    for _ in range(3):
        await database._reopen()
        conditions.append(database.condition)
    assert closed == []
    with pytest.raises(StoreRefused, match="another foreman"):
        opening.open_database(path, "third", NOW)
    assert closed == []
    # A look that takes too long is not the disk's fault; one that waits when the store opens is to be asked again.
    monkeypatch.setattr(read_queue_module, "MAX_DURATION", 0.05)
    for_ever = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    problem = await database.read(lambda cursor: cursor.execute(for_ever).fetchall()).addErrback(
        lambda failure: failure.value
    )
    assert isinstance(problem, ReadTimedOut)
    monkeypatch.setattr(opening, "_open", whole)
    opened: Any = await deferToThread(database._open_in_thread, NOW)
    monkeypatch.setattr(read_queue_module, "MAX_DURATION", 5.0)
    looks = [
        database.read(lambda cursor: cursor.execute(for_ever).fetchall()).addErrback(lambda failure: failure.value)
        for _ in range(READERS + 2)
    ]
    database._reopened(opened)
    outcomes = [await look for look in looks]
    assert all(isinstance(outcome, StoreUnavailable) and outcome.condition == "ok" for outcome in outcomes)
    assert sum("repeat the request" in str(outcome) for outcome in outcomes) == 2
    conditions.append(database.condition)
    assert conditions == ["full"] * 4 + ["ok"]
    assert await database.write(lambda tx: tx.now) == NOW
    assert await database.read(lambda cursor: cursor.execute(cache).fetchone()) == (-READER_CACHE,)
    await database.stop()
    opening.open_database(path, "third", NOW).lock.release()


@ensureDeferred
async def test_a_store_that_could_not_be_opened_gives_its_lock_back_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path)
    with monkeypatch.context() as patched:
        patched.setattr(opening, "_open", lambda *_: os.open(tmp_path / "none", os.O_RDONLY))
        for is_trying in (False, True):
            database = Database(reactor, path, "second", lambda: NOW / 1000, Notifications())
            database.open()
            database.start()
            trying = database._reopen()
            if is_trying:
                await database.stop()
                await trying
            else:
                await trying
                await database.stop()
            assert database._lock is None
    opening.open_database(path, "third", NOW).lock.release()


# schemas


def test_the_first_schema_gets_canonical_names_and_keeps_what_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite"
    scripts = opening.migrations()
    with monkeypatch.context() as older:
        older.setattr(opening, "migrations", lambda: scripts[:1])
        opening.open_database(path, "first", NOW).lock.release()
    typed = ["m", " M\n", "library/m:latest", "m:7b", "far.example/x/m", "big:cloud", "big:120b-cloud", "no name"]
    with closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            "INSERT INTO jobs (id, state, endpoint, lane, family, model, owner, priority, sort_key, run_at, max_attempts, "
            "fingerprint, created_at) VALUES (?, 'queued', '/api/chat', 'gate', 'ollama', ?, 'o', 5, 0, 0, 5, 'f', 0)",
            [(f"{number:026}", model) for number, model in enumerate(typed)],
        )
        connection.commit()
        connection.execute(
            "INSERT INTO payloads VALUES (?, CAST('payload' AS BLOB), 'x', NULL, '[]', 1)", (f"{0:026}",)
        )
        connection.execute(
            "INSERT INTO artifacts VALUES (?, 'a', 'x', 5, 'f', 0, 0, CAST('bytes' AS BLOB))", (f"{1:026}",)
        )
        connection.commit()
    opening.open_database(path, "second", NOW).lock.release()
    assert ask(path, "SELECT owner || waiting || ' ' || bytes FROM owners") == "o8 12"
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT model, model_key, group_key FROM jobs ORDER BY id").fetchall()
    assert [row[0] for row in rows] == typed
    assert [row[1] for row in rows] == [
        "m:latest", "m:latest", "m:latest", "m:7b", "far.example/x/m:latest", "big:latest:cloud", "big:120b:cloud", "?no name",
    ]  # fmt: skip
    assert [row[2] for row in rows] == [*(row[1] for row in rows[:5]), ":cloud", ":cloud", "?"]


def test_an_older_file_is_brought_up_to_date_and_kept_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path, 7)
    scripts = opening.migrations()
    monkeypatch.setattr(opening, "migrations", lambda: [*scripts, ANOTHER])
    opened = opening.open_database(path, "second", NOW)
    opened.lock.release()
    assert ask(path, "PRAGMA user_version") == NEWEST + 1
    assert ask(path, "SELECT a FROM more") == "new"
    assert ask(path, "SELECT count(*) FROM jobs") == 7
    backup = tmp_path / f"jobs.sqlite.before-{NEWEST + 1}"
    assert opened.copy == backup
    assert mode(backup) == 0o600
    assert ask(backup, "PRAGMA user_version") == NEWEST
    assert ask(backup, "SELECT count(*) FROM jobs") == 7


def test_a_change_of_the_schema_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path, 7)
    scripts = opening.migrations()
    with monkeypatch.context() as newer:
        newer.setattr(opening, "migrations", lambda: [*scripts, f"{ANOTHER}\nDROP TABLE events;\nthis is no SQL;"])
        with pytest.raises(StoreUnavailable):
            opening.open_database(path, "second", NOW)
    opening.open_database(path, "third", NOW).lock.release()
    assert ask(path, "PRAGMA user_version") == NEWEST
    assert ask(path, "SELECT count(*) FROM events") == 7


def _die_in_the_middle(path: Path) -> None:
    scripts = opening.migrations()
    many = "\n".join(f"CREATE TABLE more{number} (a TEXT) STRICT;" for number in range(500))
    slow = "INSERT INTO more SELECT hex(randomblob(50)) FROM generate LIMIT 1000000;"
    for_ever = (
        "CREATE VIEW generate AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n;"
    )
    opening.migrations = lambda: [*scripts, f"{ANOTHER}\n{many}\n{for_ever}\n{slow * 100}"]
    opening.open_database(path, "second", NOW)


def test_killed_in_the_middle_of_a_change_of_the_schema_the_old_one_is_left(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path, 7)
    process = multiprocessing.get_context("fork").Process(target=_die_in_the_middle, args=(path,))
    process.start()
    log = tmp_path / "jobs.sqlite-wal"
    until = time.monotonic() + 30
    while not (log.exists() and log.stat().st_size > 1_000_000) and process.is_alive() and time.monotonic() < until:
        time.sleep(0.005)
    assert process.is_alive()
    process.kill()
    process.join()
    process.close()
    opening.open_database(path, "third", NOW).lock.release()
    assert ask(path, "PRAGMA user_version") == NEWEST
    assert ask(path, "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'more%'") == 0
    assert ask(path, "SELECT count(*) FROM jobs") == 7


def test_an_sqlite_that_is_too_old_costs_the_jobs_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "jobs.sqlite"
    make(path)
    before = digests(tmp_path)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.36.0")
    database = Database(Clock(), path, "second", lambda: NOW / 1000, Notifications())
    database.open()
    database.start()  # and nothing is tried again: a waiting timer would fail this test
    assert database.condition == "broken"
    assert "jobs need SQLite 3.37.0 or newer, and this Python has 3.36.0" in database.detail
    with pytest.raises(StoreUnavailable, match="SQLite"):
        opening.examine(path)
    for where in (path, tmp_path / "none.sqlite"):
        found = checks.check_store(Config(db_path=where))
        assert (found.state, "SQLite 3.37.0" in found.text) == ("bad", True)
    assert digests(tmp_path) == before


def test_this_sqlite_is_one_that_is_promised() -> None:
    assert sqlite3.sqlite_version_info >= opening.OLDEST_SQLITE
