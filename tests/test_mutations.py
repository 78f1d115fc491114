"""Valid requests with mistakes made at random: never an exception, a 500 or a hang, and nothing that reads in two ways."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from random import Random

import h11

from support.in_memory_foreman import InMemoryForeman, in_memory_foreman

#: FUZZ_SEED and FUZZ_COUNT in the environment choose other mistakes, and more of them.
SEED = int(os.environ.get("FUZZ_SEED", "20261124"))
COUNT = int(os.environ.get("FUZZ_COUNT", "2000"))

TOKEN = b"/k/abcdefghijklmnop"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
VALID = [
    b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/version?x=%20 HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: ollama/0.33 (x) Go/1.26\r\n\r\n",
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    % len(CHAT)
    + CHAT,
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer abcdefghijklmnop\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n10;a=b\r\n"
    + CHAT[:16]
    + b"\r\n2c\r\n"
    + CHAT[16:]
    + b"\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(CHAT)
    + CHAT,
    b"POST /api/show HTTP/1.0\r\nContent-Length: 13\r\n\r\n" + b'{"model":"m"}',
    b"DELETE /api/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\nX-A: b\r\n\r\n" + b'{"model":"m"}',
    b"OPTIONS /api/chat HTTP/1.1\r\nHost: localhost\r\nOrigin: app://x\r\nAccess-Control-Request-Method: POST\r\n\r\n",
    b"GET http://localhost/api/ps HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST " + TOKEN + b"/api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n" + b'{"model":"m"}',
    b"POST /api/blobs/sha256:00 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /api/blobs/sha256-00 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
]
LINES = [
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"content-length : 13", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding:\x0bchunked", b"Host: evil.example", b"Host: localhost", b" folded",
    b"Connection: close", b"Connection: content-length", b"Upgrade: h2c", b"Expect: 100-continue", b"X-A: \xc3\x85",
    b"GET /api/delete HTTP/1.1", b"", b"0", b"5;x", b"Origin: null", b"Authorization: Basic eDp5",
]  # fmt: skip
BYTES = b'\r\n\0\t \x0b\x0c\x1c\x7f\x85\xa0\xff:;,/?#%\\"0aZ-+'


def flip(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def replace(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + bytes([random.choice(BYTES)]) + data[at + random.randrange(2) :]


def splice(random: Random, data: bytes) -> bytes:
    other = random.choice(VALID)
    return data[: random.randrange(len(data))] + other[random.randrange(len(other)) :]


def truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(1, len(data) + 1)]


def repeat(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(random.randrange(len(lines)), random.choice(lines))
    return b"\r\n".join(lines)


def drop(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    del lines[random.randrange(len(lines))]
    return b"\r\n".join(lines) or b"\r"


def insert(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(random.randrange(1, len(lines) + 1), random.choice(LINES))
    return b"\r\n".join(lines)


def swap(random: Random, data: bytes) -> bytes:
    ends = [found.start() for found in re.finditer(b"\r\n", data)] or [0]
    at = random.choice(ends)
    return data[:at] + random.choice([b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\r\n", b" \r\n", b""]) + data[at + 2 :]


MISTAKES: list[Callable[[Random, bytes], bytes]] = [flip, replace, splice, truncate, repeat, drop, insert, swap]


def mistaken(random: Random) -> bytes:
    data = random.choice(VALID)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        data = random.choice(MISTAKES)(random, data)
    return data


def cut(random: Random, data: bytes) -> list[bytes]:
    if random.random() < 0.5 or len(data) < 2:
        return [data]
    at = random.randrange(1, len(data))
    return [data[:at], data[at:]]


def as_others_read(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The requests in ``data``, up to the first that is none, for a reader that shares no code with foreman."""
    found = []
    try:
        while data:
            reader = h11.Connection(h11.SERVER)
            reader.receive_data(data.removeprefix(b"\r\n"))  # one empty line may stand in front (RFC 9112 section 2.2)
            request, body = reader.next_event(), b""
            if not isinstance(request, h11.Request):
                break
            while isinstance(event := reader.next_event(), h11.Data):
                body += event.data
            if not isinstance(event, h11.EndOfMessage):
                break
            found.append((request.method, request.target, body))
            data = reader.trailing_data[0] if reader.their_state is h11.DONE else b""
    except h11.ProtocolError:
        pass
    return found


def check(step: InMemoryForeman, data: bytes, pieces: list[bytes]) -> None:
    caller = step.call()
    for piece in pieces:
        caller.transport.deliver(piece)
        step.turn(2)
    step.turn(6)
    for _ in range(20):  # leaps look like pauses of foreman, of which each limit allows for a few
        step.wait(100, 100)
    assert caller.transport.lost, "the connection outlived every deadline"
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", caller.received)]
    assert not [status for status in statuses if status >= 500 and status != 501]
    read = as_others_read(data)
    for heard in step.target.requests:
        same = [
            number
            for number, (method, target, body) in enumerate(read)
            if (method, body) == (heard.method.encode(), heard.body)
            and target.endswith(heard.target.encode("latin-1").removeprefix(b"/"))
        ]
        assert same, f"{heard} is not what others read: {read}"
        del read[: same[0] + 1]
    assert step.service.connections.bodies.used == 0
    assert len(step.service.connections.open) == 0
    assert all(one.transport.lost for one in step.target.connections)


def test_mistakes_made_at_random_do_no_harm() -> None:
    random = Random(SEED)
    reached = 0
    with in_memory_foreman() as step:
        for number in range(COUNT):
            data = mistaken(random)
            pieces = cut(random, data)
            try:
                check(step, data, pieces)
            except BaseException:
                print(f"FUZZ_SEED={SEED} number {number}: {pieces!r}")
                raise
            reached += len(step.target.requests)
            step.target.connections.clear()
    print(f"FUZZ_SEED={SEED}: {COUNT} requests, {reached} reached the target")
    assert COUNT / 10 < reached < COUNT * 9 / 10


def outcome(step: InMemoryForeman, pieces: list[bytes]) -> tuple[list[bytes], list[tuple[str, str, bytes]]]:
    """The statuses that a client gets who sends ``pieces``, and what the target hears."""
    caller = step.call()
    for piece in pieces:
        caller.transport.deliver(piece)
        step.turn(1)
    step.wait(300, 100)
    heard = [(one.method, one.target, one.body) for one in step.target.requests]
    step.target.connections.clear()
    return re.findall(rb"HTTP/1\.[01] (\d{3}) ", caller.received), heard


def test_it_makes_no_difference_how_a_request_is_cut() -> None:
    random = Random(SEED + 1)
    with in_memory_foreman() as step:
        for _ in range(COUNT // 10):
            data = mistaken(random)
            assert outcome(step, [data]) == outcome(step, [bytes([byte]) for byte in data]), data


def test_requests_without_mistakes_are_answered() -> None:
    with in_memory_foreman() as step:
        for data in VALID:
            caller = step.call()
            caller.send(data)
            assert b" 200 OK" in caller.received or b" 204 No Content" in caller.received
            assert b"HTTP/1.1 4" not in caller.received
            caller.disconnect()
