"""Model files on their way to the target: at its pace, kept neither in memory nor on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.testing import StringTransport
from twisted.web.iweb import UNKNOWN_LENGTH

from foreman.web.server.blob_upload import BlobUpload
from support.in_memory_foreman import (
    TRANSPORT_BUFFER,
    InMemoryClient,
    InMemoryForeman,
    in_memory_foreman,
    response_with_length,
)
from support.raw_http import request

PATH = "/api/blobs/sha256:" + "0" * 64
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
MB = 1024 * 1024


@pytest.fixture
def step() -> Iterator[InMemoryForeman]:
    with in_memory_foreman() as step, patch("tempfile.TemporaryFile", side_effect=AssertionError("a copy on the disk")):
        step.target.answer = lambda heard: CREATED if heard.method == "POST" else response_with_length(b'{"models":[]}')
        yield step


def begin(step: InMemoryForeman, size: int | None, *lines: str) -> InMemoryClient:
    """A client that has sent the head of an upload; ``size`` None: in chunks."""
    framing = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    caller = step.call()
    caller.send("\r\n".join([f"POST {PATH} HTTP/1.1", "Host: localhost", framing, *lines, "", ""]).encode())
    return caller


def statuses(caller: InMemoryClient) -> list[int]:
    return [answer.status for answer in caller.answers()]


def body_at(step: InMemoryForeman) -> bytes:
    (conversation,) = step.target.request_connections
    return bytes(conversation.transport.sent).partition(b"\r\n\r\n")[2]


def head_at(step: InMemoryForeman) -> bytes:
    (conversation,) = step.target.request_connections
    return bytes(conversation.transport.sent).partition(b"\r\n\r\n")[0]


# as it came


def test_a_file_goes_on_while_it_arrives(step: InMemoryForeman) -> None:
    caller = begin(step, 30)
    assert f"POST {PATH} HTTP/1.1".encode() in head_at(step)
    for number in range(3):
        caller.send(b"0123456789")
        assert body_at(step) == b"0123456789" * (number + 1)
    assert statuses(caller) == [201]


def test_what_has_a_length_goes_on_with_it(step: InMemoryForeman) -> None:
    caller = begin(step, 5, "Content-Type: application/json")
    caller.send(b"hello")
    head = head_at(step)
    assert b"\r\nContent-Length: 5" in head
    assert b"\r\nContent-Type: application/json" in head
    assert b"Transfer-Encoding" not in head
    assert body_at(step) == b"hello"
    assert statuses(caller) == [201]


def test_what_comes_in_chunks_goes_on_in_chunks(step: InMemoryForeman) -> None:
    caller = begin(step, None)
    caller.send(b"5\r\nhello\r\n")
    caller.send(b"6;x=y\r\n wo")
    caller.send(b"rld\r\n0\r\nX-Sum: 1\r\n\r\n")
    head = head_at(step)
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert [heard.body for heard in step.target.requests] == [b"hello world"]
    assert body_at(step).endswith(b"0\r\n\r\n")
    assert statuses(caller) == [201]


@pytest.mark.parametrize("size", [0, None])
def test_an_empty_file_is_a_file(step: InMemoryForeman, size: int | None) -> None:
    caller = begin(step, size)
    caller.send(b"" if size == 0 else b"0\r\n\r\n")
    assert [heard.body for heard in step.target.requests] == [b""]
    assert statuses(caller) == [201]


def test_a_whole_upload_may_come_at_once_and_another_behind_it(step: InMemoryForeman) -> None:
    caller = step.call()
    caller.send(request("POST", PATH, b"first") + request("POST", PATH, b"second") + request("GET", "/healthz"))
    assert statuses(caller) == [201, 201, 200]
    assert [heard.body for heard in step.target.requests] == [b"first", b"second"]


def test_a_client_that_waits_for_the_word_gets_it_before_its_body(step: InMemoryForeman) -> None:
    caller = begin(step, 5, "Expect: 100-continue")
    assert caller.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    caller.send(b"hello")
    (answer,) = caller.answers()
    assert (answer.interim, answer.status) == ([100], 201)


def test_a_credential_in_front_does_not_change_it(step: InMemoryForeman) -> None:
    caller = step.call()
    caller.send(request("POST", f"/k/abcdefghijklmnop{PATH}", b"hello"))
    assert [(heard.target, heard.body) for heard in step.target.requests] == [(PATH, b"hello")]


# at the target's pace


def test_a_slow_target_slows_the_client_down(step: InMemoryForeman) -> None:
    step.target.reads = False
    size = 10 * MB
    caller = begin(step, size)
    data = bytes(range(256)) * (size // 256)
    caller.transport.deliver(data)
    step.turn()
    (conversation,) = step.target.request_connections
    assert caller.transport.paused
    step.target.reads = True  # but not on this connection
    rounds = 0
    while not statuses(caller):
        conversation.transport.take(TRANSPORT_BUFFER)
        step.turn(2)
        rounds += 1
        assert rounds < 1000
    assert statuses(caller) == [201]
    assert body_at(step) == data
    assert conversation.transport.max_buffered < 3 * TRANSPORT_BUFFER
    assert rounds > 50


def test_nothing_is_taken_from_the_client_before_the_target_is_there(step: InMemoryForeman) -> None:
    step.target.delays_connections = True
    caller = begin(step, 4 * TRANSPORT_BUFFER)
    caller.transport.deliver(b"x" * 4 * TRANSPORT_BUFFER)
    step.turn()
    assert caller.transport.paused
    step.target.complete_connections()
    step.turn()
    assert statuses(caller) == [201]
    assert len(body_at(step)) == 4 * TRANSPORT_BUFFER


@pytest.mark.parametrize("size", [5, None])
def test_a_file_that_is_whole_before_the_target_is_there_goes_on_then(step: InMemoryForeman, size: int | None) -> None:
    step.target.delays_connections = True
    caller = begin(step, size)
    caller.send(b"hello" if size else b"5\r\nhello\r\n0\r\n\r\n")
    step.target.complete_connections()
    step.turn()
    assert [heard.body for heard in step.target.requests] == [b"hello"]
    assert statuses(caller) == [201]


def test_a_long_answer_in_the_meantime_does_not_undo_the_pause(step: InMemoryForeman) -> None:
    """The client's transport resumes reading when the client has taken an answer; the target may still be full."""
    step.target.reads = False
    caller = begin(step, 10 * MB)
    caller.transport.deliver(b"x" * 10 * MB)
    step.turn()
    caller.transport.protocol.resumeProducing()
    step.turn()
    assert caller.transport.paused
    (conversation,) = step.target.request_connections
    assert conversation.transport.max_buffered < 4 * TRANSPORT_BUFFER
    caller.disconnect(reset=True)


