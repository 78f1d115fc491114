"""With FOREMAN_WAIT_NOTICE=0 an answer is a direct connection's to the byte, however long it has waited."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

import pytest
import pytest_twisted
from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from foreman.simulator import Settings, Simulator
from support.live_foreman import RunningForeman, listen, port_of, reactor, start_foreman
from support.raw_http import RawClient, Response, ask, connect, request

#: What foreman adds to answers of the target on purpose, also where nobody waits; and what is of one connection only.
NOT_END_TO_END = {"server-timing", "x-accel-buffering", "cache-control", "connection"}

#: Several times the notice that would be given if notices were not off, in seconds.
WAITS = 0.2

ROUTES = ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages", "/v1/responses"]


class Standstill:
    """The reactor's timers, and a time that stands still, so that the same answer can be given twice."""

    def seconds(self) -> float:
        return 1000.0

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@frozen
class Both:
    """A foreman, and the target that it stands in front of."""

    foreman: RunningForeman
    target: Simulator
    target_port: int

    def answer(self, port: int, data: bytes) -> Deferred[Response]:
        return Deferred.fromCoroutine(ask(port, data, "POST"))

    async def has_the_turn(self) -> RawClient:
        """A chat that the target never answers, of a model that nobody else wants: a load would go on for them."""
        self.target.misbehave("no-headers")
        client = await connect(self.foreman.port, "POST")
        client.send(asking("/api/chat", stream=True, model="qwen3:8b"))
        await deferLater(reactor, 0.05)
        return client


@pytest_twisted.async_yield_fixture
async def both() -> AsyncIterator[Both]:
    target = Simulator(cast("IReactorTime", Standstill()), Settings())
    listening = listen(target)
    foreman = await start_foreman(port_of(listening), wait_notice="0", wait_notice_unary="50ms")
    yield Both(foreman, target, port_of(listening))
    await foreman.stop()
    await maybeDeferred(listening.stopListening)


def asking(path: str, *, stream: bool, model: str = "llama3.2:3b") -> bytes:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    if path == "/api/generate":
        said = {"prompt": "hello"}
    elif path == "/v1/responses":
        said = {"input": "hello"}
    limits = {"options": {"num_predict": 20}} if path.startswith("/api/") else {"max_tokens": 20}
    body = json.dumps({"model": model, **said, **limits, "stream": stream}).encode()
    return request("POST", path, body, [("Content-Type", "application/json")])


def seen(answer: Response) -> dict[str, Any]:
    """What the client of an answer could tell it by; events may share a chunk, as they came."""
    lines = "event-stream" not in (answer.header("Content-Type") or "")
    headers = [(name, value) for name, value in answer.headers if name.lower() not in NOT_END_TO_END]
    return {
        "status": (answer.version, answer.status, answer.interim),
        "headers": sorted(headers),
        "framing": (answer.framing, answer.torn),
        "chunks": answer.chunks if lines else None,
        "body": answer.body,
    }


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "one piece"])
@pytest.mark.parametrize("path", ROUTES)
@pytest_twisted.ensureDeferred
async def test_what_has_waited_is_what_a_direct_connection_gives(both: Both, path: str, stream: bool) -> None:
    data = asking(path, stream=stream)
    await both.answer(both.target_port, data)  # the model is loaded
    both.target.state.random = Random(1)
    direct = await both.answer(both.target_port, data)
    running = await both.has_the_turn()
    waiting = both.answer(both.foreman.port, data)
    await deferLater(reactor, WAITS)
    assert len(both.foreman.service.target.gate.waiting) == 1
    both.target.state.random = Random(1)
    running.leave()
    await running.gone
    through = await waiting
    assert direct.status == 200
    assert len(direct.body) > 100
    assert seen(through) == seen(direct)


@pytest_twisted.ensureDeferred
async def test_a_refusal_after_a_long_wait_has_its_own_status(both: Both) -> None:
    data = asking("/api/chat", stream=False, model="tiny-bad")
    direct = await both.answer(both.target_port, data)
    running = await both.has_the_turn()
    waiting = both.answer(both.foreman.port, data)
    await deferLater(reactor, WAITS)
    running.leave()
    await running.gone
    assert direct.status == 500
    assert seen(await waiting) == seen(direct)
