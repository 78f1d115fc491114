"""A whole foreman in memory: clients and a target without sockets, on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

import h11
from attrs import define, field, frozen
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer, IStreamClientEndpoint, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from ulid import ULID
from zope.interface import implementer

from foreman.service import Foreman
from support.live_foreman import settings
from support.raw_http import Response, parse

#: How many bytes a transport of Twisted buffers before it pauses the producer.
TRANSPORT_BUFFER = 64 * 1024

TAGS = json.dumps({"models": [{"name": "m:latest", "model": "m:latest"}]}).encode()
PS = b'{"models":[]}'
CHAT = b'{"model":"m","message":{"role":"assistant","content":"hi"},"done":true}\n'


@implementer(ITCPTransport, IConsumer, IPushProducer)
@define(eq=False, slots=False)
class InMemoryTransport:
    """One end of a connection in memory: foreman's protocol on this side, the test on the other.

    :ivar sent: what the other side has read; :ivar reads: whether it reads at all;
    :ivar ended: ``end`` when foreman has closed and everything was read, ``reset`` after a reset, else empty.
    :ivar half_closed: foreman has closed its side, but still reads; :ivar paused: foreman has stopped reading for now.
    """

    clock: Clock
    protocol: Any
    peer: str = "127.0.0.1"
    on_write: Callable[[], None] = lambda: None
    sent: bytearray = field(factory=bytearray)
    reads: bool = True
    ended: str = ""
    half_closed: bool = False
    paused: bool = False
    disconnecting: bool = False
    lost: bool = False
    #: The largest number of bytes that were buffered in either direction.
    max_buffered: int = 0
    #: Twisted's name: with more than this to send, the producer is paused; bytes.
    bufferSize: int = TRANSPORT_BUFFER
    _producer: Any = None
    _streaming: bool = False
    _producer_paused: bool = False
    _to_send: bytearray = field(factory=bytearray)
    _to_deliver: bytearray = field(factory=bytearray)
    _left: Exception | None = None
    _half_closing: bool = False

    # the test's side

    def deliver(self, data: bytes) -> None:
        """The other side sends ``data``."""
        self._to_deliver += data
        self._pump()

    def disconnect(self, reason: Exception | None = None) -> None:
        """The other side disconnects: cleanly, or for ``reason``."""
        self._left = reason or error.ConnectionDone()
        if reason is not None:
            self._lose(reason)
        self._pump()

    def resume_reading(self) -> None:
        """The other side reads again."""
        self.reads = True
        self._flush()

    def take(self, count: int) -> None:
        """The other side reads up to ``count`` bytes, and then stops reading."""
        self.sent += self._to_send[:count]
        del self._to_send[:count]
        if not self._to_send:
            self.reads = True
            self._flush()
            self.reads = False
        self.on_write()

    # foreman's side

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.lost or self.half_closed or not data:
            return
        self._to_send += data
        self.max_buffered = max(self.max_buffered, len(self._to_send))
        if self.reads:
            self.sent += self._to_send
            self._to_send.clear()
            self.clock.callLater(0, self._flush)
            self.on_write()
        elif (
            len(self._to_send) > self.bufferSize
            and self._producer is not None
            and self._streaming
            and not self._producer_paused
        ):
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.lost and not self.disconnecting:
            self.disconnecting = True
            self.clock.callLater(0, self._flush)

    def loseWriteConnection(self) -> None:
        self._half_closing = True
        self.clock.callLater(0, self._flush)

    def abortConnection(self) -> None:
        if not self.lost and self.ended != "reset":
            self.disconnecting, self.ended = True, "reset"
            self.clock.callLater(0, self._lose, error.ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        if self.lost:
            producer.stopProducing()
            return
        self._producer, self._streaming, self._producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting or self._half_closing:
            self.clock.callLater(0, self._flush)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        if not self.lost and not self.disconnecting:
            self.paused = False
            self.clock.callLater(0, self._pump)

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.peer, 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 8080)

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    # in between

    def _flush(self) -> None:
        if self.lost or not self.reads or self.ended == "reset":
            return
        if self._to_send:
            self.sent += self._to_send
            self._to_send.clear()
            self.on_write()
        if self._producer is not None and (not self._streaming or self._producer_paused):
            self._producer_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            self.ended = "end"
            self._lose(error.ConnectionDone())
        elif self._half_closing:
            self.half_closed = True

    def _pump(self) -> None:
        if self.lost or self.paused or self.disconnecting:
            self.max_buffered = max(self.max_buffered, len(self._to_deliver))
            return
        if self._to_deliver:
            data = bytes(self._to_deliver[:TRANSPORT_BUFFER])
            del self._to_deliver[:TRANSPORT_BUFFER]
            self.protocol.dataReceived(data)
            if self._to_deliver:
                self._pump()
        if self._left is not None and not self.paused and not self._to_deliver:
            self._lose(self._left)

    def _lose(self, reason: Exception) -> None:
        if self.lost:
            return
        self.lost = True
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


@frozen
class ReceivedRequest:
    """One request as h11 parses it: a strict reader of RFC 9112 that shares no code with foreman."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def named(self, name: str) -> list[str]:
        """The values of all headers ``name``, which is in lower case."""
        return [value for key, value in self.headers if key == name]


