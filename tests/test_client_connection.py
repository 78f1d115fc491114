"""The door: deadlines, bounds, and how a connection ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import LogEvent, capturedLogs
from zope.interface import implementer

from support import recordings
from support.in_memory_foreman import (
    TRANSPORT_BUFFER,
    InMemoryClient,
    InMemoryForeman,
    TargetConnection,
    in_memory_foreman,
    response_with_length,
)
from support.live_foreman import listen, port_of, reactor, start_foreman
from support.raw_http import RawClient, request

GET = request("GET", "/api/version")
HEALTH = request("GET", "/healthz")
CHAT = request("POST", "/api/chat", b'{"model":"m"}')
BLOB = "/api/blobs/sha256:00"
KB = 1024


def head(method: str, path: str, *lines: str) -> bytes:
    """The head of a request with these headers besides Host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def chat_of(length: int) -> bytes:
    return head("POST", "/api/chat", f"Content-Length: {length}")


def statuses(caller: InMemoryClient) -> list[int]:
    return [answer.status for answer in caller.answers()]


def running_chat(step: InMemoryForeman, caller: InMemoryClient) -> TargetConnection:
    """A chat whose answer the target holds back."""
    step.target.holds_responses = True
    caller.send(CHAT)
    (conversation,) = step.target.request_connections
    return conversation


# the head


def test_a_head_that_comes_too_slowly_is_refused_after_its_time() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        slow = head("GET", "/api/version", "X-A: " + "a" * 100)
        for second, byte in enumerate(slow):
            assert (statuses(caller) == [408]) == (second >= 30)
            caller.send(bytes([byte]))
            step.wait(1)
        assert "30 s" in json.loads(caller.answers()[0].body)["error"]
        assert caller.transport.lost
        assert step.target.request_connections == []


def test_a_head_may_take_its_time_within_the_limit() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        for byte in GET[:-1]:
            caller.send(bytes([byte]))
            step.wait(29 / len(GET), 0.5)
        caller.send(GET[-1:])
        assert statuses(caller) == [200]


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        step.wait(29.5)
        assert not caller.closed
        step.wait(1)
        assert (caller.transport.ended, caller.received) == ("end", b"")


def test_between_two_requests_there_is_time_to_think() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(GET)
        step.wait(74)
        caller.send(GET)
        step.wait(74)
        assert not caller.closed
        step.wait(2)
        assert (caller.transport.ended, statuses(caller)) == ("end", [200, 200])


def test_the_second_request_of_a_connection_has_a_deadline_of_its_own() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(GET)
        step.wait(70)
        caller.send(GET[:10])
        step.wait(29)
        assert statuses(caller) == [200]
        step.wait(2)
        assert statuses(caller) == [200, 408]


def test_half_a_head_that_came_with_the_request_before_has_its_deadline() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(HEALTH + HEALTH[:10])
        step.wait(31)
        assert statuses(caller) == [200, 408]


def test_no_deadline_of_a_head_runs_while_a_chat_is_answered() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        step.target.holds_responses = True
        caller.send(HEALTH + CHAT)
        caller.send(HEALTH)  # pipelined behind a chat that runs
        step.wait(1000, 10)
        assert statuses(caller) == [200]
        step.target.request_connections[0].transport.deliver(response_with_length(b"{}"))
        step.turn()
        assert statuses(caller) == [200, 200, 200]


def test_a_request_that_comes_while_the_connection_closes_is_not_answered() -> None:
    with in_memory_foreman() as step:
        caller = step.call(reads=False)
        caller.send(GET)
        step.wait(76)
        caller.transport.protocol.dataReceived(GET)  # TLS delivers what comes until the other side has closed, too
        caller.transport.resume_reading()
        step.turn()
        assert (statuses(caller), caller.transport.ended) == ([200], "end")


