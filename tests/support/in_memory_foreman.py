"""A whole foreman in memory: callers and a target without sockets, under a clock that the test moves."""

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

#: What a transport of Twisted holds before it asks whoever writes to pause.
TRANSPORT_BUFFER = 64 * 1024

TAGS = json.dumps({"models": [{"name": "m:latest", "model": "m:latest"}]}).encode()
PS = b'{"models":[]}'
CHAT = b'{"model":"m","message":{"role":"assistant","content":"hi"},"done":true}\n'


@implementer(ITCPTransport, IConsumer, IPushProducer)
@define(eq=False, slots=False)
class InMemoryTransport:
    """One end of a connection in memory: foreman's protocol on this side, the test on the other.

    :ivar sent: what the other side has taken; :ivar takes: whether it takes anything;
    :ivar ended: ``end`` when foreman has closed and all was taken, ``reset`` when it was cut, else empty.
    :ivar half_closed: foreman says no more, but still listens; :ivar paused: foreman does not listen now.
    """

    clock: Clock
    protocol: Any
    peer: str = "127.0.0.1"
    on_write: Callable[[], None] = lambda: None
    sent: bytearray = field(factory=bytearray)
    takes: bool = True
    ended: str = ""
    half_closed: bool = False
    paused: bool = False
    disconnecting: bool = False
    lost: bool = False
    #: The most that waited in here at once, either way.
    most_held: int = 0
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
        """The other side says ``data``."""
        self._to_deliver += data
        self._pump()

    def leave(self, reason: Exception | None = None) -> None:
        """The other side is gone: politely, or for ``reason``."""
        self._left = reason or error.ConnectionDone()
        if reason is not None:
            self._lose(reason)
        self._pump()

    def take_again(self) -> None:
        """The other side reads on."""
        self.takes = True
        self._flush()

    def take(self, count: int) -> None:
        """The other side reads up to ``count`` bytes, and then no more."""
        self.sent += self._to_send[:count]
        del self._to_send[:count]
        if not self._to_send:
            self.takes = True
            self._flush()
            self.takes = False
        self.on_write()

    # foreman's side

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.lost or self.half_closed or not data:
            return
        self._to_send += data
        self.most_held = max(self.most_held, len(self._to_send))
        if self.takes:
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
        if self.lost or not self.takes or self.ended == "reset":
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
            self.most_held = max(self.most_held, len(self._to_deliver))
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
    """One request as a strict reader of RFC 9112 that shares no code with foreman takes it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def named(self, name: str) -> list[str]:
        """The values of the headers ``name``, lower case."""
        return [value for key, value in self.headers if key == name]


@define(eq=False)
class TargetConnection:
    """One connection of foreman to the target."""

    line: InMemoryTransport
    heard: ReceivedRequest | None = None
    answered: bool = False

    def read(self) -> ReceivedRequest | None:
        """The one request that came whole, or None as long as it has not.

        :raises h11.RemoteProtocolError: when it is not HTTP; AssertionError: when more came than one request.
        """
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        reader.receive_data(bytes(self.line.sent))
        request: Any = reader.next_event()
        if request is h11.NEED_DATA:
            return None
        body = b""
        while isinstance(event := reader.next_event(), h11.Data):
            body += event.data
        if event is h11.NEED_DATA:
            return None
        assert reader.trailing_data[0] == b"", f"more than one request: {bytes(self.line.sent)!r}"
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        return ReceivedRequest(request.method.decode(), request.target.decode("latin-1"), headers, body)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class InMemoryTarget:
    """A target in memory that keeps what it is asked.

    :ivar holds: it does not answer, polls excepted; :ivar silent: these neither; :ivar refuses: it takes no connections;
    :ivar takes: it reads what it is sent; :ivar hesitates: a connection is not made before ``connect_now``;
    :ivar answer: what to answer, as bytes.
    """

    clock: Clock
    answer: Callable[[ReceivedRequest], bytes]
    holds: bool = False
    silent: bool = False
    refuses: bool = False
    takes: bool = True
    hesitates: bool = False
    conversations: list[TargetConnection] = field(factory=list)
    _hesitating: list[tuple[Deferred[Any], Any]] = field(factory=list)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        if self.refuses:
            return fail(error.ConnectionRefusedError())
        if self.hesitates:
            connecting: Deferred[Any] = Deferred()
            self._hesitating.append((connecting, protocolFactory))
            return connecting
        return succeed(self._connected(protocolFactory))

    def connect_now(self) -> None:
        """Take the connections that are being made."""
        self.hesitates = False
        hesitating, self._hesitating = self._hesitating, []
        for connecting, factory in hesitating:
            if not connecting.called:
                connecting.callback(self._connected(factory))

    def _connected(self, protocolFactory: Any) -> Any:
        protocol = protocolFactory.buildProtocol(None)
        line = InMemoryTransport(self.clock, protocol, takes=self.takes)
        conversation = TargetConnection(line)
        line.on_write = lambda: self._told(conversation)
        self.conversations.append(conversation)
        protocol.makeConnection(line)
        return protocol

    @property
    def asked(self) -> list[TargetConnection]:
        """The connections that are not foreman's own polls."""
        return [
            one
            for one in self.conversations
            if not bytes(one.line.sent).startswith((b"GET /api/tags HTTP", b"GET /api/ps HTTP"))
        ]

    @property
    def heard(self) -> list[ReceivedRequest]:
        """The requests that came whole, polls left out; bytes that are no request fail here."""
        return [heard for one in self.asked if (heard := one.read()) is not None]

    def _told(self, conversation: TargetConnection) -> None:
        poll = bytes(conversation.line.sent).startswith((b"GET /api/tags HTTP", b"GET /api/ps HTTP"))
        if conversation.answered or self.silent or (self.holds and not poll):
            return
        heard = conversation.read()
        if heard is not None:
            conversation.answered = True
            self.clock.callLater(0, conversation.line.deliver, self.answer(heard))


