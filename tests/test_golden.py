"""Every recorded exchange through foreman: what the client gets is what a direct connection gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import golden
import pytest
import pytest_twisted
from bench import RunningForeman, listen, port_of, start_foreman
from wire import Response, ask

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
#: What foreman adds on purpose (README, "What is different").
ADDED = {"server-timing", "x-accel-buffering", "cache-control"}


class Recorded:
    """A foreman in front of a target that answers with recordings."""

    def __init__(self, foreman: RunningForeman, target: golden.ReplayTarget) -> None:
        self.foreman = foreman
        self.target = target

    async def ask(self, recording: dict[str, Any]) -> Response:
        self.target.recording = recording
        self.target.seen.clear()
        return await ask(self.foreman.port, golden.request_bytes(recording), recording["request"]["method"])


@pytest_twisted.async_yield_fixture
async def recorded() -> AsyncIterator[Recorded]:
    target = golden.ReplayTarget()
    listening = listen(target)
    foreman = await start_foreman(port_of(listening))
    yield Recorded(foreman, target)
    await foreman.stop()
    await listening.stopListening()


def end_to_end(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in headers if name.lower() not in HOP_BY_HOP | ADDED)


@pytest.mark.parametrize("name", golden.names())
@pytest_twisted.ensureDeferred
async def test_a_recorded_exchange_is_the_same_through_foreman(recorded: Recorded, name: str) -> None:
    recording = golden.load(name)
    heard = recording["response"]
    response = await recorded.ask(recording)
    assert response.status == heard["status"]
    print(response.body[:300])
    assert end_to_end(response.headers) == end_to_end(heard["headers"])
    assert response.framing == heard["framing"]
    assert response.body == golden.as_bytes(heard["body"])
    if response.framing == "chunked" and "ndjson" in (response.header("Content-Type") or ""):
        assert response.chunks == [golden.as_bytes(text) for _, text in heard["chunks"]]
