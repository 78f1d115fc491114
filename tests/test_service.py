"""What runs, and in which order it starts and stops."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from ulid import ULID

from foreman import service as service_module
from foreman.auth.tokens import Holder, digest, format_file
from foreman.config.listen_address import with_backlog
from foreman.config.token_file import tokens_of
from foreman.proxy.inference import Inference
from foreman.scheduling.gate import Gate
from foreman.service import Foreman
from foreman.simulator import Settings, Simulator
from foreman.system.listening import BACKLOG
from foreman.target.inventory import Inventory
from foreman.target.warmup import Warmer
from foreman.web.server.access_log import AccessLog
from foreman.web.server.factory import ConnectionFactory
from support import raw_http
from support.in_memory_foreman import in_memory_foreman
from support.live_foreman import RunningForeman, listen, port_of, settings, start_foreman

reactor: Any = installed_reactor

ENDLESS = 1_000_000


async def until(met: Callable[[], Any], seconds: float = 3.0) -> None:
    """Wait until something is so."""
    deadline = reactor.seconds() + seconds
    while not met():
        assert reactor.seconds() < deadline, "waited in vain"
        await deferLater(reactor, 0.005)


def chat(path: str = "/api/chat", tokens: int = 3, **more: Any) -> bytes:
    words = [{"role": "user", "content": "hi"}]
    value = {"model": "tiny-slow", "messages": words, "input": "hi", "options": {"num_predict": tokens}, **more}
    value |= {"max_tokens": tokens, "max_output_tokens": tokens}
    return raw_http.request("POST", path, json.dumps(value).encode())


@define
class House:
    """A foreman in front of a simulator."""

    foreman: RunningForeman
    simulator: Simulator

    @property
    def service(self) -> Foreman:
        return self.foreman.service

    async def begin(self, request: bytes) -> raw_http.RawClient:
        client = await raw_http.connect(self.foreman.port, "POST")
        client.send(request)
        return client

    async def running(self, tokens: int = ENDLESS, **more: Any) -> raw_http.RawClient:
        """A chat that is being answered."""
        client = await self.begin(chat(tokens=tokens, **more))
        await until(lambda: b"content" in client.received)
        return client

    async def waiting(self, request: bytes) -> raw_http.RawClient:
        """A chat in the line."""
        gate = self.service.target.gate
        before = len(gate.waiting)
        client = await self.begin(request)
        await until(lambda: len(gate.waiting) == before + 1)
        return client

    def stop(self) -> Deferred[None]:
        return self.service.stopService()


@define
class Builder:
    """Makes houses with any settings, and takes them down."""

    houses: list[tuple[House, Any]]

    async def __call__(self, **variables: str) -> House:
        simulator = Simulator(reactor, Settings(rate=200, keep_alive=-1, parallel=8))
        listening: Any = listen(simulator)
        foreman = await start_foreman(port_of(listening), **variables)
        self.houses.append((House(foreman, simulator), listening))
        return self.houses[-1][0]


@pytest_twisted.async_yield_fixture
async def house() -> AsyncIterator[Builder]:
    builder = Builder([])
    yield builder
    for one, listening in builder.houses:
        if one.service.running:
            await one.foreman.stop()
        await maybeDeferred(listening.stopListening)


# starting


@pytest_twisted.ensureDeferred
async def test_after_the_start_the_port_is_open_and_the_target_was_asked(house: Builder) -> None:
    one = await house()
    response = await raw_http.ask(one.foreman.port, raw_http.request("GET", "/healthz"))
    assert response.body == b'{"status":"ok","degraded":false}'
    assert [seen.path for seen in one.simulator.requests][:2] == ["/api/tags", "/api/ps"]


@pytest_twisted.ensureDeferred
async def test_the_embedder_is_loaded_at_the_start(house: Builder) -> None:
    one = await house(embedder_model="tiny-embed")
    await until(lambda: one.simulator.requests_for("/api/embed"))
    (seen,) = one.simulator.requests_for("/api/embed")
    await until(lambda: json.loads(seen.body) == {"model": "tiny-embed", "keep_alive": -1})


def test_a_port_that_is_taken_ends_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = settings(1, listen=f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1")
        with pytest.raises(CannotListenError):
            Foreman(config, reactor, reactor.seconds, ULID, lambda: 0.0).privilegedStartService()


@pytest.mark.parametrize(
    ("listen_", "described"),
    [
        ("tcp:8080", f"tcp:8080:backlog={BACKLOG}"),
        ("tcp:8080:interface=127.0.0.1", f"tcp:8080:interface=127.0.0.1:backlog={BACKLOG}"),
        ("tcp6:8080:interface=\\:\\:1", f"tcp6:8080:interface=\\:\\:1:backlog={BACKLOG}"),
        ("ssl:8443:privateKey=k.pem", f"ssl:8443:privateKey=k.pem:backlog={BACKLOG}"),
        ("unix:/run/foreman.sock:mode=660", f"unix:/run/foreman.sock:mode=660:backlog={BACKLOG}"),
        ("tls:/etc/keys:8443", f"tls:/etc/keys:8443:backlog={BACKLOG}"),
        ("haproxy:tcp:8080", f"haproxy:tcp:8080:backlog={BACKLOG}"),
        ("tcp:8080:backlog=5", "tcp:8080:backlog=5"),
        ("tcp:8080:127.0.0.1:5", "tcp:8080:127.0.0.1:5"),
        ("tcp6:8080:5", "tcp6:8080:5"),
        ("unix:/run/foreman.sock:660:5", "unix:/run/foreman.sock:660:5"),
        ("unix:/run/a\\:backlog\\=1:660", f"unix:/run/a\\:backlog\\=1:660:backlog={BACKLOG}"),
        ("haproxy:tcp:8080:backlog=5", "haproxy:tcp:8080:backlog=5"),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
    ],
)
def test_those_who_come_at_once_find_room(listen_: str, described: str) -> None:
    assert with_backlog(listen_, BACKLOG) == described


@pytest_twisted.ensureDeferred
async def test_two_hundred_who_come_at_once_are_answered_at_once(house: Builder) -> None:
    one = await house()
    came = reactor.seconds()
    sockets = [socket.socket() for _ in range(200)]
    for each in sockets:
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", one.foreman.port))
    await until(lambda: len(one.service.connections.open) == 200)
    # A connection that found no room is tried again by the system a second later.
    assert reactor.seconds() - came < 0.9
    for each in sockets:
        each.close()
    await until(lambda: not len(one.service.connections.open))


# stopping


@pytest_twisted.ensureDeferred
async def test_what_was_started_first_is_stopped_last(house: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await house(drain_timeout="0.1s", embedder_model="tiny-embed")
    running = await one.running()
    steps: list[str] = []

    def note(owner: Any, name: str, step: str) -> None:
        original = getattr(owner, name)

        def noted(*args: Any) -> Any:
            steps.append(step)
            return original(*args)

        monkeypatch.setattr(owner, name, noted)

    note(one.service._port, "stopService", "port closed")
    note(ConnectionFactory, "drain", "idle connections closed")
    note(Gate, "close", "gate closed")
    note(Warmer, "stop", "loading given up")
    note(Inventory, "stop", "polls ended")
    note(Inference, "stop", "running broken off")
    note(AccessLog, "flush", "log written")
    await one.stop()
    assert steps == [
        "port closed",
        "idle connections closed",
        "gate closed",
        "gate closed",
        "loading given up",
        "polls ended",
        "running broken off",
        "log written",
    ]
    await running.gone
    await until(lambda: not one.simulator.connections)


@pytest_twisted.ensureDeferred
async def test_a_running_answer_is_finished_within_the_patience(house: Builder) -> None:
    one = await house(drain_timeout="5s")
    client = await one.running(tokens=40)
    stopping = one.stop()
    response = await client.done
    assert json.loads(response.body.splitlines()[-1])["done"] is True
    assert not response.torn
    await stopping
    await client.gone
    assert one.simulator.requests_for("/api/chat")[0].outcome == "answered"


@pytest_twisted.ensureDeferred
async def test_beyond_the_patience_a_running_answer_is_broken_off_visibly(house: Builder) -> None:
    one = await house(drain_timeout="0.1s", turns="3")
    native = await one.running()
    events = await one.begin(chat("/v1/messages", tokens=ENDLESS, stream=True))
    unstreamed = await one.begin(chat(tokens=ENDLESS, stream=False))
    await until(lambda: b"content" in events.received and len(one.service.target.gate.running) == 3)
    with capturedLogs() as log:
        await one.stop()
    assert json.loads((await native.done).body.splitlines()[-1]) == {"error": "foreman is stopping; try again soon"}
    assert b"event: error\ndata: " in (await events.done).body
    response = await unstreamed.done
    assert (response.status, response.header("Retry-After")) == (503, "3600")
    assert "FOREMAN_DRAIN_TIMEOUT is over: cutting off the requests that still run" in [
        formatEvent(event) for event in log
    ]
    await until(lambda: not one.simulator.connections)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
@pytest_twisted.ensureDeferred
async def test_who_waits_is_sent_away_at_once_in_the_shape_of_the_route(house: Builder, path: str) -> None:
    one = await house(drain_timeout="5s")
    running = await one.running(tokens=60)
    waiting = await one.waiting(chat(path, stream=True))
    stopping = one.stop()
    response = await waiting.done
    assert not running.done.called
    assert (response.status, response.header("Retry-After")) == (503, "3600")
    error = json.loads(response.body)["error"]
    assert (error if path == "/api/chat" else error["message"]) == "foreman is stopping; try again soon"
    assert (await running.done).torn is False
    await stopping
    assert len(one.simulator.requests_for(path)) == (1 if path == "/api/chat" else 0)


@pytest_twisted.ensureDeferred
async def test_who_was_shown_its_waiting_gets_an_error_line(house: Builder) -> None:
    one = await house(wait_notice="0.05s")
    await one.running()
    waiting = await one.waiting(chat())
    await until(lambda: waiting.received.endswith(b"\r\n \r\n"))
    await one.stop()
    response = await waiting.done
    assert (response.status, response.torn) == (200, False)
    assert json.loads(response.body) == {"error": "foreman is stopping; try again soon"}


@pytest_twisted.ensureDeferred
async def test_in_a_hurry_nothing_is_waited_for(house: Builder) -> None:
    one = await house(drain_timeout="1h")
    client = await one.running()
    stopping = one.stop()
    await deferLater(reactor, 0.05)
    assert not stopping.called
    one.service.hurry()
    await stopping
    assert json.loads((await client.done).body.splitlines()[-1]) == {"error": "foreman is stopping; try again soon"}


@pytest_twisted.ensureDeferred
async def test_a_hurry_may_come_before_the_stop_and_after_it(house: Builder) -> None:
    one = await house(drain_timeout="1h")
    await one.running()
    one.service.hurry()
    await one.stop()
    one.service.hurry()


class SlowReader:
    """A client that takes of its answer only what it is told to."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.sendall(request)
        self.last = b""

    async def read_to_the_end(self) -> None:
        while True:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                await deferLater(reactor, 0.001)
                continue
            if not data:
                return
            self.last = (self.last + data)[-100:]
            await deferLater(reactor, 0)


