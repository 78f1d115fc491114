"""Every recorded exchange through foreman: what the client gets is what a direct connection gives."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred

from foreman.web.server.origins import EXTRA_REQUEST_HEADERS
from support import recordings
from support.differences import ADDED_HEADERS, DIFFERENT_ANSWERS, UNMARKED
from support.live_foreman import RunningForeman, listen, port_of, start_foreman
from support.raw_http import Response, ask

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


class Recorded:
    """A foreman in front of a target that answers with recordings."""

    def __init__(self, foreman: RunningForeman, target: recordings.ReplayTarget) -> None:
        self.foreman = foreman
        self.target = target

    async def ask(self, recording: dict[str, Any]) -> Response:
        self.target.recording = recording
        if recording["request"]["path"] in ("/api/tags", "/api/ps"):
            await self.foreman.service.target.inventory.refresh()
        self.target.seen.clear()
        return await ask(self.foreman.port, recordings.request_bytes(recording), recording["request"]["method"])


@pytest_twisted.async_yield_fixture
async def recorded() -> AsyncIterator[Recorded]:
    target = recordings.ReplayTarget()
    listening = listen(target)
    foreman = await start_foreman(port_of(listening))
    yield Recorded(foreman, target)
    await foreman.stop()
    await maybeDeferred(listening.stopListening)


def end_to_end(headers: list[tuple[str, str]], *, own: bool) -> list[tuple[str, str]]:
    # An answer of foreman's own has the date of today, and an id of its own in Anthropic's shape.
    left_out = HOP_BY_HOP | ADDED_HEADERS | ({"date"} if own else set())
    more = "," + b",".join(EXTRA_REQUEST_HEADERS).decode()  # what foreman allows a page to send besides
    return sorted((name.lower(), value.removesuffix(more)) for name, value in headers if name.lower() not in left_out)


def without_id(body: bytes, *, own: bool) -> bytes:
    return re.sub(rb"req_[0-9a-f]{24}", b"req_", body) if own else body


#: Whoever recorded these had left before an answer began.
LEFT = [name for name in recordings.everything() if recordings.load(name)["response"]["status"] is None]


def different(name: str) -> tuple[int, str] | None:
    """What foreman answers on purpose instead of ``version/name``, and why; None where it is the same."""
    return DIFFERENT_ANSWERS.get(name) or DIFFERENT_ANSWERS.get(name.partition("/")[2])


@pytest.mark.parametrize("name", [name for name in recordings.everything() if not different(name) and name not in LEFT])
@pytest_twisted.ensureDeferred
async def test_a_recorded_exchange_is_the_same_through_foreman(recorded: Recorded, name: str) -> None:
    recording = recordings.load(name)
    heard = recording["response"]
    response = await recorded.ask(recording)
    own = not recorded.target.seen
    assert (response.status, response.framing) == (heard["status"], heard["framing"])
    assert without_id(response.body, own=own) == without_id(recordings.as_bytes(heard["body"]), own=own)
    assert end_to_end(response.headers, own=own) == end_to_end(heard["headers"], own=own)
    assert bool(response.interim) == bool(heard.get("interim"))
    if response.framing == "chunked" and "ndjson" in (response.header("Content-Type") or ""):
        assert response.chunks == [recordings.as_bytes(text) for _, text in heard["chunks"]]


@pytest.mark.parametrize("name", [name for name in LEFT if recordings.load(name)["response"]["framing"] == "none"])
@pytest_twisted.ensureDeferred
async def test_a_target_that_closes_without_a_word_is_told(recorded: Recorded, name: str) -> None:
    response = await recorded.ask(recordings.load(name))
    assert response.status == 502
    assert len(recorded.target.seen) == 1


@pytest.mark.parametrize("name", sorted(filter(different, recordings.everything())))
@pytest_twisted.ensureDeferred
async def test_what_is_different_on_purpose_is_an_answer_of_its_own(recorded: Recorded, name: str) -> None:
    expected = different(name)
    assert expected is not None
    status, why = expected
    recording = recordings.load(name)
    if name.endswith("/wire-big-header"):
        recording["request"]["headers"][1][1] = "a" * 1_100_000
    response = await recorded.ask(recording)
    assert response.status == status
    if why == UNMARKED:
        heard = recordings.as_bytes(recording["response"]["body"])
        assert (response.framing, response.torn) == ("chunked", False)
        assert response.body.startswith(heard)
        added = response.body[len(heard) :]
        assert "error" in json.loads(added.removeprefix(b"event: error\n").removeprefix(b"data: "))
        assert added.startswith(b"event: error\n") == ("messages" in name)
        in_lines = name.endswith(("/chat-stream-repetition", "/generate-stream-repetition"))
        assert added.endswith(b"}\n" if in_lines else b"}\n\n")
    elif "midstream" in name:
        lines = response.body.splitlines()
        assert [json.loads(line)["done"] for line in lines[:-1]] == [False] * (len(lines) - 1)
        assert "error" in json.loads(lines[-1])
    elif status != 301:
        assert recorded.target.seen == []
        assert json.loads(response.body)["error"]


@pytest.mark.parametrize(
    "name", ["chat-stream", "chat-chunked-request", "v1-chat-zstd-request", "path-query", "v1-model-get-encoded-tag"]
)
@pytest_twisted.ensureDeferred
async def test_the_target_gets_the_request_as_the_client_wrote_it(recorded: Recorded, name: str) -> None:
    recording = recordings.load(name)
    await recorded.ask(recording)
    ((head, body),) = recorded.target.seen
    said = recording["request"]
    request_line, *headers = head.decode("latin-1").split("\r\n")
    assert request_line == f"{said['method']} {said['path']} HTTP/1.1"
    assert body == recordings.as_bytes(said["body"])
    crossing = [f"{name}: {value}" for name, value in said["headers"] if name in ("Content-Type", "Content-Encoding")]
    assert [header for header in headers if header in crossing] == crossing
    assert "Accept-Encoding: identity" in headers
    if body:
        assert f"Content-Length: {len(body)}" in headers


@pytest.mark.parametrize("older", recordings.VERSIONS[1:])
def test_an_older_version_has_each_exchange_once(older: str) -> None:
    same, own = recordings.unchanged(older), recordings.names(older)
    assert not set(same) & set(own)
    assert len(same) + len(own) == 362
    assert {*same, *own} <= set(recordings.names())


def test_nothing_is_different_from_a_recording_that_is_not_there() -> None:
    assert {*recordings.names(), *recordings.everything()} >= DIFFERENT_ANSWERS.keys()
