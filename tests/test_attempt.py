"""Jobs through a whole foreman to a simulator, on real sockets: each endpoint, and whatever goes wrong with an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
import zstandard
from attrs import define
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater

from foreman.jobs.artifacts import ERROR, PARTIAL, RESPONSE, STREAM
from foreman.jobs.job import Job, NewJob
from foreman.simulator import Settings, Simulator
from foreman.simulator.engine.faults import FaultKind
from foreman.store.job_store import JobStore
from support.live_foreman import RunningForeman, artifact_bytes, listen, port_of, reactor, start_foreman
from support.new_jobs import job_for
from support.raw_http import Response, ask, request

CHAT_MODEL = "llama3.2:3b"
CHAT = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "Say <something> & more"}]}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nllama3.2:3b\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
)
#: What differs from one answer to the next.
PASSING = {
    "id", "created", "created_at", "completed_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration",
    "prompt_eval_cached_count", "cached_tokens", "cache_read_input_tokens",
}  # fmt: skip


@define
class Place:
    """A foreman with jobs, and its target."""

    foreman: RunningForeman
    target: Simulator

    @property
    def store(self) -> JobStore:
        return self.foreman.service.store

    async def hand_over(self, *jobs: NewJob) -> list[str]:
        return [one.id for one in await self.store.enqueue(jobs)]

    async def tried(self, id_: str) -> Job:
        """The job when its first try is over."""
        for _ in range(1500):
            job = await self.store.get(id_)
            if job is not None and job.fence and job.state != "running":
                return job
            await deferLater(reactor, 0.005)
        raise AssertionError(f"it is still {job}")

    async def succeeded(self, id_: str) -> Job:
        """The job when it has its answer."""
        while (job := await self.tried(id_)).state != "succeeded":
            await deferLater(reactor, 0.005)
        return job

    async def artifact(self, id_: str, name: str) -> bytes:
        found = await artifact_bytes(self.store, id_, name)
        assert found is not None
        return found

    async def ask(self, path: str, body: bytes, *headers: tuple[str, str]) -> Response:
        return await ask(self.foreman.port, request("POST", path, body, list(headers)), "POST")


@asynccontextmanager
async def placed(tmp_path: Path, target: Mapping[str, Any] | None = None, **variables: str) -> AsyncIterator[Place]:
    simulator = Simulator(reactor, Settings(**(target or {})))
    listening = listen(simulator)
    foreman = await start_foreman(port_of(listening), db_path=str(tmp_path / "jobs.db"), **variables)
    try:
        yield Place(foreman, simulator)
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)


@pytest_twisted.async_yield_fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as made:
        yield made


def settled(value: Any) -> Any:
    """A value without what differs from one answer to the next, the order of members kept."""
    if isinstance(value, dict):
        if "cache_read_input_tokens" in value:  # which is taken out of what the whole prompt has
            value = {**value, "input_tokens": value["input_tokens"] + value["cache_read_input_tokens"]}
        return [(name, None if name in PASSING else settled(member)) for name, member in value.items()]
    return [settled(member) for member in value] if isinstance(value, list) else value


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]
NATIVE = [
    ("/api/chat", CHAT),
    ("/api/chat", {**CHAT, "stream": False}),
    ("/api/chat", {**CHAT, "Stream": None}),
    ("/api/chat", {**CHAT, "model": "tiny-think", "think": True}),
    ("/api/chat", {**CHAT, "model": "tiny-tools", "tools": TOOLS}),
    ("/api/chat", {**CHAT, "logprobs": True, "top_logprobs": 2, "options": {"num_predict": 3}}),
    ("/api/chat", {**CHAT, "format": "json"}),
    ("/api/generate", {"model": "llama3.2:3b", "prompt": "Hello"}),
    ("/api/generate", {"model": "tiny-think", "prompt": "Hello", "think": True}),
    ("/api/generate", {"model": "llama3.2:3b", "prompt": "Hello", "logprobs": True, "options": {"num_predict": 3}}),
]
OTHERS = [
    ("/api/chat", {"model": "llama3.2:3b"}),  # only loads, which is no stream
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"model": "llama3.2:3b", "prompt": "Hello"}),
    ("/v1/responses", {"model": "llama3.2:3b", "input": "Hello"}),
    ("/v1/responses", {"model": "llama3.2:3b", "input": "Hello", "stream": True}),
    ("/v1/messages", {**CHAT, "max_tokens": 20}),
    ("/api/embed", {"model": "nomic-embed-text", "input": ["a", "b"]}),
    ("/api/embeddings", {"model": "nomic-embed-text", "prompt": "a"}),
    ("/v1/embeddings", {"model": "nomic-embed-text", "input": "a"}),
]


@pytest.mark.parametrize(("endpoint", "payload"), [*NATIVE, *OTHERS])
@pytest_twisted.ensureDeferred
async def test_the_response_is_what_the_endpoint_answers_unstreamed(
    place: Place, endpoint: str, payload: dict[str, Any]
) -> None:
    streams = payload.get("stream", endpoint in {"/api/chat", "/api/generate"})
    (id_,) = await place.hand_over(
        job_for(endpoint, payload["model"], payload=json.dumps(payload).encode(), stream=streams)
    )
    job = await place.tried(id_)
    assert (job.state, job.error) == ("succeeded", None)
    whole = {name: value for name, value in payload.items() if name.lower() not in {"stream", "stream_options"}}
    direct = await place.ask(endpoint, json.dumps({**whole, "stream": False}).encode())
    response = await place.artifact(id_, RESPONSE)
    assert settled(json.loads(response)) == settled(json.loads(direct.body))
    types = {info.name: info.type for info in job.artifacts}
    assert types[RESPONSE] == direct.header("content-type")
    if (endpoint, payload) in NATIVE:
        lines = (await place.artifact(id_, STREAM)).splitlines(keepends=True)
        streamed = await place.ask(endpoint, json.dumps({**whole, "stream": True}).encode())
        assert [settled(json.loads(line)) for line in lines] == [
            settled(json.loads(line)) for line in streamed.body.splitlines()
        ]
        assert types[STREAM] == "application/x-ndjson"
    else:
        assert list(types) == [RESPONSE]


@pytest_twisted.ensureDeferred
async def test_a_form_and_a_compressed_body_go_as_they_came(place: Place) -> None:
    path, kind = "/v1/audio/transcriptions", "multipart/form-data; boundary=x"
    packed = zstandard.compress(json.dumps({**CHAT, "stream": True}).encode())
    form, whole, streamed = await place.hand_over(
        job_for(path, CHAT_MODEL, payload=FORM, content_type=kind),
        job_for("/v1/chat/completions", CHAT_MODEL, payload=packed, content_encoding="zstd", stream=False),
        job_for("/v1/chat/completions", CHAT_MODEL, payload=packed, content_encoding="zstd", stream=True),
    )
    job = await place.tried(form)
    direct = await place.ask(path, FORM, ("Content-Type", kind))
    assert (job.state, direct.status) == ("failed", 400)  # the simulator's models hear nothing
    assert await place.artifact(form, ERROR) == direct.body
    assert place.target.requests_for(path)[0].body == FORM
    await place.tried(streamed)
    seen = place.target.requests_for("/v1/chat/completions")
    assert (seen[0].body, seen[0].header("content-encoding")) == (packed, "zstd")
    assert (json.loads(seen[1].body)["stream"], seen[1].header("content-encoding")) == (False, None)
    assert json.loads(await place.artifact(streamed, RESPONSE))["object"] == "chat.completion"
    assert (await place.tried(whole)).state != "running"


@pytest.mark.parametrize("behind", ["\n", " " * 400, "xyz", '{"stream":false}'])
@pytest.mark.parametrize(("path", "more"), [("/api/chat", CHAT), ("/api/embed", {"model": "tiny-embed", "input": "a"})])
@pytest_twisted.ensureDeferred
async def test_of_a_jobs_body_what_follows_the_object_is_not_sent(
    place: Place, path: str, more: dict[str, Any], behind: str
) -> None:
    for payload in (more, {**more, "stream": False}):
        body = json.dumps(payload)
        response = await place.ask(path, (body + behind).encode(), ("Prefer", "respond-async"))
        assert response.status == 202, response.body
        await place.succeeded(json.loads(response.body)["id"])
        sent = place.target.requests_for(path)[-1]
        assert sent.body.endswith(b"}")
        assert {**json.loads(sent.body), "stream": None} == {**payload, "stream": None}
        assert sent.header("Content-Length") == str(len(sent.body))


@pytest_twisted.ensureDeferred
async def test_the_headers_that_matter_go_along(place: Place) -> None:
    headers = (("anthropic-version", "2023-06-01"), ("User-Agent", "mine/1"))
    (id_,) = await place.hand_over(
        job_for("/v1/messages", CHAT_MODEL, payload=json.dumps({**CHAT, "max_tokens": 3}).encode(), headers=headers)
    )
    await place.tried(id_)
    (seen,) = place.target.requests_for("/v1/messages")
    sent = {name.lower(): value for name, value in seen.headers}
    assert (sent["anthropic-version"], sent["user-agent"]) == ("2023-06-01", "mine/1")
    assert sent["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("what", "more", "error_class", "attempt"),
    [
        ("reset", {"at_byte": 0}, "unreachable", 0),
        ("close", {"at_byte": 10}, "unreachable", 0),
        ("garbage", {}, "unreachable", 0),
        ("bad-status", {}, "unreachable", 0),
        ("two-lengths", {}, "unreachable", 0),
        ("endless-headers", {"pace": 0.0}, "unreachable", 0),
        ("reset", {"at_line": 2}, "truncated", 1),
        ("close", {"at_line": 2}, "truncated", 1),
        ("cut-framing", {"at_line": 2}, "truncated", 1),
        ("close-delimited", {"at_line": 2}, "truncated", 1),
        ("no-done", {}, "truncated", 1),
        ("stall", {"at_line": 2}, "silent", 1),
        ("error-line", {"text": "model runner has unexpectedly stopped"}, "target_error", 1),
        ("5xx", {"status": 500}, "target_error", 1),
        ("5xx", {"status": 502, "text": "<html>bad gateway"}, "target_error", 1),
        ("5xx", {"status": 503}, "busy", 0),
        ("redirect", {}, "unreachable", 0),
        ("close-delimited", {}, None, 1),
        ("early-hints", {"size": 3}, None, 1),
        ("slow-headers", {"pace": 0.0}, None, 1),
        ("long-line", {"size": 9_000_000}, None, 1),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_goes_wrong_with_an_answer_is_told_by_its_class(
    tmp_path: Path, what: str, more: dict[str, Any], error_class: str | None, attempt: int
) -> None:
    async with placed(tmp_path, silence_timeout="1s") as place:
        place.target.misbehave(cast("FaultKind", what), route="/api/chat", **more)
        (id_,) = await place.hand_over(job_for(model="llama3.2:3b", payload=json.dumps(CHAT).encode()))
        job = await place.tried(id_)
        found = None if job.error is None else job.error.error_class
        assert (found, job.attempt) == (error_class, attempt), job.error
        names = [info.name for info in job.artifacts]
        if error_class is None:
            assert (job.state, names) == ("succeeded", [RESPONSE, STREAM])
            assert json.loads(await place.artifact(id_, RESPONSE))["message"]["content"].startswith("You said")
        elif "at_line" in more:
            assert names == [ERROR, PARTIAL]
            assert (await place.artifact(id_, PARTIAL)).count(b"\n") == 2
        (seen,) = place.target.requests_for("/api/chat")
        await deferLater(reactor, 0.02)
        assert seen.outcome != "open"


@pytest_twisted.ensureDeferred
async def test_jobs_that_came_while_nobody_listened_all_run_at_their_first_try(tmp_path: Path) -> None:
    simulator = Simulator(reactor, Settings())
    listening = listen(simulator)
    port = port_of(listening)
    await maybeDeferred(listening.stopListening)
    foreman = await start_foreman(port, db_path=str(tmp_path / "jobs.db"), poll_interval="200ms")
    place = Place(foreman, simulator)
    ids = await place.hand_over(*[job_for(model="llama3.2:3b", payload=json.dumps(CHAT).encode()) for _ in range(20)])
    await deferLater(reactor, 0.5)
    listening = reactor.listenTCP(port, simulator, interface="127.0.0.1")
    try:
        for id_ in ids:
            job = await place.tried(id_)
            assert (job.state, job.attempt, job.error) == ("succeeded", 1, None)
        assert simulator.max_running == 1
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)


@pytest_twisted.ensureDeferred
async def test_stopping_ends_what_runs_and_the_next_start_runs_it_again(tmp_path: Path) -> None:
    payload = json.dumps({**CHAT, "model": "tiny-slow", "options": {"num_predict": 1000}}).encode()
    async with placed(tmp_path, target={"rate": 20}) as place:
        running, waiting = await place.hand_over(
            job_for(model="tiny-slow", payload=payload), job_for(model="llama3.2:3b", payload=json.dumps(CHAT).encode())
        )
        while not place.target.requests_for("/api/chat"):
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.2)
    (seen,) = place.target.requests_for("/api/chat")
    assert seen.outcome == "left"
    async with placed(tmp_path) as place:
        for id_ in (running, waiting):
            job = await place.succeeded(id_)
            assert (job.attempt, job.rescues) == (1, 0)


@pytest_twisted.ensureDeferred
async def test_stopping_lets_what_runs_finish_within_the_drain_time(tmp_path: Path) -> None:
    async with placed(tmp_path, target={"rate": 30}, drain_timeout="20s") as place:
        running, waiting = await place.hand_over(
            *[job_for(model="llama3.2:3b", payload=json.dumps(CHAT).encode()) for _ in range(2)]
        )
        while not place.target.requests_for("/api/chat"):
            await deferLater(reactor, 0.01)
    async with placed(tmp_path, target={"models": ("other",)}) as place:
        first, second = await place.store.get(running), await place.store.get(waiting)
        assert first is not None
        assert second is not None
        assert (first.state, first.fence) == ("succeeded", 1)
        assert (second.state, second.fence) == ("queued", 0)
