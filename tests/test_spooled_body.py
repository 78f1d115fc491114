"""The bodies of requests while they arrive and wait, and the room that they share."""

from __future__ import annotations

import errno
from io import BytesIO
from typing import Any
from unittest.mock import patch

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from foreman.web.server.body import MAX_IN_MEMORY, MAX_MEMORY, ArrivingBody, BodyRefused, BodySpool, SpooledBody
from support.in_memory_foreman import in_memory_foreman
from support.raw_http import request


def read(body: SpooledBody) -> bytes:
    value = body.value()
    return value if isinstance(value, bytes) else value.read()


@given(st.lists(st.integers(0, MAX_IN_MEMORY // 2), max_size=6))
def test_a_body_is_given_back_as_it_came(sizes: list[int]) -> None:
    bodies = BodySpool(10 * MAX_IN_MEMORY, 10 * MAX_IN_MEMORY)
    body = SpooledBody(5 * MAX_IN_MEMORY, bodies)
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    for piece in sent:
        body.add(piece)
    whole = b"".join(sent)
    assert (body.length, bodies.used) == (len(whole), len(whole))
    assert read(body) == read(body) == whole
    assert isinstance(body.value(), bytes) == (len(whole) <= MAX_IN_MEMORY)
    assert (bodies.in_memory, bodies.in_files) == ((len(whole), 0) if len(whole) <= MAX_IN_MEMORY else (0, 1))
    body.close()
    body.close()
    assert (bodies.used, bodies.in_memory, bodies.in_files) == (0, 0, 0)


def test_what_is_announced_takes_no_room_until_it_has_come() -> None:
    bodies = BodySpool(1000, 1000)
    body = SpooledBody(1000, bodies)
    body.expect(600)
    assert bodies.used == 0
    body.add(b"x" * 600)
    assert bodies.used == 600
    body.close()
    assert bodies.used == 0


def test_too_much_for_one_is_413_and_takes_no_room() -> None:
    bodies = BodySpool(1000, 1000)
    body = SpooledBody(100, bodies)
    for do in (lambda: body.expect(101), lambda: body.add(b"x" * 101)):
        with pytest.raises(BodyRefused, match="FOREMAN_MAX_BODY") as refused:
            do()
        assert refused.value.status == 413
    assert bodies.used == 0
    body.close()
    assert bodies.used == 0


def test_too_much_for_all_is_503_and_takes_no_room() -> None:
    bodies = BodySpool(150, 150)
    first, second = SpooledBody(100, bodies, "me"), SpooledBody(100, bodies, "you")
    first.add(b"x" * 100)
    second.add(b"x" * 50)
    for do in (lambda: second.expect(51), lambda: second.add(b"x")):
        with pytest.raises(BodyRefused, match="FOREMAN_BODY_BUDGET") as refused:
            do()
        assert refused.value.status == 503
    second.close()
    assert bodies.used == 100
    first.close()
    assert bodies.used == 0


def test_one_caller_has_a_share_and_leaves_the_rest_to_others() -> None:
    bodies = BodySpool(200, 100)
    mine, more, others = SpooledBody(100, bodies, "me"), SpooledBody(100, bodies, "me"), SpooledBody(100, bodies, "you")
    mine.add(b"x" * 90)
    for do in (lambda: more.expect(11), lambda: more.add(b"x" * 11)):
        with pytest.raises(BodyRefused, match="of this caller"):
            do()
    others.add(b"x" * 100)
    mine.close()
    more.add(b"x" * 100)
    assert bodies.used == 200


@define(eq=False)
class Slow:
    """A request whose body comes slowly."""

    body: SpooledBody
    refused: list[int] = field(factory=list)

    def arriving(self) -> ArrivingBody:
        return ArrivingBody(self.body, self.refuse)

    def refuse(self, status: int, message: str) -> None:
        self.refused.append(status)
        self.body.close()


def some_slow(limit: int, share: int, *callers: str) -> tuple[BodySpool, list[Slow]]:
    """Room with a slow body of 100 bytes of each of ``callers``, the slowest first."""
    slow: list[Slow] = []
    bodies = BodySpool(limit, share, slow_bodies=lambda: [one.arriving() for one in slow if not one.refused])
    for caller in callers:
        slow.append(Slow(SpooledBody(limit, bodies, caller)))
        slow[-1].body.add(b"x" * 100)
    return bodies, slow


def test_where_room_is_needed_the_slowest_bodies_go_and_no_more_of_them_than_needed() -> None:
    bodies, slow = some_slow(1000, 1000, "a", "b", "c")
    SpooledBody(1000, bodies, "d").add(b"x" * 700)
    newcomer = SpooledBody(1000, bodies, "e")
    newcomer.expect(200)
    newcomer.add(b"x" * 150)
    assert [one.refused for one in slow] == [[408], [408], []]
    with pytest.raises(BodyRefused):
        newcomer.expect(500)
    assert not slow[2].refused


def test_whoever_has_too_much_loses_slow_bodies_of_its_own_alone() -> None:
    bodies, slow = some_slow(10_000, 1000, "me", "you", "me")
    SpooledBody(1000, bodies, "me").add(b"x" * 750)
    SpooledBody(1000, bodies, "me").add(b"x" * 200)
    assert [one.refused for one in slow] == [[408], [], [408]]
    assert bodies.used == 1050


def test_a_slow_body_does_not_make_room_for_itself() -> None:
    bodies, slow = some_slow(200, 200, "me")
    SpooledBody(200, bodies, "you").add(b"x" * 100)
    with pytest.raises(BodyRefused):
        slow[0].body.add(b"x")
    assert slow[0].refused == []
    assert bodies.used == 200


def test_a_slow_body_that_needs_room_goes_itself() -> None:
    bodies, slow = some_slow(200, 200, "me")
    newcomer = SpooledBody(200, bodies, "you", lambda: True)
    newcomer.add(b"x" * 100)
    with pytest.raises(BodyRefused, match="slowly"):
        newcomer.add(b"x")
    assert slow[0].refused == []


def test_memory_has_a_bound_of_its_own_and_gives_way_to_files() -> None:
    bodies = BodySpool(2 * MAX_MEMORY, 2 * MAX_MEMORY, files=3)
    held = [SpooledBody(MAX_IN_MEMORY, bodies) for _ in range(200)]

    def fill() -> None:
        for body in held:
            body.add(bytes(MAX_IN_MEMORY))

    with pytest.raises(BodyRefused) as refused:
        fill()
    assert refused.value.status == 503
    assert MAX_MEMORY - MAX_IN_MEMORY <= bodies.in_memory <= MAX_MEMORY
    assert bodies.in_files == 3
    for body in held:
        body.close()
    assert (bodies.used, bodies.in_memory, bodies.in_files) == (0, 0, 0)


def test_where_memory_is_full_a_body_of_any_size_goes_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreman.web.server.body.MAX_MEMORY", 1000)
    bodies = BodySpool(10_000, 10_000, files=2)
    held = [SpooledBody(1000, bodies) for _ in range(5)]
    for body in held[:2]:
        body.add(b"x" * 500)
    for body in held[2:4]:
        body.add(b"ab")
        body.add(b"c")
        assert (body.in_file, read(body)) == (True, b"abc")
    with pytest.raises(BodyRefused, match="memory") as refused:
        held[4].add(b"x")
    assert (refused.value.status, "FOREMAN_BODY_BUDGET" in str(refused.value)) == (503, False)
    held[0].close()
    held[4].add(b"x")
    assert not held[4].in_file
    for body in held:
        body.close()
    assert (bodies.used, bodies.in_memory, bodies.in_files) == (0, 0, 0)


def test_a_body_that_is_closed_takes_nothing_more() -> None:
    bodies = BodySpool(100, 100)
    body = SpooledBody(100, bodies)
    body.close()
    body.add(b"x")
    assert bodies.used == 0


class FullDisk(BytesIO):
    """A file that has room for ``room`` bytes, and complains once more when it is closed."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def write(self, data: Any) -> int:
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = min(self._room, len(data))
        self._room -= count
        return count

    def close(self) -> None:
        super().close()
        if self._room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("room", [None, 0, 1000, MAX_IN_MEMORY - 1, MAX_IN_MEMORY], ids=str)
def test_a_full_disk_costs_one_request(room: int | None) -> None:
    def open_file(**_: Any) -> FullDisk:
        if room is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return FullDisk(room)

    with in_memory_foreman() as step:
        with patch("tempfile.TemporaryFile", open_file):
            caller = step.call()
            caller.send(request("POST", "/v1/messages", b" " * (MAX_IN_MEMORY + 1)))
            step.turn(2)
            (answer,) = caller.answers()
        assert (answer.status, answer.header("Connection")) == (503, "close")
        assert b"No space left" in answer.body
        assert step.target.request_connections == []
        bodies = step.service.connections.bodies
        assert (bodies.used, bodies.in_memory, bodies.in_files) == (0, 0, 0)
        step.wait(10)
        assert caller.transport.ended == "end"
        assert step.ask_once(request("POST", "/api/chat", b'{"model":"m"}')).status == 200
