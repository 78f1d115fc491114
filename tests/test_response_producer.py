"""Large answers of foreman's own: whole for who reads them, a piece in memory for who does not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from foreman.web.openapi.document import BYTES
from foreman.web.server.response_producer import PIECE_SIZE
from support.in_memory_foreman import InMemoryForeman, in_memory_foreman
from support.raw_http import request

QUESTION = request("GET", "/openapi.json")


@pytest.fixture
def step() -> Iterator[InMemoryForeman]:
    with in_memory_foreman(stall_timeout="60s") as step:
        yield step


def test_a_reader_gets_all_of_it_and_may_ask_again(step: InMemoryForeman) -> None:
    assert len(BYTES) > 2 * PIECE_SIZE
    caller = step.call()
    for _ in range(2):
        caller.transport.sent.clear()
        caller.send(QUESTION)
        head, _, body = bytes(caller.transport.sent).partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(BYTES) in head
        assert body == BYTES
    assert caller.transport.ended == ""


def test_a_slow_reader_gets_all_of_it_in_the_end(step: InMemoryForeman) -> None:
    caller = step.call()
    caller.transport.reads = False
    caller.send(QUESTION)
    while len(caller.transport.sent) < len(BYTES):
        caller.transport.take(4000)
        step.wait(5)
    caller.transport.take(4000)
    assert bytes(caller.transport.sent).endswith(BYTES)
    assert caller.transport.ended == ""


def test_who_takes_nothing_holds_a_piece_and_is_cut_off(step: InMemoryForeman) -> None:
    caller = step.call()
    caller.transport.reads = False
    caller.send(QUESTION)
    assert caller.transport.max_buffered <= 3 * PIECE_SIZE
    step.wait(59)
    assert caller.transport.ended == ""
    step.wait(3, 1)
    assert caller.transport.ended == "reset"
    assert len(step.service.connections.open) == 0


def test_who_leaves_in_the_middle_leaves_nothing_behind(step: InMemoryForeman) -> None:
    caller = step.call()
    caller.transport.reads = False
    caller.send(QUESTION)
    caller.disconnect()
    step.wait(1)
    assert len(step.service.connections.open) == 0


def test_a_list_that_fits_is_sent_at_once_and_head_has_no_body(step: InMemoryForeman) -> None:
    answer = step.ask_once(request("GET", "/api/tags"), "GET")
    assert json.loads(answer.body)["models"]
    head = step.ask_once(request("HEAD", "/openapi.json"), "HEAD")
    assert (head.body, head.header("Content-Length")) == (b"", str(len(BYTES)))