# the body


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_is_refused_after_its_time(framing: str) -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(head("POST", "/v1/messages", framing))
        step.wait(59)
        assert statuses(caller) == []
        step.wait(2)
        assert statuses(caller) == [408]
        assert json.loads(caller.answers()[0].body)["type"] == "error"
        assert step.target.request_connections == []


@pytest.mark.parametrize(("rate", "refused"), [(900, True), (1100, False)])
def test_a_body_may_be_slow_but_not_slower_than_1_kb_a_second(rate: int, refused: bool) -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(chat_of(600 * rate))
        for _ in range(600):
            caller.send(b" " * rate)
            step.wait(1)
        assert statuses(caller) == ([408] if refused else [400])  # blanks are no JSON


def test_a_model_file_may_be_as_slow_as_it_likes_unless_it_stops() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(head("POST", BLOB, "Content-Length: 1000"))
        for _ in range(20):
            caller.send(b"x")
            step.wait(55)
        assert statuses(caller) == []
        step.wait(120)
        assert statuses(caller) == [408]
        (upload,) = step.target.request_connections
        assert upload.transport.ended == "reset"


def test_a_target_that_is_slow_to_take_a_model_file_is_no_fault_of_the_client() -> None:
    with in_memory_foreman() as step:
        step.target.reads = False
        caller = step.call()
        caller.send(head("POST", BLOB, f"Content-Length: {4 * TRANSPORT_BUFFER}"))
        caller.transport.deliver(b"x" * 4 * TRANSPORT_BUFFER)
        step.wait(590, 10)
        assert statuses(caller) == []
        assert caller.transport.paused
        (upload,) = step.target.request_connections
        upload.transport.resume_reading()
        step.turn()
        assert statuses(caller) == [200]


def test_a_target_that_never_takes_a_model_file_is_given_up() -> None:
    with in_memory_foreman() as step:
        step.target.reads = False
        caller = step.call()
        caller.send(head("POST", BLOB, f"Content-Length: {4 * TRANSPORT_BUFFER}"))
        caller.transport.deliver(b"x" * 4 * TRANSPORT_BUFFER)
        step.wait(800, 10)
        assert statuses(caller) == [502]
        assert step.target.request_connections[0].transport.ended == "reset"


# the client does not read


