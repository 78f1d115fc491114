"""The file of tokens is looked at each second while foreman runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from foreman.auth.tokens import Holder, Tokens, digest, format_file
from foreman.config.token_file import TokenFile
from support.live_foreman import settings

ALICE, BOB = Holder("alice", digest("alices-own-token")), Holder("bob", digest("bobs-own-token"))


class Watched:
    """A file that is looked at, and what was taken over from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(format_file([ALICE]))
        self.clock = Clock()
        self.taken: list[Tokens] = []
        self.file = TokenFile(self.clock, settings(1, tokens_file=str(path)), self.taken.append)
        self.file.start()

    def names(self) -> list[list[str]]:
        return [[holder.name for holder in tokens.holders] for tokens in self.taken]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path / "tokens")
    yield watched
    watched.file.stop()
    assert not watched.clock.getDelayedCalls()


def replaced(path: Path, text: str) -> None:
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def written(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize(("write", "seconds"), [(replaced, 1), (written, 2)])
def test_a_change_counts_within_a_second_or_two(
    watched: Watched, write: Callable[[Path, str], None], seconds: int
) -> None:
    watched.clock.pump([1.0] * 5)
    assert watched.taken == []
    write(watched.path, format_file([ALICE, BOB]))
    watched.clock.pump([1.0] * seconds)
    assert watched.names() == [["alice", "bob"]]
    write(watched.path, format_file([BOB]))
    watched.clock.pump([1.0] * seconds)
    assert watched.names() == [["alice", "bob"], ["bob"]]
    watched.clock.pump([1.0] * 5)
    assert len(watched.taken) == 2


@pytest.mark.parametrize("anew", [False, True])
def test_a_file_that_is_being_written_is_not_taken_for_an_empty_one(watched: Watched, anew: bool) -> None:
    if anew:
        watched.path.rename(watched.path.with_name("before"))  # its inode stays in use
    watched.path.write_text("")
    watched.clock.advance(1)
    watched.path.write_text(format_file([ALICE, BOB]))
    watched.clock.pump([1.0] * 3)
    assert watched.names() == [["alice", "bob"]]
    watched.path.write_text("")
    watched.clock.pump([1.0] * 3)
    assert watched.names() == [["alice", "bob"], []]


def test_a_change_that_keeps_size_and_time_is_seen(watched: Watched) -> None:
    before = watched.path.stat()
    replaced(watched.path, watched.path.read_text().replace("alice", "carol"))
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watched.path.stat().st_size == before.st_size
    watched.clock.advance(1)
    assert watched.names() == [["carol"]]


def test_a_link_that_points_elsewhere_now_is_seen(tmp_path: Path) -> None:
    for name, holder in (("one", ALICE), ("two", BOB)):
        (tmp_path / name).write_text(format_file([holder]))
    (tmp_path / "tokens").symlink_to("one")
    clock = Clock()
    taken: list[Tokens] = []
    file = TokenFile(clock, settings(1, tokens_file=str(tmp_path / "tokens")), taken.append)
    file.start()
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "tokens")
    clock.advance(1)
    assert [holder.name for holder in taken[0].holders] == ["bob"]
    file.stop()


@pytest.mark.parametrize("text", ["garbage", "alice", "\0"])
def test_a_bad_file_leaves_the_tokens_and_is_said_once(watched: Watched, text: str) -> None:
    with capturedLogs() as events:
        watched.path.write_text(text)
        watched.clock.pump([1.0] * 10)
        assert watched.taken == []
        assert [formatEvent(event) for event in events] == [
            (
                "FOREMAN_TOKENS_FILE: has an invalid line 1: a line must have a name, a SHA-256 in hex, a role (user or admin) "
                "and optionally a time, such as 2026-11-28T12:00:00Z; the tokens stay as they were"
            )
        ]
        watched.path.write_text(format_file([BOB]))
        watched.clock.pump([1.0] * 10)
    assert watched.names() == [["bob"]]


def test_a_file_that_is_gone_leaves_the_tokens_is_said_once_and_may_come_back(watched: Watched) -> None:
    text = watched.path.read_text()
    with capturedLogs() as events:
        watched.path.unlink()
        watched.clock.pump([1.0] * 10)
        assert (watched.taken, len(events)) == ([], 1)
        watched.path.write_text(text)
        watched.clock.pump([1.0] * 2)
    assert watched.names() == [["alice"]]


def test_a_file_that_cannot_be_opened_for_a_moment_is_tried_again(watched: Watched) -> None:
    replaced(watched.path, format_file([BOB]))
    with capturedLogs() as events, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(24, "Too many open files")))
        watched.clock.pump([1.0] * 3)
    assert (watched.taken, len(events)) == ([], 1)
    watched.clock.advance(1)
    assert watched.names() == [["bob"]]


def test_a_look_that_fails_is_not_the_last(watched: Watched, logged_failures: Any) -> None:
    failing = [RuntimeError("surprise")]

    def take(tokens: Tokens) -> None:
        if failing:
            raise failing.pop()
        watched.taken.append(tokens)

    watched.file._on_tokens = take
    replaced(watched.path, format_file([BOB]))
    watched.clock.advance(1)
    assert len(logged_failures.take(RuntimeError)) == 1
    replaced(watched.path, format_file([ALICE, BOB]))
    watched.clock.advance(1)
    assert watched.names() == [["alice", "bob"]]


def test_reading_at_once_is_said_again(watched: Watched) -> None:
    watched.path.write_text("garbage")
    with capturedLogs() as events:
        watched.clock.pump([1.0] * 5)
        watched.file.read()
    assert len(events) == 2
    watched.path.write_text(format_file([ALICE]))
    watched.file.read()
    watched.clock.pump([1.0] * 3)
    assert watched.names() == [["alice"]]


def test_without_a_file_nothing_is_looked_at() -> None:
    clock = Clock()
    file = TokenFile(clock, settings(1), lambda _: None)
    file.start()
    file.read()
    assert clock.getDelayedCalls() == []
    file.stop()
