"""The door: one connection of a client, with everything that is decided before a body is read.

Stock ``twisted.web`` runs the application only when a body is whole, and answers ``Expect: 100-continue`` before anybody
has looked at the request. Here the head alone decides: refuse, or read on. A refusal that comes before the body is
answered at once; then what still arrives is read and dropped for a moment, so that the client gets to see the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel

from foreman.util.deadline import Deadline
from foreman.web.server.arrival_rate import ArrivalRate
from foreman.web.server.connections import UNCOUNTED, Stage
from foreman.web.server.http_syntax import (
    CONTROL_BYTES,
    Chunks,
    field_problem,
    is_clean,
    is_trailer,
    known_version,
    line_problem,
    says_close,
)
from foreman.web.server.linger import Linger
from foreman.web.server.request import ClientRequest
from foreman.web.server.request_head import TOO_MANY

if TYPE_CHECKING:
    from foreman.web.server.factory import ConnectionFactory

#: The whole head of a request; Go allows 1 MiB, real ones with many cookies stay under 16 kB.
HEAD_BYTES = 64 * 1024
HEAD_LINES = 100
#: What a client may send behind a request that is being answered, before its connection is given up. Reading must go on
#: to notice that it left, and nobody pipelines this much.
PIPELINED_BYTES = 64 * 1024
#: How long a connection on standby, and one that was told to go, may take to go, in seconds.
HASTE = 2.0


class ClientConnection(HTTPChannel):
    """One connection of a client.

    :ivar in_body: the head of a request was let in, and its body is not whole; :ivar arrival: how it comes; :ivar address: whose
        connections count together; :ivar stage, held, quiet_since: kept by ``web.connections``.
    """

    factory: ConnectionFactory
    requestFactory: type[ClientRequest] = ClientRequest
    requests: list[ClientRequest]
    totalHeadersSize = HEAD_BYTES
    maxHeaders = HEAD_LINES
    MAX_LENGTH = HEAD_BYTES

    in_body = False
    arrival: ArrivalRate
    address = ""
    stage = Stage.QUIET
    held = 0
    quiet_since = 0.0
    _deadline: Deadline
    _between_requests = True
    _lingering = False
    _closing = False
    _linger: Linger | None = None
    _pipelined = 0
    _head_size = 0

    # Twisted tells what arrives

    def connectionMade(self) -> None:
        """A client is there: it has the time of one head to say something."""
        super().connectionMade()
        self._deadline = Deadline(self.factory.clock)
        self.factory.connections.admit(self)
        self._deadline.set(self._in_haste(self.factory.config.head_timeout), self._head_too_slow)

    def dataReceived(self, data: bytes) -> None:
        """Something arrived."""
        if self._linger is not None:
            self._linger.drop(data)
        if self._lingering or self._closing:
            return
        nested = self._busyReceiving
        LineReceiver.dataReceived(self, data)
        if not nested:
            self._count_held()
        if nested or self._lingering or self._closing or not self._buffer:
            return
        if self.paused:
            if len(self._buffer) > PIPELINED_BYTES:
                self.abort()
        elif self.line_mode:
            self._begin_head()
            begun = self._buffer[-len(data) - 1 :]
            if not is_clean(begun.removesuffix(b"\r")):
                self.refuse(400, CONTROL_BYTES)

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        if self._lingering:
            return
        self._begin_head()
        if problem := line_problem(line, is_first=not self.requests):
            self.refuse(*problem)
        else:
            super().lineReceived(line if self.requests else known_version(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line that is longer than a whole head may be."""
        self.refuse(431 if self.requests else 414, f"the head of a request may have {HEAD_BYTES} bytes")

    def headerReceived(self, line: bytes) -> bool:
        """One header; kept as it was written, since it goes to the target like that."""
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        if problem := field_problem(name.lower(), value):
            self.refuse(400, problem)
            return False
        accepted: bool = super().headerReceived(line)
        if accepted:
            request = self.requests[-1]
            request.raw_headers.append((name, value))
            if name.lower() == b"transfer-encoding":
                self._transferDecoder = Chunks(request.handleContentChunk, self._finishRequestBody)
        return accepted

    def allHeadersReceived(self) -> None:
        """The head is whole: decide."""
        request = self.requests[-1]
        request.head_received(self._command, self._path, self._version, self.length)
        closes = self.factory.draining or self._version != b"HTTP/1.1" or self.stage in UNCOUNTED
        self.persistent = not (closes or says_close(request.headers_named(b"connection")))
        has_body = self.length != 0
        self._deadline.clear()
        self._head_size = self._receivedHeaderSize
        self.factory.connections.move(self, Stage.BUSY)
        if request.refusal is not None and (has_body or request.doubtful):
            self.persistent = False
            self._lingering = True
            request.process()
        elif has_body:
            self.factory.connections.move(self, Stage.BODY)
            self.arrival = ArrivalRate(self.factory.clock.seconds(), request.upload)
            self._deadline.set(self.factory.config.body_timeout, self._check_body)
            self.in_body = True
            if request.expects_continue:
                self._send100Continue()
            if request.upload is not None:
                request.process()

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or of what a client sends before it has its answer."""
        if self._lingering:
            return
        if self._handlingRequest:
            # Unlike Twisted's own, this reads on, to notice when the client leaves.
            self._dataBuffer.append(data)
            self._pipelined += len(data)
            if self._pipelined > PIPELINED_BYTES:
                self.abort()
        else:
            self.arrival.add(len(data))
            super().rawDataReceived(data)
            self._look_at_chunk()

    def allContentReceived(self) -> None:
        """The body is whole."""
        if not self._lingering:
            self._deadline.clear()
            self.in_body = False
            self._pipelined = 0
            self.factory.connections.move(self, Stage.BUSY)
            super().allContentReceived()

    def _finishRequestBody(self, data: bytes) -> None:
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if all(is_trailer(bytes(line)) for line in trailers):
            super()._finishRequestBody(data)
            self._pipelined = len(data) if self._handlingRequest else 0
        else:
            self.refuse(400, "what stands behind the last chunk may not stand there (RFC 9112 section 7.1.2)")

    def requestDone(self, request: ClientRequest) -> None:
        """An answer was written to its end."""
        if self.in_body:
            # It came before the body's end: whatever still comes of that must not be read as a request.
            self._lingering = True
        self._deadline.clear()
        if self.persistent and not self._lingering:
            self._between_requests = True
            self._head_size = self._pipelined = 0
            self.factory.connections.move(self, Stage.QUIET)
            self._deadline.set(self.factory.config.idle_timeout, self.loseConnection)
            if self._dataBuffer and self._buffer:
                self._dataBuffer.append(self.clearLineBuffer())  # it came later, while the client read slowly
            if self.paused:
                self._networkProducer.pauseProducing()
        super().requestDone(request)
        self._count_held()

    # Twisted tells how fast the client reads

    def pauseProducing(self) -> None:
        """The client does not take what was written: begin no further request of those that it has sent."""
        super().pauseProducing()
        self.paused = True

    def resumeProducing(self) -> None:
        """The client has taken everything."""
        super().resumeProducing()
        self.paused = False
        if self._buffer:
            self.dataReceived(b"")

    # ending

    def loseConnection(self) -> None:
        """Close when everything is sent; a client that takes nothing is cut off after the stall limit."""
        if self._lingering and self.stage is not Stage.GONE:
            if self._linger is None:
                self.factory.connections.move(self, Stage.LINGERING)
                self._linger = Linger(self.factory.clock, self.transport, self._deadline)
            return
        self._closing = True
        self.factory.connections.move(self, Stage.CLOSING)
        self._deadline.set(self._in_haste(self.factory.config.stall_timeout), self.abort)
        super().loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """The client is gone."""
        self._deadline.clear()
        try:
            super().connectionLost(reason)
        finally:
            self.factory.connections.left(self)

    def drain(self) -> None:
        """foreman is stopping: close now, or after the answer that is under way."""
        self.persistent = False
        if not self.requests:
            self.loseConnection()

    def make_way(self, status: int, why: str) -> None:
        """Close now, since others wait for what this one takes: with ``status`` and ``why``, if it has begun a request."""
        if self.requests or not self._between_requests:
            self.refuse(status, why, log=False)
        else:
            self.loseConnection()

    def abort(self) -> None:
        """Cut the connection, so that nobody takes what was sent for whole."""
        cast("Any", self.transport).abortConnection()

    # refusing

    def refuse(self, status: int, message: str, *, log: bool = True) -> None:
        """Answer what cannot be read as a request, or not to its end, and close."""
        if self._lingering:
            return
        if not self.requests:
            self.requests.append(ClientRequest(self))
        request = self.requests[-1]
        if request.startedWriting:
            self.abort()  # an early answer to an upload: what was sent of it must not look whole
            return
        self.persistent = False
        self._lingering = True
        self._deadline.clear()
        request.refuse_unread(getattr(self, "_command", b"GET"), getattr(self, "_path", b"/"), status, message, log=log)

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self.refuse(431, f"the head of a request may have {HEAD_BYTES} bytes in {HEAD_LINES} headers")
        else:
            self.refuse(400, "this is not a request of HTTP/1.1 (RFC 9112)")

    def _look_at_chunk(self) -> None:
        """Refuse a chunk by its size, before it comes."""
        decoder: Any = self._transferDecoder
        if self.in_body and not self._lingering and self.length is None and decoder.state == "BODY":
            self.requests[-1].chunk_announced(decoder.length)

    # deadlines

    def _begin_head(self) -> None:
        if self._between_requests:
            self._between_requests = False
            self._deadline.set(self._in_haste(self.factory.config.head_timeout), self._head_too_slow)

    def _in_haste(self, limit: float) -> float:
        return min(limit, HASTE) if self.stage in UNCOUNTED else limit

    def _head_too_slow(self) -> None:
        if self._between_requests:
            self.loseConnection()
        elif self.stage is Stage.STANDBY:
            self.refuse(503, TOO_MANY, log=False)
        else:
            self.refuse(408, f"the head of a request must arrive within {self.factory.config.head_timeout:g} s")

    def _check_body(self) -> None:
        limit = self.factory.config.body_timeout
        if problem := self.arrival.problem(limit, self.factory.config.silence_timeout):
            self.refuse(*problem)
        else:
            self._deadline.set(limit, self._check_body)

    def _count_held(self) -> None:
        upload = self.requests[-1].upload if self.in_body and self.requests else None
        ahead = self._pipelined if upload is None else upload.waiting
        head = max(self._receivedHeaderSize, self._head_size) if self.requests else 0
        count = len(self._buffer) + head + ahead
        self.factory.connections.count_held(self, count)
