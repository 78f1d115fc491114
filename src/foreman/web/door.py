"""The door: one connection and one request of a client, with everything that is decided before a body is read.

Stock ``twisted.web`` runs the application only when a body is whole, and answers ``Expect: 100-continue`` before anybody
has looked at the request. Here the head alone decides: refuse, or read on. A refusal that comes before the body is
answered at once; then what still arrives is read and dropped for a moment, so that the client gets to see the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IDelayedCall, ISSLTransport, ITCPTransport
from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel

from foreman.web.visit import Visit

if TYPE_CHECKING:
    from foreman.web.site import DoorFactory

#: The whole head of a request; Go allows 1 MiB, real ones with many cookies stay under 16 kB.
HEAD_BYTES = 64 * 1024
HEAD_LINES = 100
#: What a client may send behind a request that is being answered, before its connection is given up. Reading must go on
#: to notice that it left, and nobody pipelines this much.
PIPELINED_BYTES = 64 * 1024
#: How much of a refused body is read and dropped, and for how long, so that the client reads the answer first.
LINGER_BYTES = 1024 * 1024
LINGER_SECONDS = 2.0
#: The least that a body must bring on average, bytes a second (blobs: anything at all).
BODY_RATE = 1000


class Door(HTTPChannel):
    """One connection of a client. At most one deadline runs at a time: for a head, a body, or the next request."""

    factory: DoorFactory
    requestFactory: type[Visit] = Visit
    requests: list[Visit]
    totalHeadersSize = HEAD_BYTES
    maxHeaders = HEAD_LINES
    MAX_LENGTH = HEAD_BYTES

    _deadline: IDelayedCall | None = None
    _between_requests = True
    _lingering = False
    _dropped = 0
    _pipelined = 0
    _in_body = False
    _body_seen = 0

    # Twisted tells what arrives

    def connectionMade(self) -> None:
        """A client is there: it has the time of one head to say something."""
        super().connectionMade()
        if len(self.factory.open) > self.factory.config.max_connections:
            self.factory.crowded()
            self.refuse(503, "too many connections; try again soon (FOREMAN_MAX_CONNECTIONS)", log=False)
            return
        self._arm(self.factory.config.head_timeout, self._head_too_slow)

    def dataReceived(self, data: bytes) -> None:
        """Something arrived."""
        if self._lingering:
            self._drop(data)
            return
        if self._between_requests:
            self._begin_head()
        LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        """A line of a head."""
        if self._lingering:
            return
        if line[:1] in (b" ", b"\t") and self.requests and self.requests[-1].raw_headers:
            self.refuse(400, "a header may not continue on the next line (RFC 9112 section 5.2)")
            return
        super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """A line that is longer than a whole head may be."""
        self.refuse(431, f"the head of a request may have {HEAD_BYTES} bytes")

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, or of what a client sends before it has its answer."""
        if self._lingering:
            self._drop(data)
            return
        if self._handlingRequest:
            self._pipelined += len(data)
            if self._pipelined > PIPELINED_BYTES:
                cast("Any", self.transport).abortConnection()
                return
        else:
            self._body_seen += len(data)
        super().rawDataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        """One header; kept as it was written, since it goes to the target like that."""
        if self._lingering:
            return False
        accepted: bool = super().headerReceived(line)
        if accepted:
            name, _, value = line.partition(b":")
            self.requests[-1].raw_headers.append((name, value.strip(b" \t")))
        return accepted

    def allHeadersReceived(self) -> None:
        """The head is whole: decide."""
        visit = self.requests[-1]
        self.persistent = not self.factory.draining and self.checkPersistence(visit, self._version)
        visit.head_received(self._command, self._path, self._version, self.length)
        has_body = self.length != 0
        if visit.refusal is not None and has_body:
            self.persistent = False
            self._disarm()
            self._lingering = True
            visit.process()
            return
        if has_body:
            self._body_seen = 0
            self._arm(self.factory.config.body_timeout, self._check_body)
            self._in_body = True
            if visit.expects_continue:
                self._send100Continue()
            if visit.upload is not None:
                visit.process()
        else:
            self._disarm()

    def allContentReceived(self) -> None:
        """The body is whole."""
        if not self._lingering:
            self._disarm()
            self._in_body = False
            self._pipelined = 0
            super().allContentReceived()

    def requestDone(self, request: Visit) -> None:
        """An answer was written to its end."""
        if self._in_body:
            # It came before the body's end: whatever still comes of that must not be read as a request.
            self.persistent = False
            self._lingering = True
            self._disarm()
        if self.persistent and not self._lingering:
            self._between_requests = True
            self._arm(self.factory.config.idle_timeout, self._close_quietly)
            if self._dataBuffer:
                self._begin_head()
        super().requestDone(request)

    def loseConnection(self) -> None:
        """Close when everything is sent; a client that takes nothing is cut off after the stall limit."""
        if self._lingering:
            self._linger()
            return
        self._arm(self.factory.config.stall_timeout, self.abort)
        super().loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """The client is gone."""
        self._disarm()
        super().connectionLost(reason)
        self.factory.left(self)

    def drain(self) -> None:
        """foreman is stopping: close now, or after the answer that is under way."""
        self.persistent = False
        if not self.requests:
            self.loseConnection()

    # refusing

    def refuse(self, status: int, message: str, *, log: bool = True) -> None:
        """Answer what cannot be read as a request, and close."""
        if self.requests and self.requests[-1].upload is not None:
            self.abort()  # its route runs already, and the target waits for the rest
        elif not self._lingering:
            self.persistent = False
            self._disarm()
            self._lingering = True
            if self.requests and self.requests[-1].startedWriting:
                self.loseConnection()
                return
            if not self.requests:
                self.requests.append(Visit(self))
            self.requests[-1].refuse_unread(status, message, log=log)

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or self._receivedHeaderCount > self.maxHeaders:
            self.refuse(431, f"the head of a request may have {HEAD_BYTES} bytes in {HEAD_LINES} headers")
        else:
            self.refuse(400, "this is not a request of HTTP/1.1 (RFC 9112)")

    def abort(self) -> None:
        """Cut the connection, so that nobody takes what was sent for whole."""
        cast("Any", self.transport).abortConnection()

    def _linger(self) -> None:
        self._arm(LINGER_SECONDS, self.abort)
        # Half of a TLS connection cannot be closed; there the answer is only flushed.
        if ITCPTransport.providedBy(self.transport) and not ISSLTransport.providedBy(self.transport):
            cast("Any", self.transport).loseWriteConnection()
        else:
            super().loseConnection()

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES:
            self.abort()

    # deadlines

    def _begin_head(self) -> None:
        self._between_requests = False
        self._arm(self.factory.config.head_timeout, self._head_too_slow)

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.factory.clock.callLater(seconds, self._due, then)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _due(self, then: Callable[[], None]) -> None:
        self._deadline = None
        then()

    def _head_too_slow(self) -> None:
        if self._between_requests:
            self._close_quietly()
        else:
            self.refuse(408, f"the head of a request must arrive within {self.factory.config.head_timeout:g} s")

    def _check_body(self) -> None:
        limit = self.factory.config.body_timeout
        visit = self.requests[-1]
        if visit.upload is not None and visit.upload.paused:
            self._arm(limit, self._check_body)  # it is the target that takes its time
            return
        least = 1 if visit.upload is not None else BODY_RATE * limit
        if self._body_seen < least:
            self.refuse(408, f"the body came too slowly: less than {least:g} bytes in {limit:g} s")
        else:
            self._body_seen = 0
            self._arm(limit, self._check_body)

    def _close_quietly(self) -> None:
        self.abort()
