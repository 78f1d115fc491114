"""Each setting does something: here, or in the test that ``SHOWN_ELSEWHERE`` names."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from foreman.auth.tokens import Holder, digest, format_file
from foreman.config.settings import SETTINGS
from foreman.simulator import Settings, Simulator
from foreman.target.connector import endpoint_for
from support.live_foreman import RunningForeman, listen, port_of, reactor, settings, start_foreman
from support.raw_http import RawClient, Response, ask, connect, request

HERE = Path(__file__).parent

#: By variable: a file here and the test in it that fails when the setting is without effect.
SHOWN_ELSEWHERE = {
    "FOREMAN_DB_PATH": (
        "test_config.py",
        "test_jobs_are_kept_in_the_state_folder_unless_another_place_is_named",
    ),
    "FOREMAN_MAX_JOBS": ("test_jobs_routes.py", "test_more_jobs_than_may_wait_are_a_429"),
    "FOREMAN_MAX_PAYLOAD": ("test_jobs_routes.py", "test_a_payload_that_is_too_large_is_a_413"),
    "FOREMAN_MAX_ARTIFACT": (
        "test_worker.py",
        "test_an_answer_larger_than_an_artifact_may_be_fails_the_job_and_stops_the_target",
    ),
    "FOREMAN_JOB_SILENCE": ("test_worker.py", "test_a_job_whose_answer_never_begins_gives_the_turn_back"),
    "FOREMAN_JOB_PATIENCE": (
        "test_worker.py",
        "test_a_job_that_has_waited_for_the_patience_gets_every_fourth_turn",
    ),
    "FOREMAN_DISK_RESERVE": (
        "test_disk_troubles.py",
        "test_a_nearly_full_disk_takes_no_new_jobs_but_those_it_has_end",
    ),
    **dict.fromkeys(
        ("FOREMAN_KEEP_SUCCEEDED", "FOREMAN_KEEP_CANCELLED", "FOREMAN_KEEP_FAILED"),
        ("test_retention.py", "test_a_job_is_forgotten_when_it_ended_longer_ago_than_its_kind_is_kept"),
    ),
    "FOREMAN_LISTEN": ("test_config.py", "test_where_a_client_on_this_machine_finds_foreman"),
    "FOREMAN_TARGET_URL": ("test_config.py", "test_the_target_is_read_as_ollama_reads_its_host"),
    "FOREMAN_ALLOW_OPEN": (
        "test_config.py",
        "test_a_listener_for_others_needs_a_token_or_leave_to_be_open_and_both_cures_are_named",
    ),
    "FOREMAN_WAIT_NOTICE": ("test_heartbeat.py", "test_a_shorter_grace_time_makes_the_fillers_come_sooner"),
    "FOREMAN_WAIT_NOTICE_UNARY": ("test_heartbeat.py", "test_an_unstreamed_answer_gets_spaces_much_later"),
    "FOREMAN_SILENCE_TIMEOUT": ("test_relay.py", "test_a_target_that_says_nothing_between_lines_is_given_up"),
    "FOREMAN_STALL_TIMEOUT": (
        "test_relay.py",
        "test_a_reader_that_takes_nothing_while_the_buffer_is_full_is_cut_off_after_the_stall_limit",
    ),
    "FOREMAN_BUFFER": ("test_relay.py", "test_a_full_buffer_pauses_the_target_until_the_reader_has_taken_half"),
    "FOREMAN_BUFFER_TOTAL": ("test_relay.py", "test_all_relays_together_have_a_bound"),
    "FOREMAN_LOG_FORMAT": (
        "test_process.py",
        "test_the_log_for_machines_is_one_object_a_line_and_has_no_secret_either",
    ),
    "FOREMAN_LOG_LEVEL": ("test_process.py", "test_probes_are_in_the_log_of_who_asks_for_them"),
}

CHAT = {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "hi"}], "stream": False}
TOKEN = "correct-horse-battery-staple"


@define
class Running:
    """A foreman in front of a simulator, both in this process."""

    foreman: RunningForeman
    target: Simulator

    async def post(self, path: str, payload: object, *headers: tuple[str, str], host: str = "127.0.0.1") -> Response:
        body = json.dumps(payload).encode()
        return await ask(self.foreman.port, request("POST", path, body, list(headers), host=host), "POST")

    async def get(self, path: str, *headers: tuple[str, str], host: str = "127.0.0.1") -> Response:
        return await ask(self.foreman.port, request("GET", path, b"", list(headers), host=host))

    async def open(self, data: bytes) -> RawClient:
        client = await connect(self.foreman.port, "POST")
        client.send(data)
        await deferLater(reactor, 0.1)
        return client


@asynccontextmanager
async def running(*, target: Mapping[str, Any] | None = None, **variables: Any) -> AsyncIterator[Running]:
    simulator = Simulator(reactor, Settings(load_time=0, **{"rate": 0, **(target or {})}))
    listening = listen(simulator)
    foreman = await start_foreman(port_of(listening), **variables)
    try:
        yield Running(foreman, simulator)
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)


async def target_token() -> None:
    async with running(target_token=TOKEN) as both:
        await both.post("/api/chat", CHAT, ("Authorization", "Bearer of-the-client"))
        (seen,) = both.target.requests_for("/api/chat")
        assert [value for name, value in seen.headers if name.lower() == "authorization"] == [f"Bearer {TOKEN}"]


async def auth_token() -> None:
    async with running(auth_token=TOKEN) as both:
        assert (await both.get("/api/version")).status == 401
        assert (await both.get("/api/version", ("Authorization", f"Bearer {TOKEN}"))).status == 200


async def admin_token() -> None:
    async with running(auth_token=TOKEN, admin_token=f"{TOKEN}-admin") as both:
        copy = {"source": "llama3.2:3b", "destination": "mine"}
        assert (await both.post("/api/copy", copy, ("x-api-key", TOKEN))).status == 403
        assert (await both.post("/api/copy", copy, ("x-api-key", f"{TOKEN}-admin"))).status == 200


async def tokens_file() -> None:
    path = HERE / "golden" / ".tokens"
    path.write_text(format_file([Holder("alice", digest(TOKEN))]), encoding="utf-8")
    try:
        async with running(tokens_file=str(path)) as both:
            assert (await both.get("/api/version")).status == 401
            assert (await both.get(f"/k/{TOKEN}/api/version")).status == 200
    finally:
        path.unlink()


async def allowed_hosts() -> None:
    async with running() as both:
        assert (await both.get("/api/version", host="gpu.example")).status == 403
    async with running(allowed_hosts="gpu.example") as both:
        assert (await both.get("/api/version", host="gpu.example")).status == 200


async def origins() -> None:
    page = ("Origin", "https://chat.example")
    async with running() as both:
        assert (await both.get("/api/version", page)).status == 403
    async with running(origins="https://chat.example") as both:
        assert (await both.get("/api/version", page)).header("Access-Control-Allow-Origin") == "https://chat.example"


async def poll_interval() -> None:
    async with running(poll_interval="200ms") as both:
        await deferLater(reactor, 0.7)
        assert len(both.target.requests_for("/api/tags")) >= 3


async def embedder_model() -> None:
    async with running(embedder_model="nomic-embed-text") as both:
        await deferLater(reactor, 0.2)
        (seen,) = both.target.requests_for("/api/embed")
        assert json.loads(seen.body) == {"model": "nomic-embed-text", "keep_alive": -1}


async def at_once(both: Running, path: str, payload: object, count: int) -> int:
    clients = [await both.open(request("POST", path, json.dumps(payload).encode())) for _ in range(count)]
    most = len([seen for seen in both.target.requests_for(path) if seen.outcome == "open"])
    for client in clients:
        client.leave()
        await client.gone
    return most


async def turns() -> None:
    for number in (1, 2):
        async with running(target={"rate": 1, "parallel": 4}, turns=str(number)) as both:
            assert await at_once(both, "/api/chat", CHAT, 3) == number


async def embed_cap() -> None:
    for number in (1, 2):
        async with running(embed_cap=str(number)) as both:
            both.target.misbehave("no-headers", times=0, route="/api/embed")
            assert await at_once(both, "/api/embed", {"model": "nomic-embed-text", "input": "x"}, 3) == number


async def max_queue() -> None:
    async with running(target={"rate": 1}, max_queue="1") as both:
        data = request("POST", "/api/chat", json.dumps(CHAT).encode())
        clients = [await both.open(data) for _ in range(2)]
        assert (await both.post("/api/chat", CHAT)).status == 503
        for client in clients:
            client.leave()
            await client.gone


async def wait_filler() -> None:
    data = request("POST", "/api/chat", json.dumps({**CHAT, "stream": True}).encode())
    for filler, begins in (("space", b" "), ("object", b"{")):
        async with running(target={"rate": 1}, wait_notice="50ms", wait_filler=filler) as both:
            clients = [await both.open(data) for _ in range(2)]
            await deferLater(reactor, 0.2)
            body = clients[1].received.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]
            assert body.startswith(begins)
            for client in clients:
                client.leave()
                await client.gone


async def target_wait() -> None:
    simulator = Simulator(reactor, Settings(load_time=0, rate=0))
    listening = listen(simulator)
    port = port_of(listening)
    foreman = await start_foreman(port, target_wait="10s")
    await maybeDeferred(listening.stopListening)
    data = request("POST", "/api/chat", json.dumps(CHAT).encode())
    answer: Deferred[Response] = Deferred.fromCoroutine(ask(foreman.port, data, "POST"))
    await deferLater(reactor, 0.3)
    listening = reactor.listenTCP(port, simulator, interface="127.0.0.1")
    try:
        assert (await answer).status == 200
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)


async def connect_timeout() -> None:
    memory = MemoryReactorClock()
    config = settings(11434, target_url="http://192.0.2.1", connect_timeout="123s")
    failed: list[Failure] = []
    endpoint_for(memory, config.target, config.connect_timeout).connect(Factory()).addErrback(failed.append)
    memory.advance(122)
    assert not failed
    memory.advance(1)
    assert failed


async def max_body() -> None:
    async with running(max_body="1KiB") as both:
        assert (await both.post("/api/chat", {**CHAT, "more": "x" * 2000})).status == 413
        assert both.target.requests_for("/api/chat") == []


async def body_budget() -> None:
    async with running(max_body="1KiB", body_budget="1KiB") as both:
        half = await both.open(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{" + b" " * 800
        )
        assert (await both.get("/healthz")).status == 200  # by now the half has been read
        assert (await both.post("/api/chat", {**CHAT, "more": "x" * 500})).status == 503
        half.leave()
        await half.gone


async def ends_at_its_deadline(said: bytes, **variables: Any) -> bytes:
    async with running(**variables) as both:
        client = await both.open(said)
        client.gone.addTimeout(4, reactor)
        await client.gone
        return client.received


async def head_timeout() -> None:
    assert b" 408 " in await ends_at_its_deadline(b"GET /api/version HTTP/1.1\r\n", head_timeout="300ms")


async def body_timeout() -> None:
    said = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    assert b" 408 " in await ends_at_its_deadline(said, body_timeout="300ms")


async def idle_timeout() -> None:
    said = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert b"Ollama is running" in await ends_at_its_deadline(said, idle_timeout="300ms")


async def max_connections() -> None:
    async with running(target={"rate": 5}, max_connections="1") as both:
        first = await both.open(request("POST", "/api/chat", json.dumps({**CHAT, "stream": True}).encode()))
        assert (await both.get("/api/tags")).status == 503
        assert (await both.get("/healthz")).status == 200
        first.leave()
        await first.gone
        assert (await both.get("/api/tags")).status == 200


async def drain_timeout() -> None:
    endings = []
    for patience in ("0", "5s"):
        async with running(target={"rate": 20}, drain_timeout=patience) as both:
            client = await both.open(request("POST", "/api/chat", json.dumps({**CHAT, "stream": True}).encode()))
            await both.foreman.stop()
            await client.gone
            endings.append(b'"done":true' in client.received)
    assert endings == [False, True]


SHOWN_HERE: dict[str, Callable[[], Awaitable[None]]] = {
    f"FOREMAN_{name.upper()}": shown
    for name, shown in inspect.getmembers(sys.modules[__name__], inspect.iscoroutinefunction)
    if not inspect.signature(shown).parameters
}


@pytest.mark.parametrize("variable", sorted(SHOWN_HERE))
@pytest_twisted.ensureDeferred
async def test_the_setting_does_what_it_says(variable: str) -> None:
    await SHOWN_HERE[variable]()


@pytest.mark.parametrize("variable", sorted(SHOWN_ELSEWHERE))
def test_the_setting_is_shown_by_a_test_elsewhere(variable: str) -> None:
    file, test = SHOWN_ELSEWHERE[variable]
    assert re.search(rf"^(async )?def {test}\(", (HERE / file).read_text("utf-8"), re.MULTILINE)


def test_every_setting_is_shown_by_some_test() -> None:
    assert SHOWN_HERE.keys() | SHOWN_ELSEWHERE.keys() == {setting.variable for setting in SETTINGS}
