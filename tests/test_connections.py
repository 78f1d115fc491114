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

from foreman.web.server.body_rate import BodyRate
from foreman.web.server.connections import (
    FAIR_HELD,
    LOG_INTERVAL,
    MAX_HELD,
    MAX_LINGERING,
    QUIET,
    SLOW_RATE,
    Connections,
    address_of,
)
from foreman.web.server.phases import Phase, Place
from support.in_memory_foreman import InMemoryClient, InMemoryForeman, in_memory_foreman
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
    arrival: BodyRate
    phase: Phase = Phase.NEW
    place: Place = Place.COUNTED
    held: int = 0
    quiet_since: float = 0.0
    told: list[str] = field(factory=list)

    def abort(self) -> None:
        self.told.append("abort")

    def make_room(self, status: int, why: str) -> None:
        self.told.append(f"{status}")


@define(eq=False)
class Crowded:
    """Places for ``most`` pretended connections."""

    most: int
    clock: Clock = field(factory=Clock)
    connections: Connections[Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connections = Connections(self.clock, self.most)

    def come(self, count: int = 1, address: str = "a", phase: Phase = Phase.IDLE) -> list[Any]:
        connections: list[Any] = [Pretended(address, BodyRate(self.clock.seconds(), None)) for _ in range(count)]
        for connection in connections:
            self.connections.admit(connection)
            self.connections.move(connection, phase)
        return connections


def told(connections: list[Any]) -> list[list[str]]:
    return [connection.told for connection in connections]


def test_the_oldest_connection_without_a_request_makes_room() -> None:
    tracked = Crowded(4)
    connections = tracked.come(3)
    tracked.clock.advance(2)
    tracked.connections.move(connections[0], Phase.RESPONDING)
    tracked.connections.move(connections[0], Phase.IDLE)  # a request later it is the youngest
    tracked.come(2)
    assert told(connections) == [[], ["503"], []]
    tracked.come(2)
    assert told(connections) == [["503"], ["503"], ["503"]]


def test_who_has_just_come_keeps_its_place_until_its_request_can_have_been_read() -> None:
    tracked = Crowded(8)
    bodies = tracked.come(7, phase=Phase.BODY)
    tracked.clock.advance(2)
    newcomers = tracked.come(4)
    assert told(newcomers) == [[]] * 4
    assert told(bodies).count(["503"]) == 4
    tracked.clock.advance(2)
    tracked.come()
    assert told(newcomers) == [["503"], [], [], []]


def test_who_is_answered_keeps_its_place_and_one_too_many_is_on_standby() -> None:
    tracked = Crowded(3)
    busy = tracked.come(3, phase=Phase.RESPONDING)
    (newcomer,) = tracked.come()
    assert told(busy) == [[], [], []]
    assert (newcomer.place, newcomer.told) == (Place.STANDBY, [])
    tracked.connections.move(newcomer, Phase.RESPONDING)
    assert newcomer.place is Place.STANDBY
    tracked.connections.remove(busy[0])
    (next_,) = tracked.come()
    assert (next_.place, next_.phase) == (Place.COUNTED, Phase.IDLE)


def test_those_on_standby_are_bounded() -> None:
    tracked = Crowded(16)
    tracked.come(16, phase=Phase.RESPONDING)
    standby = tracked.come(40)
    beyond = 40 - tracked.connections.on_standby
    assert [connection.told for connection in standby] == [["abort"]] * beyond + [[]] * tracked.connections.on_standby
    for connection in standby:
        tracked.connections.remove(connection)
    assert len(tracked.connections.open) == 16


def test_first_go_those_that_linger_then_the_quiet_then_slow_bodies_then_slow_readers() -> None:
    tracked = Crowded(32)
    tracked.come(20, phase=Phase.RESPONDING)
    closing, body = tracked.come(phase=Phase.CLOSING)[0], tracked.come(phase=Phase.BODY)[0]
    quiet, lingering = tracked.come()[0], tracked.come(phase=Phase.LINGERING)[0]
    tracked.come(4, "b", Phase.RESPONDING)
    tracked.clock.advance(2)
    for victim in (lingering, quiet, body, closing):
        assert not victim.told
        tracked.come(4, "b", Phase.RESPONDING) if victim is lingering else None
        tracked.come(1, "b", Phase.RESPONDING)
        assert victim.told == ["abort" if victim in (lingering, closing) else "503"]
    assert tracked.come(1, "b")[0].place is Place.STANDBY


def test_a_body_that_comes_fast_or_has_just_begun_keeps_its_place() -> None:
    tracked = Crowded(2)
    fast, young = tracked.come(2, phase=Phase.BODY)
    tracked.clock.advance(2)
    fast.arrival.add(3 * SLOW_RATE)
    young.arrival = BodyRate(tracked.clock.seconds(), None)
    assert tracked.come()[0].place is Place.STANDBY
    assert told([fast, young]) == [[], []]


def test_one_address_leaves_room_for_others() -> None:
    tracked = Crowded(80)
    many = tracked.come(100, "many", Phase.RESPONDING)
    assert [connection.place for connection in many].count(Place.COUNTED) == 70
    assert [connection.place for connection in tracked.come(10, "other", Phase.RESPONDING)] == [Place.COUNTED] * 10


def test_the_address_with_the_most_connections_makes_room_for_the_others() -> None:
    tracked = Crowded(80)
    few = tracked.come(10, "few")
    many = tracked.come(70, "many")
    tracked.come(5, "new")
    assert told(few) == [[]] * 10
    assert told(many) == [["503"]] * 5 + [[]] * 65


def test_the_address_with_the_most_connections_is_always_the_one_with_the_most_now() -> None:
    tracked = Crowded(95)
    most, many = tracked.come(55, "most"), tracked.come(40, "many")
    tracked.clock.advance(2)
    for number in range(40):
        tracked.come(1, f"new {number}", Phase.RESPONDING)
    left = [sum(not one.told for one in connections) for connections in (most, many)]
    assert sorted(left) == [27, 28]


@given(st.lists(st.tuples(st.sampled_from(["come", "left", *Phase]), st.integers(0, 30), st.sampled_from("abcd"))))
def test_addresses_are_counted_right_whatever_their_connections_do(steps: list[tuple[Any, int, str]]) -> None:
    tracked = Crowded(16)
    connections: list[Any] = []
    for what, number, address in steps:
        if what == "come" or not connections:
            connections += tracked.come(1, address)
        elif what == "left":
            tracked.connections.remove(connections.pop(number % len(connections)))
        else:
            tracked.connections.move(connections[number % len(connections)], what)
        tracked.clock.advance(0.2)
        counts = Counter(connection.address for connection in connections if connection.place is Place.COUNTED)
        quiet = {one.address for one in connections if one.place is Place.COUNTED and one.phase in QUIET}
        found = {count: set(alike) for count, alike in tracked.connections._by_count.items()}
        assert found == {
            count: {one for one in quiet if counts[one] == count} for count in {counts[one] for one in quiet}
        }


def test_a_slow_body_that_is_found_for_one_address_may_make_room_for_another() -> None:
    tracked = Crowded(16)
    others, mine = tracked.come(2, "other", Phase.BODY), tracked.come(14, "mine", Phase.BODY)
    tracked.clock.advance(2)
    tracked.come(1, "mine", Phase.RESPONDING)
    assert (told(others), told(mine)) == ([[], []], [["503"]] + [[]] * 13)
    tracked.come(1, "third", Phase.RESPONDING)
    assert (told(others), told(mine)) == ([["503"], []], [["503"]] + [[]] * 13)


def test_a_connection_that_is_gone_is_forgotten() -> None:
    tracked = Crowded(16)
    connections = tracked.come(8, "a", Phase.BODY) + tracked.come(8, "b", Phase.BODY)
    tracked.clock.advance(2)
    tracked.come(1, "c", Phase.RESPONDING)
    assert connections[-1] in tracked.connections._slow
    for connection in connections:
        tracked.connections.remove(connection)
    assert not tracked.connections._slow


def test_each_connection_that_was_refused_is_counted_once() -> None:
    tracked = Crowded(16)
    tracked.come(8, "a", Phase.RESPONDING)
    tracked.come(8, "b", Phase.RESPONDING)
    with capturedLogs() as events:
        tracked.come(40, "c")
        tracked.clock.advance(LOG_INTERVAL)
        tracked.come(1)
    assert sum(event["sent_away"] for event in events) == 41


def test_those_that_linger_are_bounded() -> None:
    tracked = Crowded(10_000)
    connections = tracked.come(MAX_LINGERING + 3, phase=Phase.LINGERING)
    assert told(connections) == [["abort"]] * 3 + [[]] * MAX_LINGERING


def test_heads_in_all_have_a_bound_and_ordinary_ones_are_not_touched() -> None:
    tracked = Crowded(10_000)
    size = 60_000
    connections = tracked.come(MAX_HELD // size + 2)
    for connection in connections:
        tracked.connections.count_held(connection, size)
    assert told(connections) == [[]] * (len(connections) - 2) + [["503"]] * 2
    (ordinary,) = tracked.come()
    tracked.connections.count_held(ordinary, FAIR_HELD)
    assert ordinary.told == []
    for connection in [*connections, ordinary]:
        tracked.connections.remove(connection)
    (next_,) = tracked.come()
    tracked.connections.count_held(next_, size)
    assert next_.told == []


def test_finding_room_for_thousands_costs_a_few_steps_each() -> None:
    tracked = Crowded(2000)
    tracked.come(2000, phase=Phase.BODY)
    tracked.clock.advance(2)
    with patch.object(Connections, "slow_bodies", autospec=True, side_effect=Connections.slow_bodies) as looks:
        tracked.come(1000, phase=Phase.RESPONDING)
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


def statuses(caller: InMemoryClient) -> list[int]:
    return [answer.status for answer in caller.answers()]


def full(step: InMemoryForeman, most: int) -> list[InMemoryClient]:
    step.target.holds_responses = True
    busy = [step.call() for _ in range(most)]
    for caller in busy:
        caller.send(CHAT)
    return busy


def test_thousands_that_send_nothing_useful_do_not_keep_an_honest_client_out() -> None:
    with in_memory_foreman(max_connections="20") as step:
        for hostile in (b"", HALF_A_HEAD, HALF_A_BODY, b"nonsense\r\n\r\n"):
            callers = [step.call() for _ in range(60)]
            for caller in callers:
                caller.send(hostile)
            step.wait(2)
            honest = step.call()
            honest.send(CHAT)
            step.turn(3)
            assert statuses(honest) == [200]
            assert (
                sum(not caller.transport.lost for caller in callers)
                <= 20 + step.service.connections.connections.on_standby
            )


def test_health_is_told_where_all_places_are_taken() -> None:
    with in_memory_foreman(max_connections="2") as step:
        full(step, 2)
        probe, other = step.call(), step.call()
        probe.send(HEALTH)
        other.send(GET)
        assert (statuses(probe), statuses(other)) == ([200], [503])
        assert probe.answers()[0].header("Connection") == "close"
        step.wait(5)
        assert probe.transport.lost
        assert other.transport.lost


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
    with in_memory_foreman(max_connections="2") as step:
        full(step, 2)
        asked = len(step.target.request_connections)
        caller = step.call()
        caller.send(sent)
        assert statuses(caller) == [503]
        for _ in range(60):
            caller.send(b"x")
            step.wait(1)
        assert caller.transport.lost
        assert len(step.target.request_connections) == asked


def test_one_too_many_that_says_nothing_is_gone_soon() -> None:
    with in_memory_foreman(max_connections="2") as step:
        full(step, 2)
        silent, half = step.call(), step.call()
        half.send(HALF_A_HEAD)
        step.wait(5)
        assert (statuses(silent), statuses(half)) == ([], [503])
        assert silent.transport.lost
        assert half.transport.lost


def test_who_has_begun_a_request_is_told_why_it_goes() -> None:
    with in_memory_foreman(max_connections="2") as step:
        idle, half = step.call(), step.call()
        half.send(HALF_A_HEAD)
        newcomers = [step.call() for _ in range(2)]
        step.turn(2)
        assert (statuses(idle), statuses(half)) == ([], [503])
        assert idle.transport.ended == half.transport.ended == "end"
        for caller in newcomers:
            caller.send(GET)
            assert statuses(caller) == [200]


def test_who_does_not_take_the_reason_is_cut_off_soon() -> None:
    with in_memory_foreman(max_connections="1") as step:
        half = step.call()
        half.transport.reads = False
        half.send(HALF_A_HEAD)
        step.call()
        step.wait(3)
        assert half.transport.ended == "reset"


def test_what_is_sent_ahead_is_counted_and_given_back() -> None:
    with in_memory_foreman() as step:
        step.target.holds_responses = True
        caller = step.call()
        caller.send(CHAT + b"x" * 10_000)
        connections = step.service.connections.connections
        assert connections._held > 10_000
        caller.disconnect()
        assert connections._held == 0


def long_get(connection: str = "keep-alive") -> bytes:
    return request("GET", "/api/version", headers=[("X-Long", "x" * 60_000), ("Connection", connection)])


def test_a_head_is_no_longer_counted_when_its_request_is_answered() -> None:
    with in_memory_foreman() as step:
        connections = step.service.connections.connections
        caller = step.call()
        for answered in range(1, 4):
            caller.send(long_get())
            assert (statuses(caller), connections._held) == ([200] * answered, 0)
        slow = step.call(reads=False)
        slow.send(long_get("close"))
        assert not slow.closed
        assert connections._held == 0


def test_idle_connections_whose_heads_were_long_leave_room_for_others() -> None:
    with in_memory_foreman() as step:
        for _ in range(MAX_HELD // 60_000 + 3):
            caller = step.call()
            caller.send(long_get())
            assert statuses(caller) == [200]
            assert not caller.closed


def test_files_that_wait_for_the_target_are_counted() -> None:
    with in_memory_foreman() as step:
        step.target.delays_connections = True
        caller = step.call()
        caller.send(
            b"POST /api/blobs/sha256:00 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n" + b"x" * 50_000
        )
        connections = step.service.connections.connections
        assert connections._held > 50_000
        caller.disconnect(reset=True)
        assert connections._held == 0