def test_a_reader_that_never_reads_is_cut_off_after_the_stall_limit() -> None:
    with in_memory_foreman(buffer="64KiB", stall_timeout="60s") as step:
        caller = step.call()
        chat = running_chat(step, caller)
        caller.transport.reads = False
        chat.transport.deliver(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        line = b'{"response":"' + b"a" * KB + b'"}\n'
        chat.transport.deliver(b"%x\r\n%b\r\n" % (len(line), line) * 10_000)
        step.turn()
        assert chat.transport.paused
        assert caller.transport.max_buffered < 2 * TRANSPORT_BUFFER
        step.wait(59)
        assert not caller.transport.lost
        step.wait(2)
        assert (caller.transport.ended, chat.transport.ended) == ("reset", "reset")


def test_a_reader_that_does_not_take_the_end_is_cut_off_after_the_stall_limit() -> None:
    with in_memory_foreman(stall_timeout="60s") as step:
        caller = step.call(reads=False)
        caller.send(head("GET", "/api/version", "Connection: close"))
        step.wait(59)
        assert not caller.transport.lost
        step.wait(2)
        assert caller.transport.ended == "reset"


def large_listing(step: InMemoryForeman) -> bytes:
    """The target's list of models, about 100 kB, which foreman has fetched."""
    listing = response_with_length(json.dumps({"models": [{"name": "m:latest", "model": "x" * 100_000}]}).encode())
    step.target.answer = lambda heard: (
        listing if heard.target == "/api/tags" else response_with_length(b'{"models":[]}')
    )
    step.wait(2)
    return listing


def test_requests_of_a_client_that_does_not_read_wait() -> None:
    with in_memory_foreman() as step:
        listing = large_listing(step)
        caller = step.call(reads=False)
        asking = request("GET", "/api/tags")
        caller.send(asking * 100)
        assert caller.transport.max_buffered < 3 * len(listing)
        caller.transport.reads = True
        for _ in range(600):
            caller.transport.resume_reading()
            step.turn(2)
        assert statuses(caller) == [200] * 100


def test_requests_that_came_before_and_after_a_pause_keep_their_order() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        chat = running_chat(step, caller)
        caller.send(request("GET", "/first"))
        caller.transport.reads = False
        chat.transport.deliver(response_with_length(b"x" * 3 * TRANSPORT_BUFFER))
        step.turn()
        caller.send(request("GET", "/second"))
        step.target.holds_responses = False
        caller.transport.resume_reading()
        step.turn()
        assert [heard.target for heard in step.target.requests] == ["/api/chat", "/first", "/second"]
        assert statuses(caller) == [200, 200, 200]


def test_a_client_that_does_not_read_may_send_ahead_as_much_as_it_likes_since_nobody_listens() -> None:
    with in_memory_foreman() as step:
        large_listing(step)
        caller = step.call(reads=False)
        caller.send(request("GET", "/api/tags"))
        caller.send(head("GET", "/healthz", "X-A: " + "a" * 1000) * 200)
        assert not caller.transport.lost
        assert caller.transport.paused
        for _ in range(50):
            caller.transport.resume_reading()
            step.turn(2)
        assert caller.received.count(b"HTTP/1.1 200 OK\r\n") == 201


# the client sends ahead, or leaves


def test_a_client_that_leaves_while_its_chat_runs_stops_the_target() -> None:
    for reset in (False, True):
        with in_memory_foreman() as step:
            caller = step.call()
            chat = running_chat(step, caller)
            caller.disconnect(reset=reset)
            assert chat.transport.ended == "reset"
            assert step.service.target.gate.running == []


@pytest.mark.parametrize("ahead", [20 * KB, 60 * KB])
def test_a_client_that_leaves_is_noticed_behind_what_it_sent_ahead(ahead: int) -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        chat = running_chat(step, caller)
        caller.send(chat_of(ahead) + b" " * ahead)
        caller.disconnect()
        assert chat.transport.ended == "reset"


@pytest.mark.parametrize("piece", [100, 70 * KB])
def test_a_client_that_sends_too_much_ahead_is_cut_off(piece: int) -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        chat = running_chat(step, caller)
        for _ in range(70 * KB // piece):
            caller.transport.deliver(b" " * piece)
        step.turn()
        assert (caller.transport.ended, chat.transport.ended) == ("reset", "reset")


def test_a_client_that_sends_too_much_ahead_without_reading_is_cut_off() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        chat = running_chat(step, caller)
        caller.transport.reads = False
        chat.transport.deliver(response_with_length(b"x" * 3 * TRANSPORT_BUFFER))
        step.turn()
        caller.send(b" " * 40 * KB)
        assert not caller.transport.lost
        caller.send(b" " * 40 * KB)
        assert caller.transport.ended == "reset"


def test_what_is_sent_ahead_of_an_answer_that_comes_at_once_is_answered() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(request("POST", "/api/chat", b"{") + HEALTH + request("POST", "/api/chat", b"") + HEALTH)
        assert statuses(caller) == [400, 200, 400, 200]


def test_what_is_sent_ahead_in_small_pieces_is_answered_in_order() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        chat = running_chat(step, caller)
        ahead = b"".join(request("GET", f"/number/{number}") for number in range(200))
        for start in range(0, len(ahead), 7):
            caller.transport.deliver(ahead[start : start + 7])
        step.target.holds_responses = False
        chat.transport.deliver(response_with_length(b"{}"))
        step.turn(2000)
        assert [heard.target for heard in step.target.requests[1:]] == [f"/number/{number}" for number in range(200)]
        assert statuses(caller) == [200] * 201


# bounds


def test_a_connection_too_many_is_told_so_and_closed(logged: list[LogEvent]) -> None:
    with in_memory_foreman(max_connections="2") as step:
        step.target.holds_responses = True
        callers = [step.call() for _ in range(2)]
        for caller in callers:
            caller.send(CHAT)
        callers += [step.call() for _ in range(2)]
        for caller in callers[2:]:
            caller.send(CHAT)
        assert [statuses(caller) for caller in callers] == [[], [], [503], [503]]
        answer = callers[2].answers()[0]
        assert "FOREMAN_MAX_CONNECTIONS" in json.loads(answer.body)["error"]
        assert answer.header("Retry-After")
        assert answer.header("Connection") == "close"
        callers[2].disconnect()
        callers[3].disconnect()
        callers[0].disconnect()
        assert statuses(step.call()) == []
        step.wait(61)
        crowd = []
        for _ in range(5):
            crowd.append(step.call())
            crowd[-1].send(CHAT)
        assert statuses(crowd[-1]) == [503]
    said = [event for event in logged if "connections are open" in (event.get("log_format") or "")]
    assert len(said) == 2  # once a minute


@pytest.fixture
def logged() -> Any:
    with capturedLogs() as events:
        yield events


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    with in_memory_foreman(max_body="1MiB") as step:
        caller = step.call()
        caller.send(head("POST", "/api/chat", "Expect: 100-continue", f"Content-Length: {KB * KB + 1}"))
        (answer,) = caller.answers()
        assert (answer.status, answer.interim) == (413, [])
        assert "FOREMAN_MAX_BODY" in json.loads(answer.body)["error"]


def test_a_chunked_body_is_refused_when_it_has_become_too_large() -> None:
    with in_memory_foreman(max_body="1MiB") as step:
        caller = step.call()
        caller.send(head("POST", "/v1/responses", "Transfer-Encoding: chunked"))
        for _ in range(16):
            caller.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert statuses(caller) == []
        assert step.service.connections.bodies.used == KB * KB
        caller.send(b"1\r\nx\r\n")
        assert statuses(caller) == [413]
        assert step.service.connections.bodies.used == 0


def test_a_body_that_is_both_too_large_and_spoiled_is_refused_once() -> None:
    with in_memory_foreman(max_body="1KiB") as step:
        caller = step.call()
        caller.send(head("POST", "/api/chat", "Transfer-Encoding: chunked"))
        caller.send(b"300\r\n" + b" " * 768 + b"\r\n200\r\n" + b" " * 512 + b"\r\nxyz\r\n")
        assert statuses(caller) == [413]


def test_a_model_file_has_any_size() -> None:
    with in_memory_foreman(max_body="1KiB") as step:
        caller = step.call()
        caller.send(head("POST", BLOB, "Content-Length: 100000"))
        for _ in range(100):
            caller.send(b"x" * 1000)
        assert statuses(caller) == [200]


def test_bodies_beyond_the_budget_are_refused_until_others_are_done() -> None:
    with in_memory_foreman(max_body="1MiB", body_budget="1MiB") as step:
        first, second = step.call(), step.call()
        first.send(chat_of(1000 * KB) + b" " * (950 * KB))
        second.send(head("POST", "/api/chat", "Expect: 100-continue", f"Content-Length: {100 * KB}"))
        (answer,) = second.answers()
        assert (answer.status, answer.interim, answer.header("Retry-After")) == (503, [], "5")
        assert "FOREMAN_BODY_BUDGET" in json.loads(answer.body)["error"]
        first.disconnect()
        assert step.service.connections.bodies.used == 0
        third = step.call()
        third.send(chat_of(100 * KB))
        assert statuses(third) == []


def test_promises_take_no_room() -> None:
    with in_memory_foreman(max_body="1MiB", body_budget="4MiB") as step:
        step.target.holds_responses = True
        promising = [step.call() for _ in range(50)]
        for caller in promising:
            caller.send(head("POST", "/api/chat", f"Content-Length: {KB * KB}") + b"{")
        assert step.service.connections.bodies.used == 50
        honest = step.call()
        honest.send(chat_of(1000 * KB) + b" " * (900 * KB))
        assert statuses(honest) == []
        assert [statuses(caller) for caller in promising] == [[]] * 50


def test_slow_bodies_make_room_for_one_that_comes_at_once() -> None:
    with in_memory_foreman(max_body="1MiB", body_budget="1MiB") as step:
        slow = step.call()
        slow.send(head("POST", "/api/chat", f"Content-Length: {KB * KB}") + b" " * (20 * KB))
        for _ in range(20):
            step.wait(1)
            slow.send(b" " * (20 * KB))
        honest = step.call()
        body = b'{"model":"m"}'.ljust(800 * KB)
        honest.send(request("POST", "/api/chat", body))
        assert (statuses(slow), statuses(honest)) == ([408], [200])
        assert "others wait" in json.loads(slow.answers()[0].body)["error"]
        step.wait(10)
        assert step.service.connections.bodies.used == 0


def test_a_chunked_body_beyond_the_budget_is_refused_on_its_way() -> None:
    with in_memory_foreman(max_body="1MiB", body_budget="1MiB") as step:
        first, second = step.call(), step.call()
        first.send(chat_of(1024 * KB) + b" " * (1000 * KB))
        used = step.service.connections.bodies.used
        second.send(head("POST", "/api/chat", "Transfer-Encoding: chunked"))
        second.send(b"8000\r\n")
        assert statuses(second) == [503]
        assert step.service.connections.bodies.used == used


def test_the_place_of_a_body_is_free_for_the_next_request_on_the_same_connection() -> None:
    body = b'{"model":"m"}'.ljust(600)
    with in_memory_foreman(max_body="1000", body_budget="1000") as step:
        caller = step.call()
        caller.send((chat_of(600) + body) * 5)
        step.turn(100)
        assert statuses(caller) == [200] * 5


@define
class Sender:
    """A client that sends a body in steps."""

    caller: InMemoryClient
    left: int
    chunked: bool
    over: bool = field(default=False)


ACTS = st.sampled_from(["sized", "chunked", "some", "rest", "leave", "reset", "wait", "garbage", "answer"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ACTS, st.integers(0, 5), st.integers(1, 1500)), max_size=30))
def test_the_budget_is_given_back_in_every_way_a_request_can_end(acts: list[tuple[str, int, int]]) -> None:
    with in_memory_foreman(max_body="1000", body_budget="2500") as step:
        step.target.holds_responses = True
        senders: list[Sender] = []
        for act, which, size in acts:
            perform(step, senders, act, which, size)
            used = step.service.connections.bodies.used
            assert 0 <= used <= 2500
            if not any(not sender.caller.transport.lost for sender in senders):
                assert used == 0
        for sender in senders:
            sender.caller.disconnect()
        assert step.service.connections.bodies.used == 0


def perform(step: InMemoryForeman, senders: list[Sender], act: str, which: int, size: int) -> None:
    """Do one thing of the story above."""
    if act in ("sized", "chunked"):
        caller = step.call()
        framing = "Transfer-Encoding: chunked" if act == "chunked" else f"Content-Length: {size}"
        caller.send(head("POST", "/api/chat", framing))
        senders.append(Sender(caller, size, act == "chunked"))
        return
    if act == "wait":
        step.wait(70, 35)
        return
    if act == "answer":
        for one in step.target.request_connections:
            one.transport.deliver(response_with_length(b"{}"))
        step.turn()
        return
    if not senders:
        return
    sender = senders[which % len(senders)]
    if act == "leave":
        sender.caller.disconnect()
    elif act == "reset":
        sender.caller.disconnect(reset=True)
    elif act == "garbage":
        sender.caller.send(b"\0xyz\r\n")
    elif act == "some" and sender.left > 1:
        part = max(1, sender.left // 2)
        sender.left -= part
        sender.caller.send(b"%x\r\n%b\r\n" % (part, b" " * part) if sender.chunked else b" " * part)
    elif act == "rest":
        part, sender.left = sender.left, 0
        data = b" " * part
        sender.caller.send(
            (b"%x\r\n%b\r\n0\r\n\r\n" % (part, data) if part else b"0\r\n\r\n") if sender.chunked else data
        )


# the end


def test_a_client_that_is_refused_may_go_on_sending_for_a_moment() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(chat_of(10**9))
        assert caller.transport.half_closed
        for _ in range(20):
            caller.send(b"x" * KB * KB)
            step.wait(1)
        assert not caller.transport.lost
        step.wait(2.5, 0.5)
        assert caller.transport.ended == "end"
        assert statuses(caller) == [413]


def test_a_client_that_is_refused_may_not_go_on_sending_for_ever() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(chat_of(10**9))
        for _ in range(29):
            caller.send(b"x")
            step.wait(1)
        assert not caller.transport.lost
        for _ in range(3):
            caller.send(b"x")
            step.wait(1)
        assert caller.transport.lost


def test_no_more_than_64_mib_of_a_refused_body_are_read() -> None:
    with in_memory_foreman() as step:
        caller = step.call()
        caller.send(chat_of(10**9))
        for _ in range(64):
            caller.send(b"x" * KB * KB)
        assert not caller.transport.paused
        caller.send(b"x")
        assert caller.transport.paused
        step.wait(31)
        assert caller.transport.lost


def test_a_refusal_that_nobody_reads_does_not_keep_a_connection() -> None:
    with in_memory_foreman() as step:
        caller = step.call(reads=False)
        caller.send(chat_of(10**9))
        step.wait(5)
        assert caller.transport.ended == "reset"


def test_stopping_closes_what_is_idle_and_ends_what_runs_with_its_answer() -> None:
    with in_memory_foreman() as step:
        idle, reading, busy = step.call(), step.call(), step.call()
        reading.send(chat_of(13))
        chat = running_chat(step, busy)
        step.service.connections.drain()
        step.turn()
        assert idle.transport.ended == "end"
        chat.transport.deliver(response_with_length(b"{}"))
        step.turn()
        (answer,) = busy.answers()
        assert (answer.status, answer.header("Connection"), busy.transport.ended) == (200, "close", "end")
        assert not reading.closed


@implementer(IHalfCloseableProtocol)
class Uploader(RawClient):
    """Sends a large body as blocking clients do: everything, and only then does it look at what came."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__()
        self._head = head
        self._left = size

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._head)
        self.transport.registerProducer(self, False)  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        assert self.transport is not None
        piece = min(self._left, 256 * KB)
        self._left -= piece
        self.transport.write(b"x" * piece)
        if not self._left:
            self.transport.unregisterProducer()  # type: ignore[attr-defined]
            self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass

    def stopProducing(self) -> None:
        self._left = -1

    @property
    def has_sent_all(self) -> bool:
        return self._left == 0


@pytest_twisted.ensureDeferred
async def test_whoever_sends_20_mb_that_are_refused_reads_the_refusal() -> None:
    target = recordings.ReplayTarget()
    listening = listen(target)
    foreman = await start_foreman(port_of(listening), max_body="1MiB")
    size = 20 * KB * KB
    client = Uploader(chat_of(size), size)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", foreman.port), client)
    answer = await client.done
    await client.gone
    assert (answer.status, answer.torn, answer.header("Connection")) == (413, False, "close")
    assert client.has_sent_all
    assert target.seen == []
    await foreman.stop()
    await maybeDeferred(listening.stopListening)
