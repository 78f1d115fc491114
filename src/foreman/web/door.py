"""The door: one connection of a client, with everything that is decided before a body is read.

Stock ``twisted.web`` runs the application only when a body is whole, and answers ``Expect: 100-continue`` before anybody
has looked at the request. Here the head alone decides: refuse, or read on. A refusal that comes before the body is
answered at once; then what still arrives is read and dropped for a moment, so that the client gets to see the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel

from foreman.deadline import Deadline
from foreman.web.framing import LONGEST_METHOD, Chunks, field_problem, is_clean, is_trailer, known_version, says_close
from foreman.web.linger import Linger
from foreman.web.visit import Visit

if TYPE_CHECKING:
    from foreman.web.site import DoorFactory

#: The whole head of a request; Go allows 1 MiB, real ones with many cookies stay under 16 kB.
HEAD_BYTES = 64 * 1024
HEAD_LINES = 100
#: What a client may send behind a request that is being answered, before its connection is given up. Reading must go on
#: to notice that it left, and nobody pipelines this much.
PIPELINED_BYTES = 64 * 1024
#: The least that a body must bring on average, bytes a second (blobs: anything at all).
BODY_RATE = 1000


class Door(HTTPChannel):
    """One connection of a client.

    :ivar in_body: the head of a request was let in, and its body is not whole.
    """

    factory: DoorFactory
    requestFactory: type[Visit] = Visit
    requests: list[Visit]
    totalHeadersSize = HEAD_BYTES
    maxHeaders = HEAD_LINES
    MAX_LENGTH = HEAD_BYTES

    in_body = False
    _deadline: Deadline
    _between_requests = True
    _lingering = False
    _closing = False
    _linger: Linger | None = None
    _pipelined = 0
    _body_seen = 0
    _held_up = 0.0

    # Twisted tells what arrives

    def connectionMade(self) -> None:
        """A client is there: it has the time of one head to say something."""
        super().connectionMade()
        self._deadline = Deadline(self.factory.clock)
        if len(self.factory.open) > self.factory.config.max_connections:
            self.factory.crowded()
            self.refuse(503, "too many connections; try again soon (FOREMAN_MAX_CONNECTIONS)", log=False)
            return
        self._deadline.set(self.factory.config.head_timeout, self._head_too_slow)

    def dataReceived(self, data: bytes) -> None:
        """Something arrived."""
        if self._linger is not None:
            self._linger.drop(data)
        if self._lingering or self._closing:
            return
        nested = self._busyReceiving
        LineReceiver.dataReceived(self, data)
        if nested or self._lingering or self._closing or not self._buffer:
            return
        if self.paused:
            if len(self._buffer) > PIPELINED_BYTES:
                self.abort()
        elif self.line_mode:
            self._begin_head()
            begun = self._buffer[-len(data) - 1 :]
            if not is_clean(begun.removesuffix(b"\r")):
                self._refuse_control_bytes()

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        if self._lingering:
            return
        self._begin_head()
        if not is_clean(line):
            self._refuse_control_bytes()
        elif not self.requests and line.find(b" ") > LONGEST_METHOD:
            self.refuse(501, "no method has such a long name (RFC 9112 section 3)")
        elif not (self.requests or line.isascii()):
            self.refuse(400, "a request line is ASCII; other bytes are escaped (RFC 3986 section 2)")
        elif self.requests and line[:1] in (b" ", b"\t"):
            self.refuse(400, "a header may not continue on the next line (RFC 9112 section 5.2)")
        else:
            super().lineReceived(line if self.requests else known_version(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line that is longer than a whole head may be."""
        self.refuse(431 if self.requests else 414, f"the head of a request may have {HEAD_BYTES} bytes")

    def headerReceived(self, line: bytes) -> bool:
        """One header; kept as it was written, since it goes to the target like that."""
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        problem = field_problem(name.lower(), value)
        if problem is not None:
            self.refuse(400, problem)
            return False
        accepted: bool = super().headerReceived(line)
        if accepted:
            visit = self.requests[-1]
            visit.raw_headers.append((name, value))
            if name.lower() == b"transfer-encoding":
                self._transferDecoder = Chunks(visit.handleContentChunk, self._finishRequestBody)
        return accepted

    def allHeadersReceived(self) -> None:
        """The head is whole: decide."""
        visit = self.requests[-1]
        visit.head_received(self._command, self._path, self._version, self.length)
        closes = self.factory.draining or self._version != b"HTTP/1.1" or says_close(visit.headers_named(b"connection"))
        self.persistent = not closes
        has_body = self.length != 0
        self._deadline.clear()
        if visit.refusal is not None and (has_body or visit.doubtful):
            self.persistent = False
            self._lingering = True
            visit.process()
        elif has_body:
            self._body_seen, self._held_up = 0, 0.0
            self._deadline.set(self.factory.config.body_timeout, self._check_body)
            self.in_body = True
            if visit.expects_continue:
                self._send100Continue()
            if visit.upload is not None:
                visit.process()

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
            self._body_seen += len(data)
            super().rawDataReceived(data)
            self._look_at_chunk()

    def allContentReceived(self) -> None:
        """The body is whole."""
        if not self._lingering:
            self._deadline.clear()
            self.in_body = False
            self._pipelined = 0
            super().allContentReceived()

    def _finishRequestBody(self, data: bytes) -> None:
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if all(is_trailer(bytes(line)) for line in trailers):
            super()._finishRequestBody(data)
        else:
            self.refuse(400, "what stands behind the last chunk may not stand there (RFC 9112 section 7.1.2)")

    def requestDone(self, request: Visit) -> None:
        """An answer was written to its end."""
        if self.in_body:
            # It came before the body's end: whatever still comes of that must not be read as a request.
            self._lingering = True
        self._deadline.clear()
        if self.persistent and not self._lingering:
            self._between_requests = True
            self._deadline.set(self.factory.config.idle_timeout, self.loseConnection)
            if self._dataBuffer and self._buffer:
                self._dataBuffer.append(self.clearLineBuffer())  # it came later, while the client read slowly
            if self.paused:
                self._networkProducer.pauseProducing()
        super().requestDone(request)

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
        if self._lingering:
            if self._linger is None:
                self._linger = Linger(self.factory.clock, self.transport, self._deadline)
            return
        self._closing = True
        self._deadline.set(self.factory.config.stall_timeout, self.abort)
        super().loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """The client is gone."""
        self._deadline.clear()
        super().connectionLost(reason)
        self.factory.left(self)

    def drain(self) -> None:
        """foreman is stopping: close now, or after the answer that is under way."""
        self.persistent = False
        if not self.requests:
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
            self.requests.append(Visit(self))
        visit = self.requests[-1]
        if visit.startedWriting:
            self.abort()  # an early answer to an upload: what was sent of it must not look whole
            return
        self.persistent = False
        self._lingering = True
        self._deadline.clear()
        visit.refuse_unread(getattr(self, "_command", b"GET"), getattr(self, "_path", b"/"), status, message, log=log)

    def _refuse_control_bytes(self) -> None:
        self.refuse(400, "a head has no control bytes, and its lines end in CRLF (RFC 9112 section 2.2)")

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
            self._deadline.set(self.factory.config.head_timeout, self._head_too_slow)

    def _head_too_slow(self) -> None:
        if self._between_requests:
            self.loseConnection()
        else:
            self.refuse(408, f"the head of a request must arrive within {self.factory.config.head_timeout:g} s")

    def _check_body(self) -> None:
        config = self.factory.config
        limit, seen, upload = config.body_timeout, self._body_seen, self.requests[-1].upload
        held_up = upload is not None and upload.was_held_up()
        self._held_up = self._held_up + limit if held_up and not seen else 0.0
        least = 1 if upload is not None else BODY_RATE * limit
        if self._held_up >= config.silence_timeout:
            self.refuse(502, f"the target took nothing of this body for {self._held_up:g} s")
        elif seen >= least or held_up:
            self._body_seen = 0
            self._deadline.set(limit, self._check_body)
        else:
            self.refuse(408, f"the body came too slowly: less than {least:g} bytes in {limit:g} s")
