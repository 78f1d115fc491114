"""Connections: requests are parsed by llhttp, and answered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from foreman.simulator.server.exchange import Exchange, Headers
from foreman.simulator.server.incoming_request import IncomingRequest
from foreman.simulator.server.interfaces import Application
from foreman.simulator.server.response_writer import HttpResponseWriter

#: Go reads at most this much of a body that the handler does not need; then it closes the connection. Bytes.
_MAX_UNREAD_BODY = 256 << 10
_MAX_HEAD = (1 << 20) + 4096
_LINGER = 0.5
_LENIENT = {"lenient_chunked_length": True, "lenient_data_after_close": True}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """One client's connection."""

    transport: Any  # of TCP, or a fake in memory

    def __init__(self, app: Application) -> None:
        self.app = app
        self.clock = app.clock
        self.number = 0
        self._pipeline: deque[IncomingRequest] = deque()
        self._reading: IncomingRequest | None = None
        self._parser = self._fresh_parser()
        self._target = b""
        self._headers: Headers = []
        self._head_size = 0
        self._starting = self._resuming_body = False
        self._producing = False
        self._input_closed = self._lost = False
        self._timers: list[IDelayedCall] = []

    @property
    def current(self) -> Exchange | None:
        """The exchange at the front of the pipeline."""
        return self._pipeline[0].exchange if self._pipeline else None

    def connectionMade(self) -> None:
        """Go sends small packets at once."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.app.connection_made(self)

    def _fresh_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(**_LENIENT)
        return parser

    def dataReceived(self, data: bytes) -> None:
        """Parse more; a malformed request gets Go's minimal error response, and the connection is closed."""
        if self._input_closed:
            return
        if self._reading is None:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # Go ignores the header
            self._parser = self._fresh_parser()
            self._go_on_with_body()
            if upgrade.args[0] < len(data):
                self.dataReceived(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(
                "505 HTTP Version Not Supported: unsupported protocol version"
                if "version" in str(error)
                else "400 Bad Request"
            )
        if self._reading is None and self._head_size > _MAX_HEAD:
            self._refuse("431 Request Header Fields Too Large")

    def _go_on_with_body(self) -> None:
        """Parse the body with a fresh parser, since llhttp stops after a head with ``Upgrade``."""
        if self._reading is not None:
            self._resuming_body = True
            self._parser.feed_data(self._reading.head_of_body())
            self._resuming_body = False

    def _refuse(self, text: str) -> None:
        """Send Go's error for what is not a valid request; while another request is being answered, only close."""
        if self._input_closed or self._lost:
            return
        self._input_closed = True
        if self._pipeline and self._pipeline[0].complete:
            self._pipeline[0].exchange.keep_alive = False
            return
        head = f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
        self.transport.write((head + text).encode())
        self._linger()

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._resuming_body:
            return
        self._target, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, as the client spelled it."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._resuming_body:
            return
        low: dict[str, str] = {}
        for name, value in self._headers:
            low.setdefault(name.lower(), value)
        version = f"HTTP/{self._parser.get_http_version()}"
        writer = HttpResponseWriter(self)
        method, target = self._parser.get_method().decode("ascii"), self._target.decode("latin-1")
        keep_alive = self._parser.should_keep_alive()
        exchange = Exchange(method, target, version, self._headers, keep_alive, self.app.date, writer)
        writer.exchange = exchange
        path, _, exchange.query = exchange.target.partition("?")
        if "://" in path[:9]:
            path = "/" + path.split("://", 1)[1].partition("/")[2]
        exchange.path = unquote(path)
        chunked = "transfer-encoding" in low
        length = -1 if chunked else int(low.get("content-length") or 0)
        self._reading = request = IncomingRequest(exchange, length, low.get("expect", "").lower())
        self._head_size, self._headers = 0, []  # trailers are ignored
        if sum(len(name) + len(value) for name, value in exchange.headers) > _MAX_HEAD:
            self._refuse("431 Request Header Fields Too Large")
            return
        if "host" not in low and version == "HTTP/1.1":
            self._refuse("400 Bad Request: missing required Host header")
            return
        self._pipeline.append(request)
        self._start_next()

    def _start_next(self) -> None:
        """Start the request at the front; a loop, so that requests that are answered at once do not nest."""
        if self._starting:
            return
        self._starting = True
        while self._pipeline and not self._pipeline[0].started:
            self._start(self._pipeline[0])
        self._starting = False

    def _start(self, request: IncomingRequest) -> None:
        """A request is at the front of the pipeline: read its body, or respond without it."""
        exchange, request.started = request.exchange, True
        if request.expect not in {"", "100-continue"}:
            exchange.keep_alive = False
            exchange.respond(417, [("Connection", "close")])
            return
        request.receiver = self.app.request_started(self, exchange)
        if exchange.ended:
            return
        if request.receiver is None and (request.length > _MAX_UNREAD_BODY or (request.expect and request.length != 0)):
            self._answer_without_body(request)
            return
        if request.expect and request.length != 0 and not request.complete:
            self.transport.write(_CONTINUE)
        for data in request.buffered:
            self._receive_body(request, data)
        request.buffered.clear()
        if request.complete:
            self._body_complete(request)

    def _answer_without_body(self, request: IncomingRequest) -> None:
        request.exchange.keep_alive = False
        self.app.answer(request.exchange)

    def _receive_body(self, request: IncomingRequest, data: bytes) -> None:
        if request.exchange.ended:
            return
        if request.receiver is not None:
            request.receiver.receive(data)
            return
        request.discarded += len(data)
        if request.discarded > _MAX_UNREAD_BODY:
            self._answer_without_body(request)

    def _body_complete(self, request: IncomingRequest) -> None:
        if request.exchange.ended:
            return
        if request.receiver is not None:
            request.receiver.complete()
        else:
            self.app.answer(request.exchange)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        request = self._reading
        if request is None or self._input_closed:
            return
        if request.started:
            self._receive_body(request, data)
        else:
            request.buffered.append(data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._reading is not None and self._reading.length and self._parser.should_upgrade():
            return  # its body has not arrived yet
        request, self._reading = self._reading, None
        if request is None or self._input_closed:
            return
        request.complete = True
        if request.started:
            self._body_complete(request)

    def response_streaming(self, exchange: Exchange) -> None:
        """A response of unknown length begins: pause its producer while the client reads slowly."""
        if not self._producing and not self._lost:
            self._producing = True
            self.transport.registerProducer(exchange, True)

    def response_finished(self, exchange: Exchange) -> None:
        """A response is complete: start the next request, or close."""
        self._unregister_producer()
        request = self._pipeline.popleft() if self._pipeline and self._pipeline[0].exchange is exchange else None
        if exchange.on_finish is not None:
            exchange.on_finish(exchange.status)
        if not exchange.keep_alive or (request is not None and not request.complete):
            self._pipeline.clear()
            self._input_closed = True
            if request is not None and not request.complete:
                self._linger()
            else:
                self.transport.loseConnection()
        else:
            self._start_next()

    def _unregister_producer(self) -> None:
        if self._producing and not self._lost:
            self._producing = False
            self.transport.unregisterProducer()

    def _linger(self) -> None:
        """Close after a delay, so that a client that is still sending can read the response."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.loseWriteConnection()
        self.call_later(_LINGER, self.transport.loseConnection)

    def call_later(self, delay: float, do: Callable[..., object], *args: object) -> None:
        """Call ``do`` after ``delay`` seconds, unless the client has disconnected by then."""
        self._timers = [timer for timer in self._timers if timer.active()]
        if not self._lost:
            self._timers.append(self.app.clock.callLater(delay, do, *args))

    def abort(self) -> None:
        """Reset the connection, so that the client sees a broken transfer."""
        self._input_closed = True
        if not self._lost:
            self._unregister_producer()
            self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The client has closed its side: Ollama then cancels an inference, as if it had disconnected (contract 0.3)."""
        exchange = self.current
        if exchange is not None and exchange.started and exchange.on_half_close is not None:
            exchange.keep_alive = False
            exchange.on_half_close()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The client reads no more."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed."""
        exchange = self.current
        self._pipeline.clear()
        self._input_closed = self._lost = True
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._unregister_producer()
        self.app.connection_lost(self, exchange)
        if exchange is not None and not exchange.ended:
            exchange.ended = True
            if exchange.on_disconnect is not None:
                exchange.on_disconnect()
