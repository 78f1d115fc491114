"""A load that somebody else wants outlives the one who began it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_twisted
from attrs import define
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater

from foreman.simulator import Settings, Simulator
from support.live_foreman import RunningForeman, listen, port_of, reactor, start_foreman
from support.raw_http import RawClient, connect, request


@define
class Loading:
    """A foreman in front of a simulator whose models take a second and a half to load, and half a second for a word."""

    foreman: RunningForeman
    target: Simulator

    async def ask(self, model: str) -> RawClient:
        client = await connect(self.foreman.port, "POST")
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": False,
            "options": {"num_predict": 4},
        }
        client.send(request("POST", "/api/chat", json.dumps(body).encode()))
        await deferLater(reactor, 0.15)
        return client

    def outcomes(self) -> list[str]:
        return [seen.outcome for seen in self.target.requests_for("/api/chat")]


@pytest_twisted.async_yield_fixture
async def loading() -> AsyncIterator[Loading]:
    target = Simulator(reactor, Settings(rate=2, load_time=1.5, models=("llama3.2:3b", "qwen3:8b")))
    listening: Any = listen(target)
    foreman = await start_foreman(port_of(listening))
    yield Loading(foreman, target)
    await foreman.stop()
    await maybeDeferred(listening.stopListening)


@pytest_twisted.ensureDeferred
async def test_a_load_goes_on_for_the_next_in_the_queue_when_its_client_disconnects(loading: Loading) -> None:
    leaver = await loading.ask("llama3.2:3b")
    next_one = await loading.ask("LLAMA3.2:3b")
    leaver.leave()
    await leaver.gone
    await deferLater(reactor, 0.05)
    assert loading.outcomes() == ["open"]
    (turn,) = loading.foreman.service.target.gate.running
    assert turn.kept
    answer = await next_one.done
    assert (answer.status, json.loads(answer.body)["done"]) == (200, True)
    assert loading.outcomes() == ["left", "answered"]
    assert json.loads(answer.body)["load_duration"] < 1_000_000_000
    assert loading.target.max_running == 1
    next_one.leave()
    await next_one.gone


@pytest_twisted.ensureDeferred
async def test_a_load_that_no_request_needs_ends_with_its_client(loading: Loading) -> None:
    leaver = await loading.ask("llama3.2:3b")
    other = await loading.ask("qwen3:8b")
    leaver.leave()
    await leaver.gone
    await deferLater(reactor, 0.1)
    assert loading.outcomes() == ["left", "open"]
    assert (await other.done).status == 200
    other.leave()
    await other.gone


@pytest_twisted.ensureDeferred
async def test_stopping_ends_a_load_that_went_on(loading: Loading) -> None:
    leaver = await loading.ask("llama3.2:3b")
    waiter = await loading.ask("llama3.2:3b")
    leaver.leave()
    await leaver.gone
    await loading.foreman.stop()
    assert (await waiter.done).status == 503
    await deferLater(reactor, 0.05)
    assert loading.outcomes() == ["left"]


@pytest_twisted.ensureDeferred
async def test_a_load_that_nobody_wants_any_more_ends_too(loading: Loading) -> None:
    loading.target.misbehave("no-headers", times=1)
    responders = [await loading.ask("llama3.2:3b") for _ in range(2)]
    for responder in responders:
        responder.leave()
        await responder.gone
    await deferLater(reactor, 1.2)
    assert loading.outcomes() == ["left"]
    assert loading.foreman.service.target.gate.running == []
