"""How many connections there may be, and which of them makes room."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from foreman.web.server.arrival_rate import ArrivalRate
from foreman.web.server.connections import (
    CROWDED_SILENCE,
    HEADS_IN_ALL,
    MAX_LINGERING,
    ORDINARY,
    SLOW,
    UNCOUNTED,
    Connections,
    Stage,
    address_of,
)
from support.in_memory_foreman import Caller, Doorstep, doorstep
from support.raw_http import request

GET = request("GET", "/api/version")
HEALTH = request("GET", "/healthz")
CHAT = request("POST", "/api/chat", b'{"model":"m"}')
HALF_A_HEAD = b"GET /api/version HTTP/1.1\r\nHost: local"
HALF_A_BODY = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"


@define(eq=False)
class Pretended:
    """A connection as the others see it."""

    address: str
    arrival: ArrivalRate
    stage: Stage = Stage.QUIET
    held: int = 0
    quiet_since: float = 0.0
    told: list[str] = field(factory=list)

    def abort(self) -> None:
        self.told.append("abort")

    def make_way(self, status: int, why: str) -> None:
        self.told.append(f"{status}")


@define(eq=False)
class Crowded:
    """Places for ``most`` pretended connections."""

    most: int
    clock: Clock = field(factory=Clock)
    connections: Connections = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connections = Connections(self.clock, self.most)

    def come(self, count: int = 1, address: str = "a", stage: Stage = Stage.QUIET) -> list[Any]:
        doors: list[Any] = [Pretended(address, ArrivalRate(self.clock.seconds(), None)) for _ in range(count)]
        for door in doors:
            self.connections.admit(door)
            self.connections.move(door, stage)
        return doors


def told(doors: list[Any]) -> list[list[str]]:
    return [door.told for door in doors]


def test_the_oldest_connection_without_a_request_makes_room() -> None:
    crowd = Crowded(4)
    doors = crowd.come(3)
    crowd.clock.advance(2)
    crowd.connections.move(doors[0], Stage.BUSY)
    crowd.connections.move(doors[0], Stage.QUIET)  # a request later it is the youngest
    crowd.come(2)
    assert told(doors) == [[], ["503"], []]
    crowd.come(2)
    assert told(doors) == [["503"], ["503"], ["503"]]


def test_who_has_just_come_keeps_its_place_until_its_request_can_have_been_read() -> None:
    crowd = Crowded(8)
    bodies = crowd.come(7, stage=Stage.BODY)
    crowd.clock.advance(2)
    newcomers = crowd.come(4)
    assert told(newcomers) == [[]] * 4
    assert told(bodies).count(["503"]) == 4
    crowd.clock.advance(2)
    crowd.come()
    assert told(newcomers) == [["503"], [], [], []]


def test_who_is_answered_keeps_its_place_and_one_too_many_is_on_standby() -> None:
    crowd = Crowded(3)
    busy = crowd.come(3, stage=Stage.BUSY)
    (newcomer,) = crowd.come()
    assert told(busy) == [[], [], []]
    assert (newcomer.stage, newcomer.told) == (Stage.STANDBY, [])
    crowd.connections.move(newcomer, Stage.BUSY)
    assert newcomer.stage is Stage.STANDBY
    crowd.connections.left(busy[0])
    (next_,) = crowd.come()
    assert next_.stage is Stage.QUIET


def test_those_on_standby_are_bounded() -> None:
    crowd = Crowded(16)
    crowd.come(16, stage=Stage.BUSY)
    standby = crowd.come(40)
    beyond = 40 - crowd.connections.on_standby
    assert [door.told for door in standby] == [["abort"]] * beyond + [[]] * crowd.connections.on_standby
    for door in standby:
        crowd.connections.left(door)
    assert len(crowd.connections.open) == 16


def test_first_go_those_that_linger_then_the_quiet_then_slow_bodies_then_slow_readers() -> None:
    crowd = Crowded(32)
    crowd.come(20, stage=Stage.BUSY)
    closing, body = crowd.come(stage=Stage.CLOSING)[0], crowd.come(stage=Stage.BODY)[0]
    quiet, lingering = crowd.come()[0], crowd.come(stage=Stage.LINGERING)[0]
    crowd.come(4, "b", Stage.BUSY)
    crowd.clock.advance(2)
    for victim in (lingering, quiet, body, closing):
        assert not victim.told
        crowd.come(4, "b", Stage.BUSY) if victim is lingering else None
        crowd.come(1, "b", Stage.BUSY)
        assert victim.told == ["abort" if victim in (lingering, closing) else "503"]
    assert crowd.come(1, "b")[0].stage is Stage.STANDBY


def test_a_body_that_comes_fast_or_has_just_begun_keeps_its_place() -> None:
    crowd = Crowded(2)
    fast, young = crowd.come(2, stage=Stage.BODY)
    crowd.clock.advance(2)
    fast.arrival.add(3 * SLOW)
    young.arrival = ArrivalRate(crowd.clock.seconds(), None)
    assert crowd.come()[0].stage is Stage.STANDBY
    assert told([fast, young]) == [[], []]


def test_one_address_leaves_room_for_others() -> None:
    crowd = Crowded(80)
    many = crowd.come(100, "many", Stage.BUSY)
    assert [door.stage for door in many].count(Stage.BUSY) == 70
    assert [door.stage for door in crowd.come(10, "other", Stage.BUSY)] == [Stage.BUSY] * 10


def test_the_address_with_the_most_connections_makes_room_for_the_others() -> None:
    crowd = Crowded(80)
    few = crowd.come(10, "few")
    many = crowd.come(70, "many")
    crowd.come(5, "new")
    assert told(few) == [[]] * 10
    assert told(many) == [["503"]] * 5 + [[]] * 65


def test_the_address_with_the_most_connections_is_always_the_one_with_the_most_now() -> None:
    crowd = Crowded(95)
    most, many = crowd.come(55, "most"), crowd.come(40, "many")
    crowd.clock.advance(2)
    for number in range(40):
        crowd.come(1, f"new {number}", Stage.BUSY)
    left = [sum(not one.told for one in doors) for doors in (most, many)]
    assert sorted(left) == [27, 28]


@given(st.lists(st.tuples(st.sampled_from(["come", "left", *Stage]), st.integers(0, 30), st.sampled_from("abcd"))))
def test_addresses_are_counted_right_whatever_their_connections_do(steps: list[tuple[Any, int, str]]) -> None:
    crowd = Crowded(16)
    doors: list[Any] = []
    for what, number, address in steps:
        if what == "come" or not doors:
            doors += crowd.come(1, address)
        elif what == "left":
            crowd.connections.left(doors.pop(number % len(doors)))
        elif what not in UNCOUNTED:
            crowd.connections.move(doors[number % len(doors)], what)
        crowd.clock.advance(0.2)
        counts = Counter(door.address for door in doors if door.stage not in UNCOUNTED)
        quiet = {door.address for door in doors if door.stage is Stage.QUIET}
        found = {count: set(alike) for count, alike in crowd.connections._by_count.items()}
        assert found == {
            count: {one for one in quiet if counts[one] == count} for count in {counts[one] for one in quiet}
        }


def test_a_slow_body_that_is_found_for_one_address_may_make_room_for_another() -> None:
    crowd = Crowded(16)
    others, mine = crowd.come(2, "other", Stage.BODY), crowd.come(14, "mine", Stage.BODY)
    crowd.clock.advance(2)
    crowd.come(1, "mine", Stage.BUSY)
    assert (told(others), told(mine)) == ([[], []], [["503"]] + [[]] * 13)
    crowd.come(1, "third", Stage.BUSY)
    assert (told(others), told(mine)) == ([["503"], []], [["503"]] + [[]] * 13)


def test_a_connection_that_is_gone_is_forgotten() -> None:
    crowd = Crowded(16)
    doors = crowd.come(8, "a", Stage.BODY) + crowd.come(8, "b", Stage.BODY)
    crowd.clock.advance(2)
    crowd.come(1, "c", Stage.BUSY)
    assert doors[-1] in crowd.connections._slow
    for door in doors:
        crowd.connections.left(door)
    assert not crowd.connections._slow


def test_each_connection_that_was_refused_is_counted_once() -> None:
    crowd = Crowded(16)
    crowd.come(8, "a", Stage.BUSY)
    crowd.come(8, "b", Stage.BUSY)
    with capturedLogs() as events:
        crowd.come(40, "c")
        crowd.clock.advance(CROWDED_SILENCE)
        crowd.come(1)
    assert sum(event["sent_away"] for event in events) == 41


def test_those_that_linger_are_bounded() -> None:
    crowd = Crowded(10_000)
    doors = crowd.come(MAX_LINGERING + 3, stage=Stage.LINGERING)
    assert told(doors) == [["abort"]] * 3 + [[]] * MAX_LINGERING


def test_heads_in_all_have_a_bound_and_ordinary_ones_are_not_touched() -> None:
    crowd = Crowded(10_000)
    size = 60_000
    doors = crowd.come(HEADS_IN_ALL // size + 2)
    for door in doors:
        crowd.connections.count_held(door, size)
    assert told(doors) == [[]] * (len(doors) - 2) + [["503"]] * 2
    (ordinary,) = crowd.come()
    crowd.connections.count_held(ordinary, ORDINARY)
    assert ordinary.told == []
    for door in [*doors, ordinary]:
        crowd.connections.left(door)
    (next_,) = crowd.come()
    crowd.connections.count_held(next_, size)
    assert next_.told == []


def test_finding_room_for_thousands_costs_a_few_steps_each() -> None:
    crowd = Crowded(2000)
    crowd.come(2000, stage=Stage.BODY)
    crowd.clock.advance(2)
    with patch.object(Connections, "slow_bodies", autospec=True, side_effect=Connections.slow_bodies) as looks:
        crowd.come(1000, stage=Stage.BUSY)
    assert looks.call_count == 1


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("", ""),
    ],
)
def test_whose_connections_count_together(host: str, address: str) -> None:
    assert address_of(host) == address


# the same at the door


def statuses(caller: Caller) -> list[int]:
    return [answer.status for answer in caller.answers()]


def full(step: Doorstep, most: int) -> list[Caller]:
    step.target.holds = True
    busy = [step.call() for _ in range(most)]
    for caller in busy:
        caller.send(CHAT)
    return busy


def test_thousands_that_send_nothing_useful_do_not_keep_an_honest_client_out() -> None:
    with doorstep(max_connections="20") as step:
        for hostile in (b"", HALF_A_HEAD, HALF_A_BODY, b"nonsense\r\n\r\n"):
            callers = [step.call() for _ in range(60)]
            for caller in callers:
                caller.send(hostile)
            step.wait(2)
            honest = step.call()
            honest.send(CHAT)
            step.turn(3)
            assert statuses(honest) == [200]
            assert sum(not caller.line.lost for caller in callers) <= 20 + step.service.doors.connections.on_standby


def test_health_is_told_where_all_places_are_taken() -> None:
    with doorstep(max_connections="2") as step:
        full(step, 2)
        probe, other = step.call(), step.call()
        probe.send(HEALTH)
        other.send(GET)
        assert (statuses(probe), statuses(other)) == ([200], [503])
        assert probe.answers()[0].header("Connection") == "close"
        step.wait(5)
        assert probe.line.lost
        assert other.line.lost


@pytest.mark.parametrize(
    "sent",
    [
        request("POST", "/"),
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_one_too_many_is_answered_only_where_it_costs_nothing(sent: bytes) -> None:
    with doorstep(max_connections="2") as step:
        full(step, 2)
        asked = len(step.target.asked)
        caller = step.call()
        caller.send(sent)
        assert statuses(caller) == [503]
        for _ in range(60):
            caller.send(b"x")
            step.wait(1)
        assert caller.line.lost
        assert len(step.target.asked) == asked


def test_one_too_many_that_says_nothing_is_gone_soon() -> None:
    with doorstep(max_connections="2") as step:
        full(step, 2)
        silent, half = step.call(), step.call()
        half.send(HALF_A_HEAD)
        step.wait(5)
        assert (statuses(silent), statuses(half)) == ([], [503])
        assert silent.line.lost
        assert half.line.lost


def test_who_has_begun_a_request_is_told_why_it_goes() -> None:
    with doorstep(max_connections="2") as step:
        idle, half = step.call(), step.call()
        half.send(HALF_A_HEAD)
        newcomers = [step.call() for _ in range(2)]
        step.turn(2)
        assert (statuses(idle), statuses(half)) == ([], [503])
        assert idle.line.ended == half.line.ended == "end"
        for caller in newcomers:
            caller.send(GET)
            assert statuses(caller) == [200]


def test_who_does_not_take_the_reason_is_cut_off_soon() -> None:
    with doorstep(max_connections="1") as step:
        half = step.call()
        half.line.takes = False
        half.send(HALF_A_HEAD)
        step.call()
        step.wait(3)
        assert half.line.ended == "reset"


def test_what_is_sent_ahead_is_counted_and_given_back() -> None:
    with doorstep() as step:
        step.target.holds = True
        caller = step.call()
        caller.send(CHAT + b"x" * 10_000)
        connections = step.service.doors.connections
        assert connections._heads > 10_000
        caller.leave()
        assert connections._heads == 0


def long_get(connection: str = "keep-alive") -> bytes:
    return request("GET", "/api/version", headers=[("X-Long", "x" * 60_000), ("Connection", connection)])


def test_a_head_is_no_longer_counted_when_its_request_is_answered() -> None:
    with doorstep() as step:
        connections = step.service.doors.connections
        caller = step.call()
        for answered in range(1, 4):
            caller.send(long_get())
            assert (statuses(caller), connections._heads) == ([200] * answered, 0)
        slow = step.call(takes=False)
        slow.send(long_get("close"))
        assert not slow.closed
        assert connections._heads == 0


def test_idle_connections_whose_heads_were_long_leave_room_for_others() -> None:
    with doorstep() as step:
        for _ in range(HEADS_IN_ALL // 60_000 + 3):
            caller = step.call()
            caller.send(long_get())
            assert statuses(caller) == [200]
            assert not caller.closed


def test_files_that_wait_for_the_target_are_counted() -> None:
    with doorstep() as step:
        step.target.hesitates = True
        caller = step.call()
        caller.send(
            b"POST /api/blobs/sha256:00 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n" + b"x" * 50_000
        )
        connections = step.service.doors.connections
        assert connections._heads > 50_000
        caller.leave(reset=True)
        assert connections._heads == 0