@define(eq=False)
class TargetConnection:
    """One connection of foreman to the target."""

    transport: InMemoryTransport
    heard: ReceivedRequest | None = None
    responded: bool = False

    def read(self) -> ReceivedRequest | None:
        """The request, or None until it is complete.

        :raises h11.RemoteProtocolError: if it is not HTTP; AssertionError: if it is more than one request.
        """
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(bytes(self.transport.sent))
        request: Any = reader.next_event()
        if request is h11.NEED_DATA:
            return None
        body = b""
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        if event is h11.NEED_DATA:
            return None
        assert reader.trailing_data[0] == b"", f"more than one request: {bytes(self.transport.sent)!r}"
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        return ReceivedRequest(request.method.decode(), request.target.decode("latin-1"), headers, body)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class InMemoryTarget:
    """A target in memory that records its requests.

    :ivar holds: it does not answer, polls excepted; :ivar silent: these neither; :ivar refuses: it takes no connections;
    :ivar takes: it reads what it is sent; :ivar hesitates: a connection is not made before ``connect_now``;
    :ivar answer: returns the bytes of the response to a request.
    """

    clock: Clock
    answer: Callable[[ReceivedRequest], bytes]
    holds_responses: bool = False
    holds_polls: bool = False
    refuses_connections: bool = False
    reads: bool = True
    delays_connections: bool = False
    connections: list[TargetConnection] = field(factory=list)
    _delayed: list[tuple[Deferred[Any], Any]] = field(factory=list)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        if self.refuses_connections:
            return fail(error.ConnectionRefusedError())
        if self.delays_connections:
            connecting: Deferred[Any] = Deferred()
            self._delayed.append((connecting, protocolFactory))
            return connecting
        return succeed(self._connected(protocolFactory))

    def complete_connections(self) -> None:
        """Complete the delayed connections, and delay no more."""
        self.delays_connections = False
        delayed, self._delayed = self._delayed, []
        for connecting, factory in delayed:
            if not connecting.called:
                connecting.callback(self._connected(factory))

    def _connected(self, protocolFactory: Any) -> Any:
        protocol = protocolFactory.buildProtocol(None)
        transport = InMemoryTransport(self.clock, protocol, reads=self.reads)
        connection = TargetConnection(transport)
        transport.on_write = lambda: self._data_received(connection)
        self.connections.append(connection)
        protocol.makeConnection(transport)
        return protocol

    @property
    def request_connections(self) -> list[TargetConnection]:
        """The connections without those of foreman's own polls."""
        return [
            one
            for one in self.connections
            if not bytes(one.transport.sent).startswith((b"GET /api/tags HTTP", b"GET /api/ps HTTP"))
        ]

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The complete requests without polls; fails if something is not a request."""
        return [request for one in self.request_connections if (request := one.read()) is not None]

    def _data_received(self, connection: TargetConnection) -> None:
        poll = bytes(connection.transport.sent).startswith((b"GET /api/tags HTTP", b"GET /api/ps HTTP"))
        if connection.responded or self.holds_polls or (self.holds_responses and not poll):
            return
        heard = connection.read()
        if heard is not None:
            connection.responded = True
            self.clock.callLater(0, connection.transport.deliver, self.answer(heard))


def default_response(heard: ReceivedRequest) -> bytes:
    """What an Ollama with one model responds, as far as tests need it."""
    if heard.target == "/api/tags":
        return response_with_length(TAGS)
    if heard.target == "/api/ps":
        return response_with_length(PS)
    return response_with_length(CHAT)


def response_with_length(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """The bytes of a response with Content-Length."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@define(eq=False)
class InMemoryClient:
    """A client on its connection."""

    transport: InMemoryTransport
    _turn: Callable[[], None]

    def send(self, data: bytes) -> None:
        """Send bytes, and let foreman act on them."""
        self.transport.deliver(data)
        self._turn()

    def disconnect(self, *, reset: bool = False) -> None:
        """Disconnect."""
        self.transport.disconnect(error.ConnectionLost() if reset else None)
        self._turn()

    @property
    def received(self) -> bytes:
        """Everything that was received."""
        return bytes(self.transport.sent)

    def answers(self, *methods: str) -> list[Response]:
        """The complete responses; ``methods`` are those of the requests, needed if one is HEAD."""
        return list(_answers(self.received, methods, closed=self.closed))

    @property
    def closed(self) -> bool:
        """Whether foreman has closed the connection, or its side of it."""
        return bool(self.transport.ended) or self.transport.half_closed


