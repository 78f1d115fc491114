"""Which bytes of a request go to the target."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from foreman.web.server.body import MAX_IN_MEMORY
from support.in_memory_foreman import InMemoryForeman, in_memory_foreman
from support.raw_http import request

NATIVE = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
OBJECT = b'{"model":"m","messages":[{"role":"user","content":"}\\""}],"input":"a","prompt":"a"}'
BEHIND = [b"\n", b" " * 400, b"xyz", b'{"model":"m"}', b"\x00", b"\r\n\r\n"]


@pytest.fixture
def step() -> Iterator[InMemoryForeman]:
    with in_memory_foreman() as step:
        yield step


@pytest.mark.parametrize("path", NATIVE)
@pytest.mark.parametrize("behind", BEHIND)
def test_what_follows_the_object_on_a_native_route_stays_here(step: InMemoryForeman, path: str, behind: bytes) -> None:
    step.ask(request("POST", path, OBJECT + behind))
    (heard,) = step.target.requests
    assert (heard.body, heard.named("content-length")) == (OBJECT, [str(len(OBJECT))])


def test_a_body_of_whole_blocks_and_one_newline_ends_with_its_object(step: InMemoryForeman) -> None:
    text = b'{"model":"m","prompt":"' + b"a" * (512 * 8 - 25) + b'"}'
    assert len(text) % 512 == 0
    step.ask(request("POST", "/api/generate", text + b"\n"))
    assert step.target.requests[0].body == text


def test_a_chunked_body_is_cut_too(step: InMemoryForeman) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    step.ask(head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (OBJECT, b"  \n")) + b"0\r\n\r\n")
    assert step.target.requests[0].body == OBJECT


@pytest.mark.parametrize("behind", [b"\n", b"x" * 100_000])
def test_a_body_in_a_file_is_cut_too_in_many_small_steps(step: InMemoryForeman, behind: bytes) -> None:
    text = b'{"model":"m","messages":[{"role":"user","content":"' + b'\\"}' * MAX_IN_MEMORY + b'"}]}'
    caller = step.call()
    caller.send(request("POST", "/api/chat", text + behind))
    for _ in range(200):
        step.turn()
    (heard,) = step.target.requests
    assert (len(heard.body), heard.body == text) == (len(text), True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", OBJECT + b" \n"),
        ("/v1/embeddings", OBJECT + b"xyz"),
        ("/api/show", OBJECT + b" \n"),
        ("/api/pull", OBJECT + b"xyz"),
        ("/api/chat", b'[{"model":"m"}]  '),
        ("/api/chat", b"\xef\xbb\xbf" + OBJECT + b"  "),
        ("/api/chat", b'{"model":"m",]'),
        ("/api/generate", b"  " + OBJECT),
        ("/api/generate", OBJECT),
    ],
)
def test_everything_else_goes_byte_for_byte(step: InMemoryForeman, path: str, body: bytes) -> None:
    step.ask(request("POST", path, body))
    assert step.target.requests[0].body == body


def test_a_client_that_leaves_while_the_end_is_looked_for_is_never_heard_of(step: InMemoryForeman) -> None:
    caller = step.call()
    text = b'{"model":"m","prompt":"' + b"a" * (40 * 65536) + b'"}'
    caller.transport.deliver(request("POST", "/api/generate", text))
    caller.disconnect()
    for _ in range(20):
        step.turn()
    assert step.target.requests == []
    assert len(step.service.connections.open) == 0
