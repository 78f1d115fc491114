"""foreman in front of itself, or of one that is in front of it: a request that comes back is known and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from support.in_memory_foreman import InMemoryForeman, InMemoryTarget, InMemoryTransport, in_memory_foreman
from support.raw_http import Response, request

CHAT = b'{"model":"m","stream":false,"messages":[{"role":"user","content":"hi"}]}'
CAME_BACK = "has come back to the foreman that sent it"


def joined(factory: Any, its_clock: Clock, to: InMemoryForeman) -> Any:
    """A connection of foreman to the door of a foreman."""
    protocol, connection = factory.buildProtocol(None), to.service.connections.buildProtocol(None)
    near, far = InMemoryTransport(its_clock, protocol), InMemoryTransport(to.clock, connection)

    def pass_on(source: InMemoryTransport, goal: InMemoryTransport) -> None:
        data = bytes(source.sent)
        source.sent.clear()
        if data:
            goal.clock.callLater(0, goal.deliver, data)

    near.on_write = lambda: pass_on(near, far)
    far.on_write = lambda: pass_on(far, near)
    protocol.makeConnection(near)
    connection.makeConnection(far)
    return protocol


@contextmanager
def leading(*ways: tuple[InMemoryForeman, InMemoryForeman]) -> Iterator[None]:
    """Let the target of the first of each pair be the second, which has listed its models before."""
    steps = {id(near.target): (near, far) for near, far in ways}

    def connect(target: InMemoryTarget, factory: Any) -> Any:
        near, far = steps[id(target)]
        return succeed(joined(factory, near.clock, far))

    with patch.object(InMemoryTarget, "connect", connect):
        yield


def named(step: InMemoryForeman, mark: bytes) -> InMemoryForeman:
    """Give a foreman another name than the other one of the test has."""
    step.service.connections.admission.mark = step.service.target.client._mark = mark
    return step


def asked(data: bytes, method: str, first: InMemoryForeman, *others: InMemoryForeman) -> tuple[Response, int]:
    """The answer to a request, and how many connections there were in all."""
    caller = first.call()
    caller.send(data)
    for _ in range(20):
        for step in (first, *others):
            step.turn(3)
    (answer,) = caller.answers(method)
    return answer, sum(len(step.service.connections.open) for step in (first, *others))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/version", b""),
        ("POST", "/api/chat", CHAT),
        ("POST", "/api/embed", b'{"model":"m","input":"x"}'),
        ("POST", "/api/show", b'{"model":"m"}'),
        ("POST", "/api/pull", b'{"model":"m"}'),
        ("POST", "/api/blobs/sha256:00", b"x"),
        ("POST", "/v1/messages", b'{"model":"m","max_tokens":1,"messages":[]}'),
        ("GET", "/v1/models", b""),
    ],
)
def test_a_request_that_comes_back_at_once_is_refused(method: str, path: str, body: bytes) -> None:
    with in_memory_foreman() as step, leading((step, step)):
        answer, connections = asked(request(method, path, body), method, step)
    assert answer.status == 508
    assert connections <= 2
    error = json.loads(answer.body)["error"]
    assert CAME_BACK in (error["message"] if path.startswith("/v1/") else error)


@pytest.mark.parametrize(("method", "path", "body"), [("GET", "/api/version", b""), ("POST", "/api/chat", CHAT)])
def test_a_circle_of_two_foremen_ends_where_it_began(method: str, path: str, body: bytes) -> None:
    with in_memory_foreman() as one, in_memory_foreman() as other, leading((one, other), (other, one)):
        named(other, b"foreman-the-other")
        answer, connections = asked(request(method, path, body), method, one, other)
    assert answer.status == 508
    assert connections <= 3
    assert CAME_BACK in json.loads(answer.body)["error"]


def test_a_foreman_in_front_of_another_is_no_circle() -> None:
    with in_memory_foreman() as front, in_memory_foreman() as back:
        connect = InMemoryTarget.connect
        named(back, b"foreman-the-other")

        def to_the_other(target: InMemoryTarget, factory: Any) -> Any:
            return succeed(joined(factory, front.clock, back)) if target is front.target else connect(target, factory)

        with patch.object(InMemoryTarget, "connect", to_the_other):
            answer, _ = asked(request("POST", "/api/chat", CHAT, [("Via", "1.0 fred")]), "POST", front, back)
    assert answer.status == 200
    ((via,),) = [one.named("via") for one in back.target.requests]
    first, second, third = via.split(", ")
    assert (first, third) == ("1.0 fred", "1.1 foreman-the-other")
    assert second.startswith("1.1 foreman-0000")


def test_foremans_own_questions_end_too() -> None:
    with in_memory_foreman() as step, leading((step, step)):
        step.service.target.inventory.refresh()
        step.wait(2)
        degraded = step.service.target.inventory.degraded
        assert degraded is not None
        assert CAME_BACK in degraded.detail
        assert len(step.service.connections.open) <= 2


def test_the_version_in_which_a_client_asks_stands_in_via() -> None:
    with in_memory_foreman() as step:
        step.ask(b"GET /api/version HTTP/1.0\r\nHost: localhost\r\n\r\n")
        ((via,),) = [one.named("via") for one in step.target.requests]
    assert via.startswith("1.0 foreman-")


def test_a_circle_is_told_before_a_token_is_asked_for() -> None:
    with in_memory_foreman(auth_token="a-token-of-this-foreman") as step, leading((step, step)):
        headers = [("Authorization", "Bearer a-token-of-this-foreman")]
        answer, _ = asked(request("GET", "/api/version", b"", headers), "GET", step)
    assert answer.status == 508