def _answers(data: bytes, methods: tuple[str, ...], *, closed: bool) -> Iterator[Response]:
    for number in count():
        method = methods[number] if number < len(methods) else "GET"
        response = parse(data, method, closed=closed) if data else None
        if response is None:
            return
        yield response
        for _ in [*response.interim, response]:
            data = data.partition(b"\r\n\r\n")[2]
        if response.framing == "chunked":
            data = data[sum(len(b"%x" % len(chunk)) + len(chunk) + 4 for chunk in response.chunks) + 5 :]
        elif response.framing != "none":
            data = data[len(response.body) :]


@define(eq=False)
class InMemoryForeman:
    """A foreman without sockets, its target and its clock."""

    clock: Clock
    service: Foreman
    target: InMemoryTarget

    def turn(self, turns: int = 12) -> None:
        """Run everything that is due now."""
        for _ in range(turns):
            self.clock.advance(0)

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Move the clock."""
        waited = 0.0
        while waited < seconds:
            self.clock.advance(min(step, seconds - waited))
            waited += step
        self.turn()

    def call(self, peer: str = "127.0.0.1", *, reads: bool = True) -> InMemoryClient:
        """A new connection."""
        connection = self.service.connections.buildProtocol(None)
        transport = InMemoryTransport(self.clock, connection, peer, reads=reads)
        connection.makeConnection(transport)
        self.turn()
        return InMemoryClient(transport, self.turn)

    def ask(self, data: bytes, *methods: str) -> list[Response]:
        """Send ``data`` on a new connection; returns the responses that came at once."""
        caller = self.call()
        caller.send(data)
        found = caller.answers(*methods)
        caller.disconnect()
        return found

    def ask_once(self, data: bytes, method: str = "GET") -> Response:
        """Like ``ask``, for exactly one response."""
        (answer,) = self.ask(data, method)
        return answer


@contextmanager
def in_memory_foreman(**variables: str) -> Iterator[InMemoryForeman]:
    """A foreman whose target has one model, ``m``; ``variables`` as for ``live_foreman.settings``."""
    clock = Clock()
    clock.advance(1000)
    target = InMemoryTarget(clock, default_response)
    numbers = count(1)
    with patch("foreman.service.endpoint_for", lambda *_: target):
        foreman = Foreman(
            settings(11434, **variables),
            clock,
            lambda: 1_800_000_000 + clock.seconds(),
            lambda: ULID.from_int(next(numbers)),
            lambda: 0.0,
        )
    step = InMemoryForeman(clock, foreman, target)
    foreman.target.inventory.start()
    step.turn()
    yield step
