"""Copies of the jobs: whole, verified, and put back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from ulid import ULID

from foreman.cli.commands.database_option import job_count
from foreman.cli.main import cli
from foreman.jobs.job import NewJob
from foreman.store.errors import StoreRefused, StoreUnavailable
from foreman.store.sqlite.backup import back_up, restore, verify
from foreman.store.sqlite.locking import Lock
from foreman.store.sqlite.opening import configure, open_database
from foreman.store.sqlite.statements import enqueue, execution
from foreman.store.sqlite.statements.transaction import Transaction

NOW = 1_800_000_000_000


def opened(path: Path, boot: str = str(ULID())) -> Lock:
    return open_database(path, boot, NOW).lock


def writing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    configure(connection)
    return connection


def hand_over(connection: sqlite3.Connection, count: int) -> list[str]:
    new = NewJob(
        endpoint="/api/chat",
        lane="gate",
        family="ollama",
        model="m",
        owner="a",
        payload=b"{}",
        stream=True,
        fingerprint="",
    )
    ids = [str(ULID()) for _ in range(count)]
    connection.execute("BEGIN IMMEDIATE")
    enqueue.enqueue(Transaction(connection.cursor(), NOW), [new] * count, ids, 1000)
    connection.execute("COMMIT")
    return ids


def ids_in(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM jobs")}


def test_a_copy_made_while_the_file_is_written_holds_all_that_was_there_before(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    lock = opened(path)
    with closing(writing(path)) as connection:
        before = hand_over(connection, 20)
        content = back_up(path, copy)
        hand_over(connection, 5)
    lock.release()
    assert ids_in(copy) == set(before)
    assert (content.jobs, content.active) == (20, 20)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not copy.with_name("copy.db.unfinished").exists()


def test_a_copy_that_is_put_back_is_used_and_what_was_there_is_kept(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    lock = opened(path)
    with closing(writing(path)) as connection:
        before = hand_over(connection, 3)
        back_up(path, copy)
        after = hand_over(connection, 2)
    lock.release()
    content, old = restore(copy, path, "20270115T000000Z")
    assert content.jobs == 3
    assert ids_in(path) == set(before)
    assert old == tmp_path / "jobs.db.before-restore-20270115T000000Z"
    assert ids_in(old) == {*before, *after}
    opened(path).release()


def test_what_ran_when_the_copy_was_made_runs_again(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    lock = opened(path, boot := str(ULID()))
    with closing(writing(path)) as connection:
        hand_over(connection, 1)
        connection.execute("BEGIN IMMEDIATE")
        assert execution.claim(Transaction(connection.cursor(), NOW), "gate", boot, lambda _: 0) is not None
        connection.execute("COMMIT")
        back_up(path, copy)
    lock.release()
    path.unlink()
    restore(copy, path, "x")
    ready = open_database(path, str(ULID()), NOW)
    assert ready.rescued == 1
    ready.lock.release()


def test_nothing_is_put_back_while_a_foreman_runs(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    lock = opened(path)
    back_up(path, copy)
    with pytest.raises(StoreRefused, match="another foreman"):
        restore(copy, path, "x")
    lock.release()


def test_a_copy_never_takes_the_place_of_another_file(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    opened(path).release()
    copy.write_text("mine")
    with pytest.raises(StoreRefused, match="exists already"):
        back_up(path, copy)
    assert copy.read_text() == "mine"


@pytest.mark.parametrize("bytes_", [b"", b"a letter to my aunt\n" * 300, b"SQLite format 3\0" + b"\1" * 9000])
def test_what_is_no_copy_is_not_put_back(tmp_path: Path, bytes_: bytes) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    lock = opened(path)
    with closing(writing(path)) as connection:
        kept = hand_over(connection, 1)
    lock.release()
    copy.write_bytes(bytes_)
    with pytest.raises(StoreRefused):
        restore(copy, path, "x")
    assert ids_in(path) == set(kept)


def test_a_damaged_copy_is_found(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    lock = opened(path)
    with closing(writing(path)) as connection:
        hand_over(connection, 200)
    back_up(path, copy)
    lock.release()
    data = bytearray(copy.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = b"\xff" * 4096
    copy.write_bytes(data)
    with pytest.raises(StoreRefused):
        verify(copy)


def test_the_commands_tell_what_they_did_and_what_they_could_not(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    environment = {"FOREMAN_DB_PATH": str(path), "FOREMAN_TURNS": "none of this command's business"}
    missing = CliRunner().invoke(cli, ["backup", str(copy)], env=environment)
    assert (missing.exit_code, missing.stderr) == (1, f"foreman backup: there are no jobs at {path}\n")
    opened(path).release()
    done = CliRunner().invoke(cli, ["backup", str(copy)], env=environment)
    assert done.exit_code == 0
    assert "copy.db: no jobs (" in done.stdout
    back = CliRunner().invoke(cli, ["restore", str(copy)], env=environment)
    assert back.exit_code == 0, back.output
    assert "the replaced database is kept as" in back.stdout
    nowhere = CliRunner().invoke(cli, ["backup", str(tmp_path / "not" / "there.db")], env=environment)
    assert nowhere.exit_code == 1
    assert f"there is no folder {tmp_path / 'not'}; create it first" in nowhere.stderr


def test_a_copy_that_cannot_be_written_is_named_and_not_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    opened(path).release()

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("foreman.store.sqlite.backup.os.open", denied)
    with pytest.raises(StoreUnavailable) as refused:
        back_up(path, copy)
    assert str(refused.value) == f"the copy {copy} cannot be written: Permission denied"


@pytest.mark.parametrize(
    ("jobs", "active", "words"),
    [
        (0, 0, "no jobs"),
        (1, 0, "1 job, all ended"),
        (7, 0, "7 jobs, all ended"),
        (7, 2, "7 jobs, 2 of them not ended yet"),
    ],
)
def test_jobs_are_counted_in_words(jobs: int, active: int, words: str) -> None:
    assert job_count(jobs, active) == words


def test_a_copy_is_put_back_where_a_symbolic_link_points_to(tmp_path: Path) -> None:
    path, link, copy = tmp_path / "real" / "jobs.db", tmp_path / "link.db", tmp_path / "copy.db"
    link.symlink_to(path)
    opened(link).release()
    back_up(link, copy)
    _, old = restore(copy, link, "x")
    assert link.is_symlink()
    assert old == tmp_path / "real" / "jobs.db.before-restore-x"
    opened(path).release()


def test_what_was_there_keeps_its_name_whoever_restores_in_the_same_second(tmp_path: Path) -> None:
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    opened(path).release()
    back_up(path, copy)
    with closing(writing(path)) as connection:
        ids = set(hand_over(connection, 3))
    kept = [restore(copy, path, "now")[1] for _ in range(3)]
    assert kept == [tmp_path / f"jobs.db.before-restore-now{ending}" for ending in ("", "-2", "-3")]
    assert [ids_in(old) for old in kept if old is not None] == [ids, set(), set()]
    (tmp_path / "jobs.db.before-restore-now-4-wal").touch()
    assert restore(copy, path, "now")[1] == tmp_path / "jobs.db.before-restore-now-5"
