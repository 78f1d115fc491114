"""HTTP as Go's server speaks it, where no recording shows it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
import zstandard

from foreman.simulator import Settings, Simulator
from foreman.simulator.server.exchange import reason
from support.in_memory_simulator import CHAT, InMemorySimulator, SimulatorClient

GET = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def heads(client: SimulatorClient) -> list[bytes]:
    """The status lines of all answers."""
    return re.findall(rb"HTTP/1\.[01] [^\r]+", client.received)


def test_a_thousand_requests_in_one_packet_are_answered_in_order() -> None:
    client = SimulatorClient(InMemorySimulator().simulator)
    client.protocol.dataReceived((GET + GET.replace(b"version", b"nope")) * 500)
    assert [line.split()[1] for line in heads(client)] == [b"200", b"404"] * 500


def test_the_second_of_two_requests_waits_for_the_first() -> None:
    state = InMemorySimulator(rate=10)
    client = SimulatorClient(state.simulator).ask("/api/chat", {**CHAT, "options": {"num_predict": 2}})
    client.protocol.dataReceived(GET)
    assert len(heads(client)) == 1
    assert len(state.simulator.requests) == 1
    state.clock.pump([0.1] * 3)
    assert len(heads(client)) == 2


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_behind_a_head_with_upgrade_is_read_and_what_follows_too(size: int, chunked: bool) -> None:
    state = InMemorySimulator()
    client = SimulatorClient(state.simulator)
    body = json.dumps({**CHAT, "options": {"num_predict": 1}}).encode()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n%b\r\n\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    data = (head % framing + sent + GET.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")) * 2
    for at in range(0, len(data), size):
        client.protocol.dataReceived(data[at : at + size])
    assert [line.split()[1] for line in heads(client)] == [b"200"] * 4
    assert [seen.body for seen in state.simulator.requests] == [body, b""] * 2


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_request_may_come_in_pieces(size: int) -> None:
    state = InMemorySimulator()
    client = SimulatorClient(state.simulator)
    body = json.dumps({**CHAT, "options": {"num_predict": 1}}).encode()
    chunks = b"%x\r\n%b\r\n5;ext=1\r\n     \r\n0\r\nX-Trailer: no\r\n\r\n" % (len(body), body)
    data = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + GET
    for at in range(0, len(data), size):
        client.protocol.dataReceived(data[at : at + size])
    assert [line.split()[1] for line in heads(client)] == [b"200", b"200"]
    assert state.simulator.requests[0].body == body + b"     "
    assert state.simulator.requests[0].header("x-trailer") is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", b"505"),
        (b"POST /api/show HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (1 << 21), b"431"),
    ],
)
def test_what_is_not_http_ends_the_connection(data: bytes, status: bytes) -> None:
    state = InMemorySimulator()
    client = SimulatorClient(state.simulator)
    client.protocol.dataReceived(data)
    assert heads(client)[0].split()[1] == status
    assert b"\r\nConnection: close\r\n" in client.received
    state.clock.advance(1)
    assert client.transport.disconnecting


def test_garbage_behind_a_request_does_not_spoil_its_answer() -> None:
    state = InMemorySimulator(rate=10)
    client = SimulatorClient(state.simulator).ask("/api/chat", {**CHAT, "options": {"num_predict": 2}})
    client.protocol.dataReceived(b"garbage\r\n\r\n")
    state.clock.pump([0.1] * 3)
    assert len(heads(client)) == 1
    assert client.received.endswith(b"0\r\n\r\n")
    assert client.transport.disconnecting


def test_an_upgrade_is_not_noticed() -> None:
    client = SimulatorClient(InMemorySimulator().simulator)
    client.protocol.dataReceived(GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n") + GET)
    assert [line.split()[1] for line in heads(client)] == [b"200", b"200"]


def test_an_old_client_may_keep_its_connection() -> None:
    client = SimulatorClient(InMemorySimulator().simulator)
    old = GET.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    client.protocol.dataReceived(old * 2)
    assert heads(client) == [b"HTTP/1.0 200 OK"] * 2
    assert client.received.count(b"\r\nConnection: keep-alive\r\n") == 2
    client.protocol.dataReceived(GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert client.transport.disconnecting


def upload(client: SimulatorClient, digest: str, length: int, *, expect: bool = False) -> None:
    head = f"POST /api/blobs/sha256:{digest} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    client.protocol.dataReceived((head + "Expect: 100-continue\r\n" * expect + "\r\n").encode())


def test_an_upload_leaves_only_its_digest_and_size() -> None:
    state = InMemorySimulator()
    client = SimulatorClient(state.simulator)
    block, blocks = b"GGUF" + bytes((1 << 20) - 4), 20
    digest = hashlib.sha256(block * blocks).hexdigest()
    upload(client, digest, len(block) * blocks, expect=True)
    assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    for _ in range(blocks):
        client.protocol.dataReceived(block)
    assert b" 201 Created" in client.received
    assert state.simulator.state.blobs[digest].size == blocks << 20
    assert state.simulator.requests[0].body == b""
    made = state.ask("/api/create", {"model": "mine", "files": {"a.gguf": f"sha256:{digest}"}})
    assert made.lines[-1] == {"status": "success"}
    assert state.ask("/api/chat", {**CHAT, "model": "mine"}).status == 200


@pytest.mark.parametrize("expect", [True, False])
def test_what_is_there_already_is_not_read_again(expect: bool) -> None:
    state = InMemorySimulator()
    small = SimulatorClient(state.simulator)
    digest = hashlib.sha256(b"x").hexdigest()
    upload(small, digest, 1)
    small.protocol.dataReceived(b"x")
    client = SimulatorClient(state.simulator)
    upload(client, digest, 2 << 30, expect=expect)
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in client.received
    assert not client.transport.disconnecting
    state.clock.advance(1)
    assert client.transport.disconnecting


def test_a_small_body_that_nobody_wants_is_read_and_the_connection_goes_on() -> None:
    client = SimulatorClient(InMemorySimulator().simulator)
    client.protocol.dataReceived(b"POST /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
    assert client.received == b""
    client.protocol.dataReceived(b"67890" + GET)
    assert [line.split()[1] for line in heads(client)] == [b"404", b"200"]


def test_bytes_are_poured_as_fast_as_they_are_read() -> None:
    state = InMemorySimulator()
    client = state.ask("/simulator/bytes/1000000", method="GET")
    client.transport.producer.pauseProducing()  # type: ignore[union-attr]
    state.clock.pump([0.0] * 100)
    assert len(client.received) < 200_000
    client.transport.producer.resumeProducing()  # type: ignore[union-attr]
    state.clock.pump([0.0] * 100)
    assert client.received.count(b"x") == 1_000_000
    assert client.received.endswith(b"0\r\n\r\n")


def test_only_v1_undoes_zstd_and_only_so_much_of_it() -> None:
    def asked(path: str, data: bytes) -> bytes:
        client = SimulatorClient(InMemorySimulator().simulator)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: zstd\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        client.protocol.dataReceived(head.encode() + data)
        return client.received

    body = json.dumps({**CHAT, "max_tokens": 1}).encode()
    assert asked("/v1/chat/completions", zstandard.compress(body)).startswith(b"HTTP/1.1 200")
    assert asked("/api/chat", zstandard.compress(body)).startswith(b"HTTP/1.1 400")
    assert b"http: request body too large" in asked(
        "/v1/chat/completions", zstandard.compress(body + b" " * (21 << 20))
    )
    assert asked("/v1/chat/completions", b"{}").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:5173", 200),
        ("https://127.0.0.1:8443", 200),
        ("http://localhost.evil.com", 403),
        ("http://localhost:80.evil.com", 403),
        ("vscode-webview://abc", 200),
        ("http://192.168.1.2", 403),
    ],
)
def test_only_some_origins_may_ask(origin: str, status: int) -> None:
    client = InMemorySimulator().ask("/api/version", method="GET", headers=f"Origin: {origin}\r\n")
    assert client.status == status
    assert (f"Access-Control-Allow-Origin: {origin}".encode() in client.received) == (status == 200)


@pytest.mark.parametrize(
    ("host", "status"), [("[::1]:11434", 200), ("10.0.0.1", 200), ("a.localhost:1", 200), ("example.com", 403)]
)
def test_only_some_hosts_may_be_asked(host: str, status: int) -> None:
    for check, expected in ((True, status), (False, 200)):
        client = SimulatorClient(InMemorySimulator(check_hosts=check).simulator)
        client.protocol.dataReceived(GET.replace(b"localhost", host.encode()))
        assert client.status == expected


def test_a_status_that_nobody_knows_has_a_reason_too() -> None:
    assert (reason(413), reason(299)) == ("Request Entity Too Large", "status code 299")


def test_a_handler_that_fails_is_logged_and_answers_500(logged_failures: Any) -> None:
    state = InMemorySimulator()
    state.simulator.state.settings = Settings(version=object())  # type: ignore[arg-type]
    assert state.ask("/api/version", method="GET").status == 500
    assert logged_failures.take(TypeError)


def test_time_of_day_follows_the_clock() -> None:
    state = InMemorySimulator()
    state.clock.advance(3661.5)
    client = state.chat(1)
    assert b"Date: Thu, 01 Jan 2026 01:01:01 GMT" in client.received
    assert client.lines[0]["created_at"] == "2026-01-01T01:01:01.5Z"
    assert Simulator(state.clock, time_of_day=0.0).date() == "Thu, 01 Jan 1970 00:00:00 GMT"
