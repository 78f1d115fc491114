"""One connection of a client: reads requests, has them admitted by their heads, and limits how long each phase lasts.

Stock ``twisted.web`` runs the application only when a body is whole, and answers ``Expect: 100-continue`` before the
application has seen the request. Here the head alone decides: refuse, or read on. A request that is refused before its body is
whole is answered at once; then what still arrives is read and dropped for a moment, so that the client receives the
answer.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel

from foreman.util.deadline import Deadline
from foreman.web.server.body_rate import BodyRate
from foreman.web.server.http_syntax import (
    CONTROL_BYTES,
    StrictChunkedDecoder,
    field_problem,
    is_allowed_trailer,
    is_clean,
    line_problem,
    says_close,
    with_known_version,
)
from foreman.web.server.interfaces import Server
from foreman.web.server.linger import Linger
from foreman.web.server.phases import DROPPING, ENDING, LIMITS, UNCOUNTED_TIMEOUT, Expiry, Phase, Place
from foreman.web.server.request import TOO_MANY_CONNECTIONS, ClientRequest
from foreman.web.server.request_head import Refused

#: The most bytes of the head of a request; Go allows 1 MiB, real heads with many cookies stay under 16 kB.
MAX_HEAD = 64 * 1024
MAX_HEADERS = 100
#: What a client may send after a request that is being answered, in bytes, before its connection is cut. Reading goes on to
#: notice that the client leaves; no real client pipelines this much.
MAX_PIPELINED = 64 * 1024


class ClientConnection(HTTPChannel):
    """One connection of a client.

    :ivar phase, place, held, quiet_since: kept by ``Connections``; :ivar arrival: how the body arrives, from the phase BODY
        on; :ivar address: whose connections count together.
    """

    factory: Server
    requestFactory: type[ClientRequest] = ClientRequest
    requests: list[ClientRequest]
    totalHeadersSize = MAX_HEAD
    maxHeaders = MAX_HEADERS
    MAX_LENGTH = MAX_HEAD

    phase = Phase.NEW
    place = Place.COUNTED
    arrival: BodyRate
    address = ""
    held = 0
    quiet_since = 0.0
    persistent: bool
    _deadline: Deadline
    _linger: Linger | None = None
    _pipelined = 0
    _head_size = 0

    # what arrives

    def connectionMade(self) -> None:
        """A client has connected."""
        super().connectionMade()
        self._deadline = Deadline(self.factory.clock)
        self.factory.connections.admit(self)
        self._set_limit()

    def dataReceived(self, data: bytes) -> None:
        """Data arrived."""
        if self._linger is not None:
            self._linger.drop(data)
        if self.phase in ENDING:
            return
        nested = self._busyReceiving
        LineReceiver.dataReceived(self, data)
        if not nested:
            self._count_held()
        if nested or self.phase in ENDING or not self._buffer:
            return
        if self.paused:
            if len(self._buffer) > MAX_PIPELINED:
                self.abort()
        elif self.line_mode:
            self._begin_head()
            partial_line = self._buffer[-len(data) - 1 :]
            if not is_clean(partial_line.removesuffix(b"\r")):
                self.refuse(400, CONTROL_BYTES)

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        if self.phase in DROPPING:
            return
        self._begin_head()
        if problem := line_problem(line, is_first=not self.requests):
            self.refuse(*problem)
        else:
            super().lineReceived(line if self.requests else with_known_version(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line is longer than a whole head may be."""
        self.refuse(431 if self.requests else 414, f"the head of a request may have {MAX_HEAD} bytes")

    def headerReceived(self, line: bytes) -> bool:
        """One header; it is kept as it was written, since it goes to the target like that."""
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
                self._transferDecoder = StrictChunkedDecoder(request.handleContentChunk, self._finishRequestBody)
        return accepted

    def allHeadersReceived(self) -> None:
        """The head is whole: decide."""
        request = self.requests[-1]
        decision = request.head_received(self._command, self._path, self._version, self.length)
        closes = self.factory.draining or self._version != b"HTTP/1.1" or self.place is not Place.COUNTED
        self.persistent = not (closes or says_close(request.headers_named(b"connection")))
        has_body = self.length != 0
        self._head_size = self._receivedHeaderSize
        if isinstance(decision, Refused):
            if has_body or decision.must_close:
                self.persistent = False
                self._enter(Phase.REFUSING)
                request.process()
            else:
                self._enter(Phase.RESPONDING)
        elif has_body:
            self.arrival = BodyRate(self.factory.clock.seconds(), request.upload)
            self._enter(Phase.BODY)
            if decision.expects_continue:
                self._send100Continue()
            if request.upload is not None:
                request.process()
        else:
            self._enter(Phase.RESPONDING)

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or of what a client sends before its request has been answered."""
        if self.phase in DROPPING:
            return
        if self._handlingRequest:
            # Unlike Twisted's own, this reads on, to notice when the client leaves.
            self._dataBuffer.append(data)
            self._pipelined += len(data)
            if self._pipelined > MAX_PIPELINED:
                self.abort()
        else:
            self.arrival.add(len(data))
            super().rawDataReceived(data)
            self._check_chunk()

    def allContentReceived(self) -> None:
        """The body is whole."""
        if self.phase not in DROPPING:
            if self.phase is Phase.BODY:
                self._enter(Phase.RESPONDING)
            self._pipelined = 0
            super().allContentReceived()

    def _finishRequestBody(self, data: bytes) -> None:
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if all(is_allowed_trailer(bytes(line)) for line in trailers):
            super()._finishRequestBody(data)
            self._pipelined = len(data) if self._handlingRequest else 0
        else:
            self.refuse(400, "a header after the last chunk is not allowed there (RFC 9112 section 7.1.2)")

    def requestDone(self, request: ClientRequest) -> None:
        """An answer was written to its end."""
        if self.phase is Phase.BODY:
            # The answer ended before the body: what still arrives of the body must not be read as a request.
            self._enter(Phase.REFUSING)
        if self.persistent and self.phase not in ENDING:
            self._head_size = self._pipelined = 0
            self._enter(Phase.IDLE)
            if self._dataBuffer and self._buffer:
                self._dataBuffer.append(self.clearLineBuffer())  # it arrived later, while the client read slowly
            if self.paused:
                self._networkProducer.pauseProducing()
        super().requestDone(request)
        self._count_held()

    # how fast the client reads

    def pauseProducing(self) -> None:
        """The client does not read what was written: begin no further request of those that it has sent."""
        super().pauseProducing()
        self.paused = True

    def resumeProducing(self) -> None:
        """Everything was sent to the client."""
        super().resumeProducing()
        self.paused = False
        if self._buffer:
            self.dataReceived(b"")

    # closing

    def loseConnection(self) -> None:
        """Close when everything is sent; or linger, where an answer was written before its request had arrived completely."""
        if self.phase in DROPPING and self.place is not Place.EVICTED:
            if self.phase is Phase.REFUSING:
                self._linger = Linger(self.factory.clock, self.transport, self._deadline)
                self._enter(Phase.LINGERING)
            return
        self._enter(Phase.CLOSING)
        super().loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """The client is gone."""
        self._deadline.clear()
        try:
            super().connectionLost(reason)
        finally:
            self.factory.connections.remove(self)

    def drain(self) -> None:
        """foreman is stopping: close now, or after the answer that is under way."""
        self.persistent = False
        if not self.requests:
            self.loseConnection()

    def make_room(self, status: int, why: str) -> None:
        """Close, since others need the place; with ``status`` and ``why``, if a request has begun."""
        if self.requests or self.phase not in (Phase.NEW, Phase.IDLE):
            self.refuse(status, why, log=False)
        else:
            self.loseConnection()

    def abort(self) -> None:
        """Cut the connection, so that an incomplete answer does not look complete."""
        cast("Any", self.transport).abortConnection()

    # refusing

    def refuse(self, status: int, message: str, *, log: bool = True) -> None:
        """Refuse a request that cannot be read, or not completely, and close the connection."""
        if self.phase in DROPPING:
            return
        if not self.requests:
            self.requests.append(ClientRequest(self))
        request = self.requests[-1]
        if request.startedWriting:
            self.abort()  # an early answer to an upload: an incomplete one must not look complete
            return
        self.persistent = False
        self._enter(Phase.REFUSING)
        request.refuse_unread(getattr(self, "_command", b"GET"), getattr(self, "_path", b"/"), status, message, log=log)

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self.refuse(431, f"the head of a request may have {MAX_HEAD} bytes in {MAX_HEADERS} headers")
        else:
            self.refuse(400, "this is not an HTTP/1.1 request (RFC 9112)")

    def _check_chunk(self) -> None:
        """Refuse a chunk that is too large before it arrives."""
        decoder: Any = self._transferDecoder
        if self.phase is Phase.BODY and self.length is None and decoder.state == "BODY":
            self.requests[-1].chunk_announced(decoder.length)

    # phases

    def _enter(self, phase: Phase) -> None:
        self.factory.connections.move(self, phase)
        self._set_limit()

    def _set_limit(self) -> None:
        limit = LIMITS[self.phase]
        if limit is None:
            self._deadline.clear()
            return
        seconds = limit.seconds
        if isinstance(seconds, str):
            seconds = float(getattr(self.factory.config, seconds))
        self._deadline.set(seconds if self.place is Place.COUNTED else min(seconds, UNCOUNTED_TIMEOUT), self._expired)

    def _expired(self) -> None:
        """The phase has lasted too long."""
        limit = LIMITS[self.phase]
        assert limit is not None
        if limit.then is Expiry.CLOSE:
            self.loseConnection()
        elif limit.then is Expiry.ABORT:
            self.abort()
        elif limit.then is Expiry.REFUSE:
            self._refuse_slow_head()
        elif limit.then is Expiry.CHECK_BODY:
            self._check_body()
        elif self._linger is not None:
            self._linger.end()

    def _begin_head(self) -> None:
        if self.phase is Phase.NEW or self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)

    def _refuse_slow_head(self) -> None:
        if self.place is Place.STANDBY:
            self.refuse(503, TOO_MANY_CONNECTIONS, log=False)
        else:
            self.refuse(408, f"the head of a request must arrive within {self.factory.config.head_timeout:g} s")

    def _check_body(self) -> None:
        config = self.factory.config
        if problem := self.arrival.problem(config.body_timeout, config.silence_timeout):
            self.refuse(*problem)
        else:
            self._set_limit()

    def _count_held(self) -> None:
        upload = self.requests[-1].upload if self.phase is Phase.BODY and self.requests else None
        ahead = self._pipelined if upload is None else upload.buffered
        head = max(self._receivedHeaderSize, self._head_size) if self.requests else 0
        count = len(self._buffer) + head + ahead
        self.factory.connections.count_held(self, count)
