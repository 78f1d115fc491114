"""The answer on its way back to the client: its head, its framing, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from twisted.internet.address import UNIXAddress
from twisted.logger import capturedLogs, formatEvent

from support.in_memory_foreman import InMemoryClient, InMemoryForeman, in_memory_foreman, response_with_length
from support.raw_http import Response, request

CHAT = b'{"model":"m"}'
LINE = b'{"response":"a","done":false}\n'
LAST = b'{"response":"","done":true}\n'


@pytest.fixture
def step() -> Iterator[InMemoryForeman]:
    with in_memory_foreman() as step:
        yield step


def head(content_type: str, framing: str = "Transfer-Encoding: chunked", status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", *([framing] if framing else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def asking(step: InMemoryForeman, sent: bytes) -> InMemoryClient:
    """A client whose question has reached the target, which says nothing yet."""
    step.target.holds_responses = True
    caller = step.call()
    caller.send(sent)
    return caller


def told(step: InMemoryForeman, *said: bytes, breaks: bool = False) -> None:
    """The target says ``error_text``, and perhaps closes."""
    line = step.target.request_connections[-1].transport
    for data in said:
        line.deliver(data)
        step.turn()
    if breaks:
        line.disconnect()
        step.turn()


def answer_of(caller: InMemoryClient, method: str = "POST") -> Response:
    (answer,) = caller.answers(method)
    return answer


# framing


def test_what_has_a_length_is_answered_with_it(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/chat", CHAT))
    told(step, response_with_length(LAST))
    answer = answer_of(caller)
    assert (answer.framing, answer.body, answer.header("Connection")) == ("content-length", LAST, None)
    assert not caller.closed


def test_what_has_none_is_answered_in_chunks_one_for_each_line(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/generate", CHAT))
    told(step, head("application/x-ndjson"), chunk(LINE + LINE), chunk(LINE[:5]), chunk(LINE[5:] + LAST), b"0\r\n\r\n")
    answer = answer_of(caller)
    assert answer.chunks == [LINE, LINE, LINE, LAST]
    assert not caller.closed


def test_an_old_client_gets_an_answer_that_ends_with_its_connection(step: InMemoryForeman) -> None:
    caller = asking(step, b"POST /api/generate HTTP/1.0\r\nContent-Length: 13\r\n\r\n" + CHAT)
    told(step, head("application/x-ndjson"), chunk(LINE), chunk(LAST), b"0\r\n\r\n")
    answer = answer_of(caller)
    assert (answer.version, answer.framing, answer.body) == ("HTTP/1.0", "close", LINE + LAST)
    assert answer.header("Transfer-Encoding") is None
    assert caller.transport.ended == "end"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_that_has_no_body_gets_none(step: InMemoryForeman, status: str) -> None:
    caller = asking(step, request("GET", "/nope"))
    told(step, f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())
    answer = answer_of(caller, "GET")
    assert (answer.status, answer.framing, answer.header("ETag")) == (int(status[:3]), "none", "x")
    assert b"Transfer-Encoding" not in caller.received
    caller.send(request("GET", "/healthz"))
    assert [one.status for one in caller.answers()] == [int(status[:3]), 200]


def test_an_answer_to_head_has_the_length_and_no_body(step: InMemoryForeman) -> None:
    caller = asking(step, request("HEAD", "/api/blobs/sha256:00"))
    told(step, head("text/plain", "Content-Length: 5"))
    caller.send(request("GET", "/healthz"))
    answers = caller.answers("HEAD", "GET")
    assert [(one.status, one.header("Content-Length")) for one in answers] == [(200, "5"), (200, "32")]


def test_an_empty_stream_is_an_empty_stream(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/pull", CHAT))
    told(step, head("application/x-ndjson"), b"0\r\n\r\n")
    answer = answer_of(caller)
    assert (answer.framing, answer.chunks, answer.torn) == ("chunked", [], False)


# the head


def test_headers_go_back_as_they_came_less_those_of_the_hop(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/show", CHAT))
    told(
        step,
        b"HTTP/1.1 418 I'm a teapot\r\nX-lower: 1\r\nContent-Length: 0\r\nX-Twice: a\r\nX-Twice: b\r\nConnection: X-Hop\r\n"
        b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n",
    )
    assert caller.received.startswith(
        b"HTTP/1.1 418 I'm a teapot\r\nX-lower: 1\r\nContent-Length: 0\r\nX-Twice: a\r\nX-Twice: b\r\n"
    )
    assert b"X-Hop" not in caller.received
    assert b"Keep-Alive" not in caller.received


@pytest.mark.parametrize(
    ("said", "told_phrase"),
    [
        (b"OK", b"OK"),
        (b"\x1b[31mO\x07K\x7f", b"[31mOK"),
        (b"a\tb \xe9", b"a\tb \xe9"),
        (b"\x00\x01", b""),
        (b"", b""),
    ],
)
def test_no_control_byte_of_a_phrase_reaches_a_client(step: InMemoryForeman, said: bytes, told_phrase: bytes) -> None:
    caller = asking(step, request("GET", "/api/version"))
    told(step, b"HTTP/1.1 200 " + said + b"\r\nContent-Length: 2\r\n\r\n{}")
    assert caller.received.startswith(b"HTTP/1.1 200 " + told_phrase + b"\r\n")


@pytest.mark.parametrize("version", [b"1.1", b"1.2", b"1.9"])
def test_a_later_version_of_the_target_is_read_as_the_last_one_known(step: InMemoryForeman, version: bytes) -> None:
    caller = asking(step, request("GET", "/api/version"))
    told(step, b"HTTP/" + version + b" 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
    answer = answer_of(caller)
    assert (answer.version, answer.status, answer.body, answer.torn) == ("HTTP/1.1", 200, b"{}", False)


@pytest.mark.parametrize("extension", [b";", b"; "])
def test_an_answer_whose_chunks_are_none_is_broken_off(step: InMemoryForeman, extension: bytes) -> None:
    caller = asking(step, request("GET", "/api/version"))
    told(step, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2" + extension + b"\r\n{}\r\n0\r\n\r\n")
    assert caller.closed
    assert b"0\r\n\r\n" not in caller.received


def test_streams_tell_proxies_not_to_keep_them(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/v1/chat/completions", CHAT))
    told(step, head("text/event-stream"), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n")
    answer = answer_of(caller)
    assert (answer.header("X-Accel-Buffering"), answer.header("Cache-Control")) == ("no", "no-cache")


def test_an_answer_tells_where_its_time_went(step: InMemoryForeman) -> None:
    first, second = asking(step, request("POST", "/api/chat", CHAT)), asking(step, request("POST", "/api/chat", CHAT))
    step.wait(2)
    told(step, response_with_length(LAST))
    step.wait(3)
    told(step, response_with_length(LAST))
    assert answer_of(first).header("Server-Timing") == "queue;dur=0.0, target;dur=2000.0"
    assert answer_of(second).header("Server-Timing") == "queue;dur=2000.0, target;dur=3000.0"


def test_foremans_own_answers_have_a_date_and_no_name_of_a_server(step: InMemoryForeman) -> None:
    answer = step.ask_once(request("GET", "/healthz"))
    assert answer.header("Date") == "Fri, 15 Jan 2027 08:16:40 GMT"
    step.wait(61)
    assert step.ask_once(request("GET", "/healthz")).header("Date") == "Fri, 15 Jan 2027 08:17:41 GMT"
    assert answer.header("Server") is None


def test_the_last_answer_of_a_connection_says_so(step: InMemoryForeman) -> None:
    for last in ("Connection: close", "Connection: Keep-Alive, Close"):
        caller = step.call()
        caller.send(f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{last}\r\n\r\n".encode())
        assert [value for name, value in answer_of(caller, "GET").headers if name == "Connection"] == ["close"]
        assert caller.transport.ended == "end"


# an end before the end


def test_ndjson_that_breaks_off_ends_with_an_error_line(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/chat", CHAT))
    told(step, head("application/x-ndjson"), chunk(LINE), breaks=True)
    answer = answer_of(caller)
    assert not answer.torn
    assert answer.chunks[0] == LINE
    assert "broke off" in json.loads(answer.chunks[1])["error"]


def test_events_that_break_off_end_with_an_error_event(step: InMemoryForeman) -> None:
    for path, before in (("/v1/chat/completions", b"data: "), ("/v1/messages", b"event: error\ndata: ")):
        caller = asking(step, request("POST", path, CHAT))
        told(step, head("text/event-stream"), chunk(b"data: {}\n\n"), breaks=True)
        answer = answer_of(caller)
        assert not answer.torn
        assert answer.chunks[1].startswith(before)
        assert b"broke off" in answer.chunks[1]
        caller.disconnect()


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 100"])
def test_what_cannot_say_that_it_broke_off_stays_visibly_unfinished(step: InMemoryForeman, framing: str) -> None:
    caller = asking(step, request("POST", "/api/show", CHAT))
    half = b'{"half":'
    told(step, head("application/json", framing), chunk(half) if "chunked" in framing else half, breaks=True)
    answer = answer_of(caller)
    assert (answer.torn, answer.body) == (True, half)
    assert caller.transport.ended == "end"


def test_what_only_the_connection_could_end_is_reset(step: InMemoryForeman) -> None:
    caller = asking(step, b"POST /api/show HTTP/1.0\r\nContent-Length: 13\r\n\r\n" + CHAT)
    told(step, head("application/json"), chunk(b'{"half":'), breaks=True)
    assert caller.transport.ended == "reset"


def old(path: str, body: bytes = CHAT) -> bytes:
    return b"POST %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body


STREAMS = [
    ("/api/chat", "application/x-ndjson", LINE, b'{"error":'),
    ("/v1/chat/completions", "text/event-stream", b"data: {}\n\n", b'data: {"error":'),
    ("/v1/responses", "text/event-stream", b"data: {}\n\n", b'data: {"error":'),
    ("/v1/messages", "text/event-stream", b"data: {}\n\n", b'event: error\ndata: {"type":"error"'),
]


@pytest.mark.parametrize(("path", "content_type", "piece", "said"), STREAMS)
@pytest.mark.parametrize(
    "how", ["breaks", "lacks its end", "is cancelled", "is half a piece", "is long", "foreman stops"]
)
def test_an_old_client_gets_every_word_and_the_error_and_then_a_proper_end(
    step: InMemoryForeman, path: str, content_type: str, piece: bytes, said: bytes, how: str
) -> None:
    caller = asking(step, old(path))
    told(step, head(content_type), chunk(piece))
    if how == "is half a piece":
        told(step, chunk(piece[:-3]))
    elif how == "is long":
        piece += b"x" * 9_000_000
        told(step, chunk(b"x" * 9_000_000))
    if how == "lacks its end":
        told(step, b"0\r\n\r\n")
    elif how == "is cancelled":
        assert step.service.inference.cancel(step.service.target.gate.running[0].ticket.id, lambda _: True)
    elif how == "foreman stops":
        step.service.inference.stop()
    else:
        told(step, breaks=True)
    step.turn()
    answer = answer_of(caller)
    assert (answer.framing, caller.transport.ended) == ("close", "end")
    assert answer.body.startswith(piece)
    assert answer.body[len(piece) :].lstrip(b"\n").startswith(said)


@pytest.mark.parametrize(("path", "content_type", "piece", "said"), STREAMS)
def test_an_old_client_that_waited_gets_the_targets_error_and_then_a_proper_end(
    step: InMemoryForeman, path: str, content_type: str, piece: bytes, said: bytes
) -> None:
    caller = asking(step, old(path, b'{"model":"m","stream":true,"messages":[{}]}'))
    step.wait(6)
    told(step, response_with_length(b'{"error":"the runner died"}', "500 Internal Server Error"))
    answer = answer_of(caller)
    assert (answer.status, caller.transport.ended) == (200, "end")
    assert said in answer.body
    assert b"the runner died" in answer.body


def test_a_reader_that_takes_nothing_is_cut_off_whatever_it_reads(step: InMemoryForeman) -> None:
    for sent in (request("POST", "/api/chat", CHAT), old("/api/chat")):
        caller = asking(step, sent)
        caller.transport.reads = False
        told(step, head("application/x-ndjson"), *[chunk(LINE * 100)] * 4000)
        step.wait(61)
        assert caller.transport.ended == "reset"


def test_a_line_that_was_half_sent_is_not_continued_by_an_error(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/chat", CHAT))
    long = b'{"response":"' + b"a" * 9_000_000  # longer than any line is kept
    told(step, head("application/x-ndjson"), chunk(long), breaks=True)
    answer = answer_of(caller)
    assert answer.torn
    assert b"error" not in answer.body


def test_nothing_is_written_to_a_client_that_has_left(step: InMemoryForeman) -> None:
    caller = asking(step, request("POST", "/api/pull", CHAT))
    told(step, head("application/x-ndjson"), chunk(LINE))
    before = caller.received
    caller.disconnect()
    told(step, chunk(LINE), chunk(LAST), b"0\r\n\r\n")
    assert caller.received == before


# whose errors


@pytest.mark.parametrize(
    ("path", "keys"),
    [("/api/chat", ["error"]), ("/v1/models", ["error"]), ("/v1/messages", ["type", "error", "request_id"])],
)
def test_a_refusal_speaks_the_family_of_its_route(step: InMemoryForeman, path: str, keys: list[str]) -> None:
    for spoiled in (
        f"POST {path} HTTP/1.1\r\n\r\n",
        f"POST {path} HTTP/1.1\r\nHost : x\r\n\r\n",
        f"POST http://localhost{path} HTTP/1.1\r\nA\r\n\r\n",
    ):
        value = json.loads(step.ask_once(spoiled.encode()).body)
        assert list(value) == keys
        assert isinstance(value["error"], str) == (path == "/api/chat")


def test_each_refusal_has_an_id_of_its_own(step: InMemoryForeman) -> None:
    spoiled = b"POST /v1/messages HTTP/1.1\r\n\r\n"
    ids = {json.loads(step.ask_once(spoiled).body)["request_id"] for _ in range(5)}
    assert len(ids) == 5


# where it came from


def test_a_client_on_a_unix_socket_has_no_address(step: InMemoryForeman) -> None:
    caller = step.call()
    with (
        patch.object(caller.transport, "getHost", lambda: UNIXAddress(b"/run/foreman.sock")),
        patch.object(caller.transport, "getPeer", lambda: UNIXAddress(None)),
    ):
        chat = request("POST", "/api/chat", CHAT, host="localhost")
        caller.send(chat + request("GET", "/healthz"))
        assert [answer.status for answer in caller.answers()] == [200, 200]
        with capturedLogs() as events:
            caller.send(chat)
            step.wait(1)
    assert any("caller=local" in formatEvent(event) for event in events)
