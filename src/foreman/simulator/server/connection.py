"""Connections: requests are read with llhttp, and answered one after the other."""

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
from foreman.simulator.server.interfaces import Site
from foreman.simulator.server.plain_wire import PlainWire
from foreman.simulator.server.request import Arriving

#: Beyond this, Go closes a connection rather than read the rest of a body that nobody wants.
_UNWANTED = 256 << 10
_HEAD_LIMIT = (1 << 20) + 4096
_LINGER = 0.5
_LENIENT = {"lenient_chunked_length": True, "lenient_data_after_close": True}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """One client's connection."""

    transport: Any  # a TCP one, or what stands for it in memory

    def __init__(self, site: Site) -> None:
        self.site = site
        self.clock = site.clock
        self.number = 0
        self._line: deque[Arriving] = deque()
        self._reading: Arriving | None = None
        self._parser = self._fresh_parser()
        self._target = b""
        self._headers: Headers = []
        self._size = 0
        self._opening = self._again = False
        self._producing = False
        self._deaf = self._gone = False
        self._timers: list[IDelayedCall] = []

    @property
    def current(self) -> Exchange | None:
        """The exchange that is being answered."""
        return self._line[0].exchange if self._line else None

    def connectionMade(self) -> None:
        """Go sends small packets at once."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.site.connected(self)

    def _fresh_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(**_LENIENT)
        return parser

    def dataReceived(self, data: bytes) -> None:
        """Read on; what cannot be read gets Go's bare answer and the connection ends."""
        if self._deaf:
            return
        if self._reading is None:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # Go takes no notice of it
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
        if self._reading is None and self._size > _HEAD_LIMIT:
            self._refuse("431 Request Header Fields Too Large")

    def _go_on_with_body(self) -> None:
        """Have a fresh parser read the body that llhttp left behind a head with ``Upgrade``."""
        if self._reading is not None:
            self._again = True
            self._parser.feed_data(self._reading.head_of_body())
            self._again = False

    def _refuse(self, text: str) -> None:
        """What Go says before there is a request at all; after one that is being answered, it just closes."""
        if self._deaf or self._gone:
            return
        self._deaf = True
        if self._line and self._line[0].whole:
            self._line[0].exchange.keep = False
            return
        head = f"HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
        self.transport.write((head + text).encode())
        self._linger()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._again:
            return
        self._target, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, in the spelling of the client."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._again:
            return
        low: dict[str, str] = {}
        for name, value in self._headers:
            low.setdefault(name.lower(), value)
        version = f"HTTP/{self._parser.get_http_version()}"
        wire = PlainWire(self)
        method, target = self._parser.get_method().decode("ascii"), self._target.decode("latin-1")
        keep = self._parser.should_keep_alive()
        exchange = Exchange(method, target, version, self._headers, keep, self.site.date, wire)
        wire.exchange = exchange
        path, _, exchange.query = exchange.target.partition("?")
        if "://" in path[:9]:
            path = "/" + path.split("://", 1)[1].partition("/")[2]
        exchange.path = unquote(path)
        chunked = "transfer-encoding" in low
        length = -1 if chunked else int(low.get("content-length") or 0)
        self._reading = arriving = Arriving(exchange, length, low.get("expect", "").lower())
        self._size, self._headers = 0, []  # what follows in a trailer is not looked at
        if sum(len(name) + len(value) for name, value in exchange.headers) > _HEAD_LIMIT:
            self._refuse("431 Request Header Fields Too Large")
            return
        if "host" not in low and version == "HTTP/1.1":
            self._refuse("400 Bad Request: missing required Host header")
            return
        self._line.append(arriving)
        self._next()

    def _next(self) -> None:
        """Open the request at the front. Those that are answered at once do not pile up on the stack."""
        if self._opening:
            return
        self._opening = True
        while self._line and not self._line[0].open:
            self._open(self._line[0])
        self._opening = False

    def _open(self, arriving: Arriving) -> None:
        """A request has come to the front: its body may be read, or left."""
        exchange, arriving.open = arriving.exchange, True
        if arriving.expect not in {"", "100-continue"}:
            exchange.keep = False
            exchange.respond(417, [("Connection", "close")])
            return
        arriving.taker = self.site.opened(self, exchange)
        if exchange.ended:
            return
        if arriving.taker is None and (arriving.length > _UNWANTED or (arriving.expect and arriving.length != 0)):
            self._without_body(arriving)
            return
        if arriving.expect and arriving.length != 0 and not arriving.whole:
            self.transport.write(_CONTINUE)
        for data in arriving.kept:
            self._taken(arriving, data)
        arriving.kept.clear()
        if arriving.whole:
            self._whole(arriving)

    def _without_body(self, arriving: Arriving) -> None:
        arriving.exchange.keep = False
        self.site.answer(arriving.exchange)

    def _taken(self, arriving: Arriving, data: bytes) -> None:
        if arriving.exchange.ended:
            return
        if arriving.taker is not None:
            arriving.taker.take(data)
            return
        arriving.dropped += len(data)
        if arriving.dropped > _UNWANTED:
            self._without_body(arriving)

    def _whole(self, arriving: Arriving) -> None:
        if arriving.exchange.ended:
            return
        if arriving.taker is not None:
            arriving.taker.taken()
        else:
            self.site.answer(arriving.exchange)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        arriving = self._reading
        if arriving is None or self._deaf:
            return
        if arriving.open:
            self._taken(arriving, data)
        else:
            arriving.kept.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._reading is not None and self._reading.length and self._parser.should_upgrade():
            return  # its body is still to come
        arriving, self._reading = self._reading, None
        if arriving is None or self._deaf:
            return
        arriving.whole = True
        if arriving.open:
            self._whole(arriving)

    def streaming(self, exchange: Exchange) -> None:
        """An answer of unknown length begins: its maker minds how fast it is read."""
        if not self._producing and not self._gone:
            self._producing = True
            self.transport.registerProducer(exchange, True)

    def answered(self, exchange: Exchange) -> None:
        """An answer is whole: the next request, or the end."""
        self._quiet()
        arriving = self._line.popleft() if self._line and self._line[0].exchange is exchange else None
        if exchange.on_end is not None:
            exchange.on_end(exchange.status)
        if not exchange.keep or (arriving is not None and not arriving.whole):
            self._line.clear()
            self._deaf = True
            if arriving is not None and not arriving.whole:
                self._linger()
            else:
                self.transport.loseConnection()
        else:
            self._next()

    def _quiet(self) -> None:
        if self._producing and not self._gone:
            self._producing = False
            self.transport.unregisterProducer()

    def _linger(self) -> None:
        """Close only after a while, so that a client that still sends can read the answer."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.loseWriteConnection()
        self.later(_LINGER, self.transport.loseConnection)

    def later(self, delay: float, do: Callable[..., object], *args: object) -> None:
        """Do something after a while, unless the client is gone by then."""
        self._timers = [timer for timer in self._timers if timer.active()]
        if not self._gone:
            self._timers.append(self.site.clock.callLater(delay, do, *args))

    def cut(self) -> None:
        """Close in the middle of whatever is being sent, so that the client sees a broken transfer."""
        self._deaf = True
        if not self._gone:
            self._quiet()
            self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The client sends nothing more: for an inference that is as if it had left (contract 0.3)."""
        exchange = self.current
        if exchange is not None and exchange.begun and exchange.on_half_gone is not None:
            exchange.keep = False
            exchange.on_half_gone()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing more can be sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client has left."""
        exchange = self.current
        self._line.clear()
        self._deaf = self._gone = True
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._quiet()
        self.site.lost(self, exchange)
        if exchange is not None and not exchange.ended:
            exchange.ended = True
            if exchange.on_gone is not None:
                exchange.on_gone()
