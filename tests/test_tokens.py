"""Tokens: the file of named ones, who holds which, and the command that makes them."""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from attrs import evolve
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs

from foreman.auth.tokens import Holder, Tokens, check_name, digest, format_file, parse_file, without_holder
from foreman.cli.commands.tokens import command
from foreman.cli.ui.standard_streams import OutputLost
from foreman.config.parsers import LARGEST_FILE
from support.in_memory_foreman import in_memory_foreman
from support.processes import SCRIPTS
from support.raw_http import request

ALICE = Holder("alice", digest("alice's token"))
BOSS = Holder("boss", digest("boss's token"), admin=True)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True).filter(
    lambda name: name not in ("token", "admin")
)
HOLDERS = st.builds(Holder, NAMES, st.binary(min_size=32, max_size=32), st.booleans())


# the file


@given(st.lists(HOLDERS, unique_by=lambda holder: holder.name))
def test_what_was_written_is_read(holders: list[Holder]) -> None:
    assert parse_file(format_file(holders)) == tuple(holders)


@given(st.lists(HOLDERS, unique_by=lambda holder: holder.name, min_size=1))
def test_who_is_taken_out_is_gone_and_the_others_stay(holders: list[Holder]) -> None:
    gone = holders[len(holders) // 2]
    assert parse_file(without_holder(format_file(holders), gone.name)) == tuple(
        one for one in holders if one is not gone
    )


def test_what_people_write_into_the_file_stays() -> None:
    text = f"# mine\n\nalice {ALICE.digest.hex()} user   # laptop\r\n"
    assert parse_file(text) == (ALICE,)
    more = format_file([BOSS], text)
    assert more.startswith(text)
    assert parse_file(more) == (ALICE, BOSS)
    assert without_holder(more, "boss") == text
    assert without_holder(more, "alice").startswith("# mine\n\nboss ")


def test_a_last_line_without_an_end_is_not_run_into() -> None:
    assert parse_file(format_file([BOSS], f"alice {ALICE.digest.hex()} user")) == (ALICE, BOSS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alice", "line 1"),
        ("\n# x\nalice 12 user", "line 3"),
        (f"alice {'0' * 64}", "line 1"),
        (f"alice {'0' * 64} root", "line 1"),
        (f"alice {'G' * 64} user", "line 1"),
        (f"alice {'A' * 64} user", "line 1"),
        (f"alice {'0' * 64} user admin", "line 1"),
        (f"-x {'0' * 64} user", "name in line 1"),
        (f"admin {'0' * 64} user", "name in line 1"),
        (f"{'a' * 65} {'0' * 64} user", "name in line 1"),
        (f"a {'0' * 64} user\na {'0' * 64} admin", "same token of a twice, the second time in line 2"),
        (f"a {'0' * 64} user yesterday", "line 1"),
        (f"a {'0' * 64} user 2026-11-28T12:00:00Z x", "line 1"),
        ("\ufeffalice", "line 1"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_file(text)


def test_a_line_may_say_when_its_token_was_made_and_a_name_may_have_several() -> None:
    text = f"alice {ALICE.digest.hex()} user\nalice {BOSS.digest.hex()} admin 2026-11-28T12:00:00Z\n"
    old, new = parse_file(text)
    assert (old, old.created) == (ALICE, "")
    assert (new.name, new.admin, new.created) == ("alice", True, "2026-11-28T12:00:00Z")
    assert format_file([old, new]).endswith(text)
    assert without_holder(text, "alice", old.id) == text.splitlines(keepends=True)[1]
    assert without_holder(text, "alice") == ""


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_file(text)


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "-a", ".a", "é", "a\n", "a#b", "a" * 65, "token", "admin"])
def test_some_names_are_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be|is reserved"):
        check_name(name)


# who


def test_a_credential_tells_who_it_is() -> None:
    tokens = Tokens((ALICE, BOSS), required=True)
    assert tokens.holder_of(b"alice's token") == ALICE
    assert tokens.holder_of(b"boss's token") == BOSS
    assert tokens.holder_of(b"alice's toke") is None
    assert tokens.holder_of(b"") is None
    assert tokens.holder_of(b"\xff\0") is None
    assert tokens.holder_of(ALICE.digest.hex().encode()) is None


def test_a_credential_is_compared_with_every_token() -> None:
    tokens = Tokens((ALICE, BOSS, Holder("carol", digest("c"))), required=True)
    for given_one in (b"alice's token", b"nobody's"):
        with patch.object(hmac, "compare_digest", side_effect=hmac.compare_digest) as compare:
            tokens.holder_of(given_one)
        assert [call.args for call in compare.call_args_list] == [
            (sha256(given_one).digest(), holder.digest) for holder in tokens.holders
        ]


def test_a_name_may_have_two_tokens_while_one_replaces_the_other() -> None:
    old, new = Holder("alice", digest("the-old-one")), Holder("alice", digest("the-new-one"), admin=True)
    both, after = Tokens((old, new), required=True), Tokens((new,), required=True)
    assert [both.holder_of(token) for token in (b"the-old-one", b"the-new-one")] == [old, new]
    assert [after.is_valid(one) for one in (old, new)] == [False, True]
    assert not Tokens((Holder("alice", new.digest),), required=True).is_valid(new)
    assert (both.is_token(b"the-old-one"), after.is_token(b"the-old-one")) == (True, False)


@pytest.mark.parametrize("turned", [False, True])
def test_a_token_that_stands_twice_has_the_better_role_of_both(turned: bool) -> None:
    user, admin = Holder("alice", digest("shared")), Holder("bob", digest("shared"), admin=True)
    tokens = Tokens((admin, user) if turned else (user, admin), required=True)
    assert tokens.is_valid(user)
    assert tokens.is_valid(admin)


def test_whether_a_request_keeps_its_token_is_known_without_a_look_at_all_tokens() -> None:
    walks = 0

    class Counted(tuple[Holder, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Holder]:
            nonlocal walks
            walks += 1
            return super().__iter__()

    tokens = Tokens(Counted((ALICE, BOSS)), required=True)
    before = walks
    assert tokens.is_valid(BOSS)
    assert tokens.is_token(b"alice's token")
    assert walks == before


def test_managing_is_for_admins_as_soon_as_there_is_one() -> None:
    assert not Tokens((ALICE,), required=True).has_admin
    assert Tokens((ALICE, BOSS), required=True).has_admin
    after = Tokens((ALICE,), required=True).replacing(Tokens((ALICE, BOSS), required=True))
    assert (after.has_admin, after.only_admins_manage) == (False, True)
    assert not Tokens((ALICE,), required=True).replacing(Tokens((ALICE,), required=True)).only_admins_manage


# foreman token


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(
            command,
            arguments,
            env={"FOREMAN_TOKENS_FILE": str(tmp_path / "tokens"), "HOME": str(tmp_path), **environment},
        )

    return run


def test_a_new_token_is_printed_once_and_only_its_digest_is_kept(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("new", "alice")
    token = result.stdout.strip()
    assert (result.exit_code, len(token)) == (0, 32)
    assert "within a second" in result.stderr
    text = (tmp_path / "tokens").read_text()
    assert token not in text
    assert parse_file(text) == (Holder("alice", digest(token)),)


def test_an_admin_is_made_on_request(run: Callable[..., Result]) -> None:
    run("new", "alice")
    run("new", "boss", "--admin")
    assert [line.split()[:2] for line in run("list").stdout.splitlines()] == [
        ["NAME", "ROLE"],
        ["alice", "user"],
        ["boss", "admin"],
    ]


def test_two_tokens_are_never_the_same(run: Callable[..., Result]) -> None:
    assert len({run("new", f"n{number}").stdout for number in range(20)}) == 20


def test_a_token_is_revoked_by_its_name(run: Callable[..., Result]) -> None:
    run("new", "alice")
    run("new", "bob")
    assert run("revoke", "alice").exit_code == 0
    assert listed(run) == [("bob", "user")]
    again = run("revoke", "alice")
    assert (again.exit_code, "alice has no token" in again.stderr) == (1, True)


def listed(run: Callable[..., Result]) -> list[tuple[str, str]]:
    """Name and role of each token."""
    return [(one["name"], one["role"]) for one in json.loads(run("list", "--json").stdout)["tokens"]]


def test_a_second_token_of_a_name_replaces_the_first_without_a_gap(run: Callable[..., Result], tmp_path: Path) -> None:
    old = run("new", "alice").stdout.strip()
    again = run("new", "alice")
    new = again.stdout.strip()
    assert again.exit_code == 0
    holders = parse_file((tmp_path / "tokens").read_text())
    assert [holder.digest for holder in holders] == [digest(old), digest(new)]
    assert f"foreman token revoke alice --id {holders[0].id}" in again.stderr
    assert run("revoke", "alice", "--id", holders[0].id.upper()).exit_code == 0
    assert [holder.digest for holder in parse_file((tmp_path / "tokens").read_text())] == [digest(new)]


def test_all_tokens_of_a_name_are_revoked_where_none_is_named(run: Callable[..., Result]) -> None:
    for name in ("alice", "bob", "alice"):
        run("new", name)
    assert "2 tokens of alice are revoked" in run("revoke", "alice").stderr
    assert listed(run) == [("bob", "user")]


def test_an_id_that_is_not_there_is_answered_with_those_that_are(run: Callable[..., Result], tmp_path: Path) -> None:
    run("new", "alice")
    (holder,) = parse_file((tmp_path / "tokens").read_text())
    refused = run("revoke", "alice", "--id", "00000000")
    assert refused.exit_code == 1
    assert f"there are: {holder.id}" in refused.stderr


def test_when_a_token_was_made_is_listed(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(format_file([ALICE, evolve(BOSS, created="2026-11-28T12:00:00Z")]))
    header, alice, boss = run("list").stdout.splitlines()
    assert header.split() == ["NAME", "ROLE", "ID", "CREATED"]
    assert alice.split() == ["alice", "user", ALICE.id]
    assert boss.split() == ["boss", "admin", BOSS.id, "2026-11-28"]
    made = json.loads(run("list", "--json").stdout)["tokens"]
    assert [one["created"] for one in made] == [None, "2026-11-28T12:00:00Z"]


def test_tokens_that_are_made_at_the_same_time_are_all_kept(run: Callable[..., Result], tmp_path: Path) -> None:
    environ = {**os.environ, "FOREMAN_TOKENS_FILE": str(tmp_path / "tokens")}
    programs = [
        subprocess.Popen(
            [SCRIPTS / "foreman", "token", "new", f"n{number}"],
            stdin=subprocess.DEVNULL,
            env=environ,
            stdout=subprocess.DEVNULL,
        )
        for number in range(5)
    ]
    assert [program.wait(60) for program in programs] == [0] * 5
    assert {name for name, _ in listed(run)} == {f"n{number}" for number in range(5)}


def test_a_token_that_could_not_be_shown_is_not_kept(run: Callable[..., Result], tmp_path: Path) -> None:
    with patch("foreman.cli.commands.tokens.click.echo", side_effect=OutputLost(28, "No space left on device")):
        assert isinstance(run("new", "alice").exception, OutputLost)
    assert parse_file((tmp_path / "tokens").read_text()) == ()


@pytest.mark.parametrize("name", ["a b", "admin", "-"])
def test_a_bad_name_is_refused(run: Callable[..., Result], name: str, tmp_path: Path) -> None:
    result = run("new", "--", name)
    assert (result.exit_code, "the name" in result.stderr) == (1, True)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_read_a_new_file(run: Callable[..., Result], tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        run("new", "alice")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tokens").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "tokens"]


@pytest.mark.parametrize(("mode", "kept"), [(0o640, 0o640), (0o644, 0o644), (0o600, 0o600), (0o666, 0o664)])
def test_who_reads_the_file_reads_it_after_a_change(
    run: Callable[..., Result], tmp_path: Path, mode: int, kept: int
) -> None:
    """A daemon of another user would otherwise go on with a token that was revoked."""
    path = tmp_path / "tokens"
    for arguments in (("new", "alice"), ("new", "bob"), ("revoke", "alice")):
        if path.exists():
            path.chmod(mode)
        assert run(*arguments).exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == kept


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_the_owner_and_the_group_of_the_file_stay(run: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    run("new", "alice")
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    run("revoke", "alice")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o640)


@pytest.mark.parametrize("call", ["fchmod", "fchown"])
def test_a_file_whose_owner_cannot_be_kept_is_left_as_it_is(
    run: Callable[..., Result], tmp_path: Path, call: str
) -> None:
    path = tmp_path / "tokens"
    run("new", "alice")
    before = path.read_bytes()
    made = os.fstat
    with (
        patch(f"foreman.cli.commands.tokens.os.{call}", side_effect=PermissionError(1, "Operation not permitted")),
        patch(
            "foreman.cli.commands.tokens.os.fstat",
            lambda file: os.stat_result((*made(file)[:4], 99, 99, *made(file)[6:])),
        ),
    ):
        result = run("revoke", "alice")
    assert (result.exit_code, "belongs to another user" in result.stderr) == (1, True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["a pipe", "zeros", "large"])
@pytest.mark.parametrize("arguments", [("list",), ("new", "alice"), ("revoke", "alice")])
def test_what_is_no_file_or_has_no_end_is_refused(
    run: Callable[..., Result], tmp_path: Path, kind: str, arguments: tuple[str, ...]
) -> None:
    path = tmp_path / "tokens"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path = Path("/dev/zero")
    else:
        path.write_bytes(b"#" * (LARGEST_FILE + 1))
    result = run(*arguments, FOREMAN_TOKENS_FILE=str(path))
    assert (result.exit_code, str(path) in result.stderr) == (1, True)


def test_quotation_marks_around_the_variable_do_not_count(run: Callable[..., Result], tmp_path: Path) -> None:
    assert run("new", "alice", FOREMAN_TOKENS_FILE=f' "{tmp_path}/quoted" ').exit_code == 0
    assert (tmp_path / "quoted").exists()
    odd = run("list", FOREMAN_TOKENS_FILE='"/x')
    assert (odd.exit_code, "FOREMAN_TOKENS_FILE" in odd.stderr, "quotation mark" in odd.stderr) == (2, True, True)
    assert run("list", FOREMAN_TOKENS_FILE='""').exit_code == 2


def test_the_last_admin_is_revoked_by_force_only(run: Callable[..., Result]) -> None:
    run("new", "bob")
    run("new", "boss", "--admin")
    run("new", "boss", "--admin")
    first = json.loads(run("list", "--json").stdout)["tokens"][1]["id"]
    assert run("revoke", "boss", "--id", first).exit_code == 0
    refused = run("revoke", "boss")
    assert (refused.exit_code, "the last admin" in refused.stderr) == (1, True)
    assert listed(run) == [("bob", "user"), ("boss", "admin")]
    forced = run("revoke", "boss", "--force")
    assert (forced.exit_code, "The file has no admin any more" in forced.stderr) == (0, True)
    assert listed(run) == [("bob", "user")]


def test_the_file_behind_a_link_is_written_not_the_link(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tokens").symlink_to(tmp_path / "elsewhere" / "real")
    run("new", "alice")
    assert (tmp_path / "tokens").is_symlink()
    assert parse_file((tmp_path / "elsewhere" / "real").read_text())[0].name == "alice"


def test_a_home_directory_may_be_written_as_a_tilde(run: Callable[..., Result], tmp_path: Path) -> None:
    run("new", "alice", FOREMAN_TOKENS_FILE="~/mine")
    assert (tmp_path / "mine").exists()


def test_a_file_that_cannot_be_read_is_left_alone(run: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    for content in (b"garbage\n", b"\xff\xfe"):
        path.write_bytes(content)
        for arguments in (("new", "alice"), ("list",), ("revoke", "alice")):
            result = run(*arguments)
            assert result.exit_code == 1
            assert str(path) in result.stderr
        assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("new", "alice", FOREMAN_TOKENS_FILE=str(tmp_path / "nowhere" / "tokens"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert result.stdout == ""


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(run: Callable[..., Result], tmp_path: Path) -> None:
    run("new", "alice")
    before = (tmp_path / "tokens").read_bytes()
    with patch("os.fsync", side_effect=OSError(28, "No space left on device")):
        result = run("new", "bob")
    assert "No space left" in result.stderr
    assert (tmp_path / "tokens").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "tokens"]


def test_the_file_has_to_be_named(run: Callable[..., Result]) -> None:
    result = run("list", FOREMAN_TOKENS_FILE="")
    assert result.exit_code == 2
    assert "FOREMAN_TOKENS_FILE" in result.stderr


# a running foreman


def status_of(step: Any, token: str) -> int:
    return int(step.ask_once(request("GET", "/api/version", headers=[("X-Api-Key", token)])).status)


def test_a_running_foreman_takes_new_tokens_over_and_forgets_revoked_ones(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    alice = run("new", "alice").stdout.strip()
    with in_memory_foreman(tokens_file=str(tmp_path / "tokens")) as step:
        bob = run("new", "bob").stdout.strip()
        assert (status_of(step, alice), status_of(step, bob)) == (200, 401)
        step.service.reload()
        assert (status_of(step, alice), status_of(step, bob)) == (200, 200)
        run("revoke", "alice")
        step.service.reload()
        assert (status_of(step, alice), status_of(step, bob)) == (401, 200)


def test_without_its_last_admin_a_running_foreman_lets_nobody_manage(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    bob, boss = run("new", "bob").stdout.strip(), run("new", "boss", "--admin").stdout.strip()

    def deleted(step: Any, token: str) -> Any:
        return step.ask_once(request("DELETE", "/api/delete", b'{"model":"m"}', headers=[("X-Api-Key", token)]))

    with in_memory_foreman(tokens_file=str(tmp_path / "tokens")) as step:
        assert deleted(step, bob).status == 403
        for _ in range(2):
            run("revoke", "boss", "--force")
            step.service.reload()
            answer = deleted(step, bob)
            assert (answer.status, b"the last one was revoked" in answer.body) == (403, True)
            assert (deleted(step, boss).status, status_of(step, bob)) == (401, 200)
        new = run("new", "chief", "--admin").stdout.strip()
        step.service.reload()
        assert (deleted(step, bob).status, deleted(step, new).status) == (403, 200)
    with in_memory_foreman(tokens_file=str(tmp_path / "tokens")) as step:
        run("revoke", "chief", "--force")
        step.service.reload()
        assert deleted(step, bob).status == 403


def test_a_running_foreman_notices_by_itself(run: Callable[..., Result], tmp_path: Path) -> None:
    alice = run("new", "alice").stdout.strip()
    with in_memory_foreman(tokens_file=str(tmp_path / "tokens")) as step:
        step.service._token_file.start()
        bob = run("new", "bob").stdout.strip()
        run("revoke", "alice")
        step.wait(2)
        assert (status_of(step, alice), status_of(step, bob)) == (401, 200)
        step.service._token_file.stop()


@pytest.mark.parametrize("spoil", ["garbage", "gone", "bytes"])
def test_a_running_foreman_keeps_its_tokens_when_the_file_is_broken(
    run: Callable[..., Result], tmp_path: Path, spoil: str
) -> None:
    alice = run("new", "alice").stdout.strip()
    path = tmp_path / "tokens"
    with in_memory_foreman(tokens_file=str(path)) as step, capturedLogs() as events:
        if spoil == "gone":
            path.unlink()
        else:
            path.write_bytes(b"garbage" if spoil == "garbage" else b"\xff")
        step.service.reload()
        assert (status_of(step, alice), status_of(step, "x")) == (200, 401)
    assert any("the tokens stay as they were" in (event.get("log_format") or "") for event in events)


def test_an_empty_file_lets_nobody_in(run: Callable[..., Result], tmp_path: Path) -> None:
    run("new", "alice")
    run("revoke", "alice")
    with in_memory_foreman(tokens_file=str(tmp_path / "tokens")) as step:
        assert status_of(step, "") == 401
        assert step.ask_once(request("GET", "/api/version")).status == 401
