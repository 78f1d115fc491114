"""Connections to the target: at once where it is on this machine, and whoever cannot be reached is told so."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from foreman.config.target_address import TargetAddress
from foreman.target.connector import KeepaliveEndpoint, LoopbackEndpoint, endpoint_for

reactor: Any = installed_reactor


class Noted(Protocol):
    """One end of a connection."""

    def __init__(self) -> None:
        self.received = b""
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class Listener(Factory):
    """Takes whoever comes."""

    noisy = False

    def __init__(self) -> None:
        self.connections: list[Noted] = []

    def buildProtocol(self, addr: object) -> Noted:
        self.connections.append(Noted())
        return self.connections[-1]


class Asking(Factory):
    """Makes the client's end."""

    noisy = False

    def buildProtocol(self, addr: object) -> Noted:
        return Noted()


def listening_on(host: str) -> tuple[Listener, Any]:
    listener = Listener()
    return listener, reactor.listenTCP(0, listener, backlog=1000, interface=host)


def endpoint(host: str, port: int, scheme: str = "http") -> Any:
    return endpoint_for(reactor, TargetAddress(scheme, host, port), timeout=2)


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    host = str(request.param)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
    return host


@pytest_twisted.async_yield_fixture
async def port(host: str) -> AsyncIterator[Any]:
    _, listening = listening_on(host)
    yield listening
    await listening.stopListening()


@pytest.fixture
def unused_port(host: str) -> Iterator[int]:
    """A port on which nobody listens, and nobody else will."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as bound:
        bound.bind((host, 0))
        yield int(bound.getsockname()[1])


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def closed(*protocols: Noted) -> None:
    for protocol in protocols:
        transport: Any = protocol.transport
        transport.abortConnection()
        await protocol.gone


@pytest_twisted.ensureDeferred
async def test_a_target_on_this_machine_is_connected_within_the_call(host: str, port: Any) -> None:
    results: list[Any] = []
    endpoint(host, port.getHost().port).connect(Asking()).addBoth(results.append)
    (client,) = results
    client.transport.write(b"hello")
    listener = port.factory
    while not listener.connections or listener.connections[0].received != b"hello":
        await deferLater(reactor, 0.001)
    assert client.transport.getPeer().host == host
    await closed(client, *listener.connections)


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_said_as_the_ordinary_way_says_it(host: str, unused_port: int) -> None:
    with pytest.raises(error.ConnectionRefusedError):
        await endpoint(host, unused_port).connect(Asking())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest_twisted.ensureDeferred
async def test_a_thousand_connections_leave_no_descriptor_behind(host: str, port: Any) -> None:
    address = endpoint(host, port.getHost().port)
    before = descriptors()
    for _ in range(20):
        clients = [await address.connect(Asking()) for _ in range(50)]
        while len(port.factory.connections) < 50:
            await deferLater(reactor, 0)
        await closed(*clients, *port.factory.connections)
        port.factory.connections.clear()
    assert descriptors() == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest_twisted.ensureDeferred
async def test_a_thousand_refusals_leave_no_descriptor_behind(host: str, unused_port: int) -> None:
    address = endpoint(host, unused_port)
    before = descriptors()
    for _ in range(1000):
        with pytest.raises(error.ConnectionRefusedError):
            await address.connect(Asking())
    assert descriptors() == before


@pytest.mark.skipif(sys.platform != "linux", reason="how a full backlog behaves is the system's own")
@pytest_twisted.ensureDeferred
async def test_a_target_that_accepts_nobody_is_waited_for_and_can_be_left() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        with socket.create_connection(busy.getsockname()):
            connecting = endpoint("127.0.0.1", busy.getsockname()[1]).connect(Asking())
            await deferLater(reactor, 0.01)
            assert not connecting.called
            connecting.cancel()
            with pytest.raises((CancelledError, error.ConnectingCancelledError)):
                await connecting


@pytest_twisted.ensureDeferred
async def test_a_connection_that_dies_before_it_is_adopted_goes_the_ordinary_way(
    port: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_connected(*_: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(reactor, "adoptStreamConnection", not_connected)
    client = await endpoint(host, port.getHost().port).connect(Asking())
    while len(port.factory.connections) < 2:
        await deferLater(reactor, 0.001)
    await closed(client, *port.factory.connections)


@pytest_twisted.ensureDeferred
async def test_without_descriptors_nothing_is_thrown_but_said(
    host: str, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    address = endpoint(host, unused_port)
    monkeypatch.setattr(socket, "socket", none_left)
    connecting = address.connect(Asking())
    monkeypatch.undo()
    with pytest.raises(error.ConnectError):
        await connecting


@pytest_twisted.ensureDeferred
async def test_a_connection_to_another_machine_is_watched_while_it_is_silent() -> None:
    listener, listening = listening_on("127.0.0.1")
    address = endpoint("localhost", listening.getHost().port)
    client: Any = await address.connect(Asking())
    assert isinstance(address, KeepaliveEndpoint)
    handle = client.transport.getHandle()
    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    while not listener.connections:
        await deferLater(reactor, 0.001)
    await closed(client, *listener.connections)
    await listening.stopListening()


@pytest.mark.parametrize("host", ["10.1.2.3", "2001:db8::1"])
def test_another_machine_is_connected_in_the_ordinary_way_with_a_limit(host: str) -> None:
    memory = MemoryReactorClock()
    connecting = endpoint_for(memory, TargetAddress("http", host, 11434), timeout=5).connect(Asking())
    ((to, port, _, _, _),) = memory.tcpClients
    assert (to, port) == (host, 11434)
    failed: list[Failure] = []
    connecting.addErrback(failed.append)
    memory.advance(4.9)
    assert failed == []
    memory.advance(0.1)
    assert [failure.type for failure in failed] == [error.TimeoutError]


def test_a_connection_that_was_made_while_foreman_was_paused_is_not_given_up() -> None:
    memory = MemoryReactorClock()
    connecting = endpoint_for(memory, TargetAddress("http", "10.1.2.3", 11434), timeout=5).connect(Asking())
    memory.advance(500)
    assert not connecting.called
    connecting.addErrback(lambda reason: reason.trap(error.ConnectingCancelledError, CancelledError) and None)
    connecting.cancel()
    assert memory.getDelayedCalls() == []


def test_tls_goes_over_the_ordinary_way() -> None:
    assert not isinstance(endpoint("127.0.0.1", 1, "https"), LoopbackEndpoint)