@pytest_twisted.async_yield_fixture
async def slow(house: Builder) -> AsyncIterator[tuple[House, SlowReader]]:
    """A reader whose answer foreman has, and it not."""
    one = await house(drain_timeout="5s", buffer="64MiB")
    one.simulator.misbehave("long-line", size=20_000_000)
    reader = SlowReader(one.foreman.port, chat())
    gate = one.service.target.gate
    await until(lambda: gate.running)
    await until(lambda: not gate.running)
    yield one, reader
    reader.socket.close()
    await until(lambda: not len(one.service.connections.open))


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_gets_the_last_byte_of_an_answer_before_the_end(slow: tuple[House, SlowReader]) -> None:
    one, reader = slow
    stopping = one.stop()
    await deferLater(reactor, 0.05)
    assert not stopping.called
    await reader.read_to_the_end()
    assert reader.last.endswith(b"\r\n0\r\n\r\n")
    assert b'"done":true' in reader.last or b"eval_duration" in reader.last
    await stopping


@pytest_twisted.ensureDeferred
async def test_a_reader_that_never_reads_is_not_waited_for_beyond_the_patience(
    slow: tuple[House, SlowReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "FLUSH_TIMEOUT", 0.1)
    one, _ = slow
    one.service._config = settings(1, drain_timeout="0.1s")
    await one.stop()
    assert len(one.service.connections.open) == 0


@pytest_twisted.ensureDeferred
async def test_a_silent_target_holds_up_no_stop(house: Builder) -> None:
    one = await house(drain_timeout="5s")
    for path in ("/api/tags", "/api/ps"):
        one.simulator.misbehave("no-headers", route=path, times=0)
    one.service.target.inventory.refresh()
    missing = await one.begin(chat(model="nope"))
    await until(lambda: len(one.simulator.connections) == 1)
    await one.stop()
    assert (await missing.done).status == 503
    await until(lambda: not one.simulator.connections)


@pytest_twisted.ensureDeferred
async def test_idle_connections_are_closed_and_nobody_new_is_let_in(house: Builder) -> None:
    one = await house(drain_timeout="5s")
    idle = await raw_http.connect(one.foreman.port)
    running = await one.running(tokens=30)
    stopping = one.stop()
    await idle.gone
    with pytest.raises(Exception, match="refused"):
        await raw_http.connect(one.foreman.port)
    await running.done
    await running.gone
    await stopping


@pytest_twisted.ensureDeferred
async def test_a_stop_without_anything_to_do_is_done_at_once(house: Builder) -> None:
    one = await house(drain_timeout="1h")
    stopping = one.stop()
    await deferLater(reactor, 0.05)
    assert stopping.called


# tokens


def holders_in(path: Path, *names: str) -> None:
    path.write_text(format_file([Holder(name, digest(f"token-of-{name}")) for name in names]))


@pytest_twisted.ensureDeferred
async def test_tokens_are_read_again_while_chats_run(house: Builder, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    holders_in(file, "alice")
    one = await house(tokens_file=str(file), auth_token="the-common-one")

    async def status(token: str) -> int:
        asking = raw_http.request("GET", "/api/version", headers=[("Authorization", f"Bearer {token}")])
        return (await raw_http.ask(one.foreman.port, asking)).status

    assert [await status(token) for token in ("token-of-alice", "token-of-bob", "the-common-one")] == [200, 401, 200]
    holders_in(file, "bob")
    one.service.reload()
    assert [await status(token) for token in ("token-of-alice", "token-of-bob", "the-common-one")] == [401, 200, 200]
    for broken in ("alice no-digest user\n", None):
        file.unlink() if broken is None else file.write_text(broken)
        with capturedLogs() as log:
            one.service.reload()
        assert "the tokens stay as they were" in str(formatEvent(log[-1]))
        assert [await status(token) for token in ("token-of-bob", "the-common-one")] == [200, 200]


@pytest_twisted.ensureDeferred
async def test_without_a_file_there_is_nothing_to_read_again(house: Builder) -> None:
    one = await house()
    one.service.reload()
    assert (await raw_http.ask(one.foreman.port, raw_http.request("GET", "/api/version"))).status == 200


def test_who_may_come_in_is_what_the_settings_name(tmp_path: Path) -> None:
    assert tokens_of(settings(1)).required is False
    file = tmp_path / "tokens"
    file.write_text("")
    assert tokens_of(settings(1, tokens_file=str(file))).required is True
    holders_in(file, "alice")
    tokens = tokens_of(
        settings(1, tokens_file=str(file), auth_token="a-common-one-1234", admin_token="an-admins-one-1234")
    )
    assert [(holder.name, holder.admin) for holder in tokens.holders] == [
        ("alice", False),
        ("token", False),
        ("admin", True),
    ]


def test_large_bodies_of_jobs_take_turns_with_those_of_all_other_requests() -> None:
    with in_memory_foreman() as step:
        assert step.service._jobs._submissions._cooperator is step.service.worker._cooperator