def default_response(heard: ReceivedRequest) -> bytes:
    """What an Ollama with one model answers, as far as these tests care."""
    if heard.target == "/api/tags":
        return response_with_length(TAGS)
    if heard.target == "/api/ps":
        return response_with_length(PS)
    return response_with_length(CHAT)


def response_with_length(body: bytes, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """An answer with a length."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@define(eq=False)
class InMemoryClient:
    """A client on its connection."""

    line: InMemoryTransport
    _turn: Callable[[], None]

    def send(self, data: bytes) -> None:
        """Say something, and let foreman act on it."""
        self.line.deliver(data)
        self._turn()

    def leave(self, *, reset: bool = False) -> None:
        """Go away."""
        self.line.leave(error.ConnectionLost() if reset else None)
        self._turn()

    @property
    def received(self) -> bytes:
        """Everything that came."""
        return bytes(self.line.sent)

    def answers(self, *methods: str) -> list[Response]:
        """The answers that came whole; ``methods`` of the requests where one is HEAD."""
        return list(_answers(self.received, methods, closed=self.closed))

    @property
    def closed(self) -> bool:
        """Whether foreman has ended the connection, or says nothing more on it."""
        return bool(self.line.ended) or self.line.half_closed


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
    """A foreman without sockets, and what stands around it."""

    clock: Clock
    service: Foreman
    target: InMemoryTarget

    def turn(self, turns: int = 12) -> None:
        """Let everything happen that needs no time."""
        for _ in range(turns):
            self.clock.advance(0)

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass."""
        waited = 0.0
        while waited < seconds:
            self.clock.advance(min(step, seconds - waited))
            waited += step
        self.turn()

    def call(self, peer: str = "127.0.0.1", *, takes: bool = True) -> InMemoryClient:
        """A new connection."""
        connection = self.service.connections.buildProtocol(None)
        line = InMemoryTransport(self.clock, connection, peer, takes=takes)
        connection.makeConnection(line)
        self.turn()
        return InMemoryClient(line, self.turn)

    def ask(self, data: bytes, *methods: str) -> list[Response]:
        """Say ``data`` on a connection of its own, and the answers that came at once."""
        caller = self.call()
        caller.send(data)
        found = caller.answers(*methods)
        caller.leave()
        return found

    def ask_once(self, data: bytes, method: str = "GET") -> Response:
        """Like ``ask`` for one request."""
        (answer,) = self.ask(data, method)
        return answer


@contextmanager
def in_memory_foreman(**variables: str) -> Iterator[InMemoryForeman]:
    """A foreman whose target has one model, ``m``; ``variables`` as for ``bench.settings``."""
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