# an end before the end


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
def test_an_early_answer_of_the_target_is_seen_and_the_rest_dropped(step: InMemoryForeman, status: str) -> None:
    caller = begin(step, 100 * MB)
    caller.send(b"x" * MB)
    (conversation,) = step.target.request_connections
    conversation.transport.deliver(response_with_length(b'{"error":"enough"}', status))
    step.turn()
    (answer,) = caller.answers()
    assert (answer.status, answer.body, answer.header("Connection")) == (
        int(status[:3]),
        b'{"error":"enough"}',
        "close",
    )
    assert conversation.transport.lost
    assert caller.transport.half_closed
    seen = len(conversation.transport.sent)
    for _ in range(10):
        caller.send(b"x" * MB)
    assert not caller.transport.lost
    assert len(conversation.transport.sent) == seen
    step.wait(4)
    assert caller.transport.lost


def test_an_early_answer_reaches_a_client_that_is_held_up(step: InMemoryForeman) -> None:
    step.target.reads = False
    caller = begin(step, 10 * MB)
    caller.transport.deliver(b"x" * 10 * MB)
    step.turn()
    step.target.request_connections[0].transport.deliver(response_with_length(b"{}"))
    step.turn()
    assert statuses(caller) == [200]
    assert not caller.transport.paused


