"""Each misbehaviour, at its place; and the three ways to ask for one."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from foreman.simulator import Fault, Settings, main
from foreman.simulator.engine.faults import parse
from support.in_memory_simulator import CHAT, InMemorySimulator, SimulatorClient

reactor: Any = installed_reactor

V1 = {"model": "tiny-slow", "messages": CHAT["messages"], "max_tokens": 3, "stream": True}


def chat_with_fault(what: str, path: str = "/api/chat", body: Any = None, **more: Any) -> SimulatorClient:
    """A chat of three tokens with a fault, until nothing more is sent."""
    state = InMemorySimulator()
    state.simulator.misbehave(Fault(what, **more))  # type: ignore[arg-type]
    client = state.ask(path, {**CHAT, "options": {"num_predict": 3}} if body is None else body)
    state.clock.pump([0.02] * 100)
    return client


def head_of(client: SimulatorClient) -> bytes:
    return client.received.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


WHOLE = InMemorySimulator().chat(3).received
UNARY = {**CHAT, "stream": False, "options": {"num_predict": 3}}


@pytest.mark.parametrize("what", ["reset", "close", "cut-framing", "stall", "garbage"])
@pytest.mark.parametrize("line", [0, 1, 3, 4, 9])
def test_an_answer_breaks_off_at_a_line(what: str, line: int) -> None:
    client = chat_with_fault(what, at_line=line)
    assert len(client.lines) == min(line, 4)
    assert client.transport.disconnecting is (what != "stall")
    assert client.received.endswith(
        {"cut-framing": b"\r\nzz\r\nthis is no chunk\r\n", "garbage": b" this is not HTTP\r\n\r\n"}.get(what, b"\r\n")
    )
    assert not client.received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("what", ["reset", "close", "stall"])
@pytest.mark.parametrize("byte", [0, 1, 100, 200, len(WHOLE) - 5, len(WHOLE) - 1])
def test_an_answer_breaks_off_at_a_byte(what: str, byte: int) -> None:
    assert chat_with_fault(what, at_byte=byte).received == WHOLE[:byte]


def test_an_answer_that_is_sent_at_once_breaks_off_in_its_middle() -> None:
    whole = InMemorySimulator().ask("/api/chat", UNARY).received
    for what in ("reset", "close", "stall", "cut-framing"):
        heard = chat_with_fault(what, body=UNARY).received
        assert whole.startswith(heard)
        assert len(whole.partition(b"\r\n\r\n")[2]) // 2 == len(heard.partition(b"\r\n\r\n")[2])


def test_a_stalled_answer_keeps_the_model_until_the_reader_leaves() -> None:
    state = InMemorySimulator(rate=10)
    state.simulator.misbehave("stall", at_line=2)
    stalled, waiting = state.chat(5), state.chat(1)
    state.clock.pump([1] * 60)
    assert (len(stalled.lines), waiting.received) == (2, b"")
    stalled.leave()
    assert waiting.status == 200


@pytest.mark.parametrize(
    ("path", "body", "mark"),
    [
        ("/api/chat", None, b'"done":true'),
        ("/v1/chat/completions", V1, b"[DONE]"),
        ("/v1/messages", V1, b"message_stop"),
        (
            "/v1/responses",
            {"model": "tiny-slow", "input": "x", "max_output_tokens": 3, "stream": True},
            b"response.completed",
        ),
    ],
)
def test_an_answer_without_its_end_marker_ends_properly(path: str, body: Any, mark: bytes) -> None:
    client = chat_with_fault("no-done", path, body)
    assert mark not in client.received
    assert client.received.endswith(b"\r\n0\r\n\r\n")
    assert not client.transport.disconnecting


def test_an_answer_without_its_end_marker_may_end_earlier() -> None:
    assert len(chat_with_fault("no-done", at_line=2).lines) == 2
    unary = chat_with_fault("no-done", body=UNARY)
    assert unary.lines[0]["done"] is None


def test_an_error_comes_instead_of_the_rest() -> None:
    client = chat_with_fault("error-line", at_line=2, text="the roof is on fire")
    assert client.lines[-1] == {"error": "the roof is on fire"}
    assert len(client.lines) == 3
    assert client.received.endswith(b"0\r\n\r\n")
    assert b'data: {"error":' in chat_with_fault("error-line", "/v1/chat/completions", V1).received


def test_garbage_comes_instead_of_an_answer() -> None:
    assert not chat_with_fault("garbage").received.startswith(b"HTTP")
    assert chat_with_fault("garbage", text="hello").received == b"hello"
    assert b"this is not HTTP" in chat_with_fault("garbage", at_line=1).received.partition(b"}\n")[2]


def test_a_head_may_come_byte_by_byte() -> None:
    state = InMemorySimulator()
    state.simulator.misbehave("slow-headers", pace=1)
    client = state.chat(3)
    for count in range(1, 5):
        assert client.received == WHOLE[:count]
        state.clock.advance(1)
    state.clock.pump([1] * len(head_of(client)) * 200)
    assert client.received == WHOLE
    assert state.simulator.requests[0].outcome == "answered"


def test_a_head_may_never_end() -> None:
    client = chat_with_fault("endless-headers")
    assert b"\r\n\r\n" not in client.received
    assert len(client.received) > 1_000_000


def test_nothing_may_come_at_all() -> None:
    client = chat_with_fault("no-headers")
    assert client.received == b""
    assert not client.transport.disconnecting


def test_a_thousand_other_heads_may_come_before() -> None:
    client = chat_with_fault("early-hints", size=1000)
    assert client.received.count(b"HTTP/1.1 103 Early Hints\r\n") == 1000
    assert client.received.endswith(WHOLE)


@pytest.mark.parametrize(("status", "line"), [(0, b"HTTP/1.1 000 "), (99, b"HTTP/1.1 099 "), (1000, b"HTTP/1.1 1000 ")])
def test_a_status_may_be_none(status: int, line: bytes) -> None:
    assert chat_with_fault("bad-status", status=status).received.startswith(line)


def test_an_answer_may_have_no_framing() -> None:
    client = chat_with_fault("close-delimited")
    assert head_of(client).startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Transfer-Encoding" not in client.received
    assert len(client.lines) == 4
    assert client.transport.disconnecting
    assert len(chat_with_fault("close-delimited", at_line=2).lines) == 2
    assert len(chat_with_fault("close-delimited", at_byte=300).received) == 300
    assert b"Content-Length" not in chat_with_fault("close-delimited", body=UNARY).received


def test_an_answer_may_have_two_lengths() -> None:
    assert head_of(chat_with_fault("two-lengths", body=UNARY)).count(b"Content-Length: ") == 2


def test_an_answer_may_be_squeezed_unasked() -> None:
    for body in (None, UNARY):
        head, _, rest = chat_with_fault("gzip-unasked", body=body).received.partition(b"\r\n\r\n")
        assert b"Content-Encoding: gzip" in head
        assert b"Content-Length" not in head
        data = b""
        while (size := int(rest.partition(b"\r\n")[0], 16)) > 0:
            rest = rest.partition(b"\r\n")[2]
            data += rest[:size]
            rest = rest[size + 2 :]
        assert b'"done":true' in gzip.decompress(data)
        assert zlib.decompressobj(31).decompress(data).endswith(b"}\n" if body is None else b"}")


def test_a_line_may_be_longer_than_anybody_expects() -> None:
    client = chat_with_fault("long-line", at_line=1, size=100_000)
    assert [len(json.dumps(line, separators=(",", ":"))) > 90_000 for line in client.lines] == [
        False,
        True,
        False,
        False,
        False,
    ]
    assert client.received.endswith(b"0\r\n\r\n")


def test_an_error_or_another_place_may_be_the_answer() -> None:
    assert chat_with_fault("5xx", text="no luck", status=502).lines == [{"error": "no luck"}]
    assert b"text/html" in chat_with_fault("5xx", text="<h1>Bad gateway</h1>").received
    redirect = chat_with_fault("redirect", text="http://elsewhere/").received
    assert redirect.startswith(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://elsewhere/\r\n")


def test_a_fault_happens_as_often_and_to_the_routes_that_it_names() -> None:
    state = InMemorySimulator()
    state.simulator.misbehave("5xx", times=2)
    assert state.ask("/api/tags", method="GET").status == 200
    assert [state.chat(1).status for _ in range(3)] == [500, 500, 200]
    state.simulator.misbehave("5xx", route="/api/tags", times=0)
    assert [state.ask("/api/tags", method="GET").status for _ in range(3)] == [500] * 3
    assert state.chat(1).status == 200
    state.simulator.clear_faults()
    assert state.ask("/api/tags", method="GET").status == 200
    assert [seen.fault is not None for seen in state.simulator.requests] == [
        False,
        True,
        True,
        False,
        *[True] * 3,
        *[False] * 2,
    ]


def test_a_request_may_ask_for_a_fault_of_its_own() -> None:
    state = InMemorySimulator()
    assert state.ask("/api/chat", UNARY, headers="Simulator-Misbehave: 5xx\r\n").status == 500
    wish = '{"what": "5xx", "status": 503}'
    assert state.ask("/api/version", None, "GET", f"Simulator-Misbehave: {wish}\r\n").status == 503
    assert state.ask("/api/version", None, "GET", "Simulator-Misbehave: dance\r\n").status == 400


def test_faults_can_be_injected_over_http() -> None:
    state = InMemorySimulator()
    planned = state.answer("/simulator/misbehave", [{"what": "5xx", "status": 501}, "no-headers"])["planned"]
    assert [plan["what"] for plan in planned] == ["5xx", "no-headers"]
    assert state.chat(1).status == 501
    assert state.answer("/simulator/misbehave", None, "DELETE") == {"planned": []}
    assert state.chat(1).status == 200
    assert state.ask("/simulator/misbehave", {"what": "dance"}).status == 400
    assert state.answer("/simulator", None, "GET")["loaded"] == ["tiny-slow:latest"]
    assert state.answer("/simulator/crash")["loaded"] == []


def test_faults_can_be_configured_from_the_start() -> None:
    state = InMemorySimulator(misbehave=parse('["5xx", {"what": "5xx", "status": 503}]'))
    assert [state.chat(1).status for _ in range(3)] == [500, 503, 200]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dance", '"what" must be one of reset, close, '),
        ('{"what": "reset", "at_lin": 3}', '"at_lin" is not known'),
        ('{"what": "reset", "at_line": "3"}', '"at_line" is of the wrong type'),
        ('{"what": "reset", "times": true}', '"times" is of the wrong type'),
        ('{"what": ', "that is not JSON"),
        ("[3]", '"what" must be one of'),
    ],
)
def test_an_invalid_fault_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("[", r"\[")):
        parse(text)


@define(eq=False)
class Reader(Protocol):
    """Says something, and collects what is heard until the connection ends."""

    says: bytes
    heard: bytes = b""
    ended: Deferred[type[BaseException] | None] = field(factory=Deferred)
    transport: Any = None

    def connectionMade(self) -> None:
        self.transport.write(self.says)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.type)


@pytest.mark.parametrize(("what", "reason"), [("reset", ConnectionLost), ("close", ConnectionDone)])
@pytest_twisted.ensureDeferred
async def test_on_a_socket_a_reset_is_told_from_a_close(what: str, reason: type[Exception]) -> None:
    simulator, port = await main.listen(reactor, Settings(), "tcp:0:interface=127.0.0.1")
    simulator.misbehave(Fault(what, at_line=2))  # type: ignore[arg-type]
    body = json.dumps(CHAT).encode()
    ask = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    number = port.getHost().port  # type: ignore[attr-defined]
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
    reader = await connectProtocol(endpoint, Reader(ask))
    assert await reader.ended is reason
    assert len([line for line in reader.heard.split(b"\n") if line.startswith(b"{")]) == 2
    await maybeDeferred(port.stopListening)
