"""Files that others could change or read are noticed, and not used where they decide who is an admin."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from foreman.auth.tokens import Holder, digest, format_file
from foreman.cli.commands import checks
from foreman.config.settings import Config, load
from foreman.config.token_file import tokens_of
from foreman.errors import ConfigError
from foreman.store.notifications import Notifications
from foreman.store.sqlite import opening
from foreman.store.sqlite.database import Database
from foreman.util.file_permissions import database_problems, why_writable_by_others
from support.in_memory_foreman import in_memory_foreman

TOKEN = "a-token-of-more-than-sixteen"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of tokens, and the token of an admin, in a folder of their own."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    path = folder / "tokens"
    path.write_text(format_file([Holder("boss", digest(TOKEN), admin=True)]))
    path.chmod(0o640)
    (folder / "admin").write_text(TOKEN)
    (folder / "admin").chmod(0o600)
    return path


def test_a_file_is_its_owners_as_long_as_nobody_else_may_write_it_or_a_folder_on_the_way(secret: Path) -> None:
    assert why_writable_by_others(secret) is None
    secret.chmod(0o666)
    assert f"may write {secret} (mode 0666); chmod o-w {secret}" in str(why_writable_by_others(secret))
    secret.chmod(0o600)
    for mode, safe in ((0o777, False), (0o1777, True), (0o757, False), (0o775, True)):
        secret.parent.chmod(mode)
        assert (why_writable_by_others(secret) is None) is safe, oct(mode)
    secret.parent.chmod(0o755)
    assert why_writable_by_others(secret.parent / "not" / "there") is None


def test_a_link_in_a_folder_of_everybodys_is_not_safe(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    link = tmp_path / "open" / "link"
    link.symlink_to(secret)
    assert why_writable_by_others(link) is None
    (tmp_path / "open").chmod(0o777)
    assert str(tmp_path / "open") in str(why_writable_by_others(link))
    (tmp_path / "open").chmod(0o755)
    secret.parent.chmod(0o777)
    assert str(secret.parent) in str(why_writable_by_others(link))


def test_a_relative_path_without_a_working_directory_is_left_to_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert why_writable_by_others(Path("x")) is None
    assert list(database_problems(Path("x"))) == []


def test_every_link_on_the_way_is_looked_at(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "second").symlink_to("../folder")
    (tmp_path / "first").symlink_to(tmp_path / "open" / "second" / "tokens")
    (tmp_path / "loop").symlink_to("loop")
    assert why_writable_by_others(tmp_path / "first") is None
    (tmp_path / "open").chmod(0o777)
    assert f"may write {tmp_path / 'open'} " in str(why_writable_by_others(tmp_path / "first"))
    assert why_writable_by_others(tmp_path / "folder" / ".." / "folder" / "tokens") is None
    assert why_writable_by_others(tmp_path / "loop") is None  # reading it will fail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("whose", ["file", "link", "folder"])
def test_in_a_folder_of_everybodys_a_file_that_another_user_has_made_is_not_trusted(
    tmp_path: Path, secret: Path, whose: str
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "folder").mkdir()
    (shared / "link").symlink_to(secret)
    for path in (shared / "file", shared / "folder" / "file"):
        path.touch(0o600)
    path = {"file": shared / "file", "link": shared / "link", "folder": shared / "folder" / "file"}[whose]
    assert why_writable_by_others(path) is None
    os.chown(shared / whose, 1234, 1234, follow_symlinks=False)
    assert f"{shared / whose} belongs to another user (uid 1234)" in str(why_writable_by_others(path))
    shared.chmod(0o755)
    assert why_writable_by_others(path) is None


@pytest.mark.parametrize("where", ["file", "folder"])
def test_tokens_that_everybody_may_write_let_nobody_in(secret: Path, where: str) -> None:
    (secret if where == "file" else secret.parent).chmod(0o777)
    (secret.parent / "admin").chmod(0o666)
    with pytest.raises(ConfigError) as raised:
        load({"FOREMAN_TOKENS_FILE": str(secret), "FOREMAN_ADMIN_TOKEN_FILE": str(secret.parent / "admin")})
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        "FOREMAN_ADMIN_TOKEN", "FOREMAN_TOKENS_FILE",
    ]  # fmt: skip
    assert all("chmod o-w" in problem for problem in raised.value.problems)
    with pytest.raises(ValueError, match="cannot be trusted"):
        tokens_of(Config(tokens_file=secret))


def test_tokens_that_everybody_may_write_meanwhile_are_not_read_again(secret: Path) -> None:
    with in_memory_foreman(tokens_file=str(secret)) as step, capturedLogs() as events:
        secret.write_text(format_file([Holder("thief", digest("a-token-of-a-thief-1"), admin=True)]))
        secret.chmod(0o666)
        step.service.reload()
        assert [holder.name for holder in step.service.connections.admission.tokens.holders] == ["boss"]
    assert any("cannot be trusted" in str(event.get("problem")) for event in events)


def test_a_database_that_others_could_change_or_read_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "jobs.db"
    opening.open_database(path, "first", 0).lock.release()
    assert list(database_problems(path)) == []
    assert checks.check_store(Config(db_path=path)).state == "ok"
    path.chmod(0o666)
    path.parent.chmod(0o777)
    changed, read = database_problems(path)
    assert "other users can change the jobs" in changed
    assert f"chmod 600 {path}" in read
    found = checks.check_store(Config(db_path=path))
    assert (found.state, found.text) == ("note", f"{changed}; and {read}")
    found = checks.check_store(Config(db_path=path, disk_reserve=2**62))
    assert (found.state, found.text.startswith(f"{path}: the disk has "), found.text.endswith(read)) == (
        "bad",
        True,
        True,
    )
    with capturedLogs() as events:
        database = Database(None, path, "second", lambda: 0.0, Notifications())
        database.open()
        assert database._opened is not None
        database._opened.lock.release()
    assert [event["sentence"] for event in events if "sentence" in event] == [changed, read]