def test_what_follows_an_early_answer_is_no_request(step: InMemoryForeman) -> None:
    caller = begin(step, 1000)
    step.target.request_connections[0].transport.deliver(response_with_length(b"{}"))
    step.turn()
    caller.send(request("GET", "/api/delete"))
    assert statuses(caller) == [200]
    assert len(step.target.request_connections) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_takes_the_connection_to_the_target_with_it(step: InMemoryForeman, reset: bool) -> None:
    for size in (1000, None):
        step.target.connections.clear()
        caller = begin(step, size)
        caller.send(b"x" * 100 if size else b"5\r\nhello\r\n")
        caller.disconnect(reset=reset)
        (conversation,) = step.target.request_connections
        assert conversation.transport.ended == "reset"
        assert conversation.read() is None


def test_a_client_that_leaves_before_the_target_is_there_is_forgotten(step: InMemoryForeman) -> None:
    step.target.delays_connections = True
    caller = begin(step, 1000)
    caller.disconnect()
    step.target.complete_connections()
    step.turn()
    assert step.target.request_connections == []


def test_a_target_that_breaks_off_is_told_at_once(step: InMemoryForeman) -> None:
    caller = begin(step, 100 * MB)
    caller.send(b"x" * MB)
    step.target.request_connections[0].transport.disconnect()
    step.turn()
    (answer,) = caller.answers()
    assert (answer.status, answer.header("Connection")) == (502, "close")
    caller.send(b"x" * MB)
    step.wait(4)
    assert caller.transport.lost


def test_a_target_that_is_away_is_told_before_the_body(step: InMemoryForeman) -> None:
    step.target.refuses_connections = True
    caller = begin(step, 100 * MB)
    (answer,) = caller.answers()
    assert (answer.status, answer.header("Connection")) == (502, "close")
    caller.send(b"x" * MB)
    step.wait(4)
    assert caller.transport.lost


def test_a_spoiled_chunk_is_refused_and_the_target_sees_no_end(step: InMemoryForeman) -> None:
    caller = begin(step, None)
    caller.send(b"5\r\nhello\r\nxyz\r\n")
    (answer,) = caller.answers()
    assert (answer.status, answer.header("Connection")) == (400, "close")
    (conversation,) = step.target.request_connections
    assert (conversation.transport.ended, conversation.read()) == ("reset", None)


def test_a_chunk_that_is_spoiled_while_the_target_answers_cuts_the_connection(step: InMemoryForeman) -> None:
    caller = begin(step, None)
    step.target.request_connections[0].transport.deliver(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    step.turn()
    caller.send(b"xyz\r\n")
    assert caller.transport.ended == "reset"
    assert step.target.request_connections[0].transport.ended == "reset"


# the producer itself


def test_it_tells_its_length() -> None:
    assert BlobUpload(StringTransport(), 5).length == 5
    assert BlobUpload(StringTransport(), None).length is UNKNOWN_LENGTH


def test_what_came_before_the_target_was_there_is_not_lost() -> None:
    client, target = StringTransport(), StringTransport()
    upload = BlobUpload(client, 10)
    upload.feed(b"01234")
    assert client.producerState == "paused"
    sent = upload.startProducing(target)
    assert (target.value(), client.producerState) == (b"01234", "producing")
    upload.feed(b"56789")
    upload.end()
    assert (target.value(), target.producer) == (b"0123456789", None)
    assert sent.called


def test_it_remembers_that_the_target_took_its_time() -> None:
    upload = BlobUpload(StringTransport(), 10)
    upload.startProducing(StringTransport())
    assert not upload.was_paused()
    upload.pauseProducing()
    upload.resumeProducing()
    assert upload.was_paused()
    assert not upload.was_paused()
    upload.pauseProducing()
    assert upload.was_paused()
    assert upload.was_paused()


def test_cancelled_it_takes_nothing_more_and_lets_the_client_go_on() -> None:
    client, target = StringTransport(), StringTransport()
    upload = BlobUpload(client, 10)
    sent = upload.startProducing(target)
    upload.pauseProducing()
    failures: list[Any] = []
    sent.addErrback(failures.append)
    sent.cancel()
    upload.feed(b"x")
    upload.end()
    assert (target.value(), target.producer, client.producerState) == (b"", None, "producing")
    assert failures[0].check(CancelledError)
