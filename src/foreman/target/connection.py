"""One request to the target and its answer on one TCP connection, read with llhttp.

llhttp rejects whatever is ambiguous (RFC 9112), and the reader of the body learns whether it is complete: Twisted's own
client cannot tell how a body without a length ended.
"""

from __future__ import annotations

import re
from typing import Any, cast

import httptools
from attrs import define, field
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from foreman import errors
from foreman.protocol.headers import RawHeaders
from foreman.target.failures import broken_off, unreachable

#: How many bytes the head of an answer may have; Go's own server allows 1 MiB, real heads have 300 bytes.
MAX_HEAD = 256 * 1024
#: How many bytes may follow without any of the body among them: sizes and extensions of chunks, trailers.
MAX_FRAMING = 256 * 1024
#: A request of at most so many bytes has left this process when its answer arrives, even if the target does not read it.
SENT_AT_ONCE = 16 * 1024
#: A later minor version of HTTP than any that there is (RFC 9110 section 2.5).
_LATER_VERSION = re.compile(rb"HTTP/1\.[2-9] ")
#: Bytes that no reason phrase may have (RFC 9112 section 4), but llhttp accepts; a terminal may interpret them.
_CONTROL = bytes(byte for byte in (*range(0x20), 0x7F) if byte != 0x09)


@implementer(IResponse)
@define(eq=False)
class TargetResponse:
    """The head of the target's answer, and access to its body.

    For treq ``headers`` is empty, so that it neither decompresses the body nor keeps a cookie; what the target sent is in
    ``raw_headers``, unchanged and in order.
    """

    code: int
    phrase: bytes
    raw_headers: RawHeaders
    _connection: Connection
    version: tuple[bytes, int, int] = (b"HTTP", 1, 1)
    headers: Headers = field(factory=Headers)
    length: Any = UNKNOWN_LENGTH
    request: Any = None
    previousResponse: Any = None

    def header(self, name: bytes) -> bytes | None:
        """The last value of the header ``name`` (lower case), or None."""
        for key, value in reversed(self.raw_headers):
            if key.lower() == name:
                return value
        return None

    def deliverBody(self, protocol: Any) -> None:
        """Deliver the body to ``protocol``; its ``connectionLost`` gets ResponseDone, PotentialDataLoss or ResponseFailed."""
        self._connection.deliver_to(protocol)

    def setPreviousResponse(self, response: IResponse) -> None:
        """Part of IResponse; not called, since foreman follows no redirect."""
        self.previousResponse = response

    def abort(self) -> None:
        """Close the connection to the target at once; the reader of the body gets ResponseFailed."""
        self._connection.abort()


class Connection(Protocol):
    """One request and its answer on one TCP connection.

    :ivar answered: fires with the TargetResponse when its head is complete, or fails with errors.ConnectionError.
        Cancelling it closes the connection.
    """

    def __init__(self, method: bytes, head: bytes, body: bytes | IBodyProducer) -> None:
        self.answered: Deferred[IResponse] = Deferred(lambda _: self._cancelled())
        self.connecting: Deferred[Any] | None = None
        self._head_request = method == b"HEAD"
        self._request_head = head
        self._body = body
        self._parser = httptools.HttpResponseParser(self)
        self._headers: RawHeaders = []
        self._phrase = b""
        self._unproductive_bytes = 0
        self._has_head = False
        self._has_framing = False
        self._complete = False
        self._pieces: list[bytes] = []
        self._reader: Any = None
        self._ended: Failure | None = None
        self._disconnected = False
        self._sent_at_once = isinstance(body, bytes) and len(head) + len(body) <= SENT_AT_ONCE
        self._sending: Deferred[None] | None = None

    # called by the transport

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        transport = cast("ITransport", self.transport)
        if isinstance(self._body, bytes):
            transport.write(self._request_head + self._body)
        else:
            transport.write(self._request_head)
            self._sending = self._body.startProducing(cast("Any", self.transport))
            self._sending.addErrback(self._body_failed)
        self._request_head = self._body = b""

    def dataReceived(self, data: bytes) -> None:
        if self._complete or self._disconnected:
            return
        fault: Exception | None = None
        try:
            self._parser.feed_data(data if self._unproductive_bytes or self._has_head else _known_version(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            fault = exc
        if not self._has_head:
            self._unproductive_bytes += len(data)
            if fault is not None:
                self._fail(errors.ConnectionError("garbage", f"the target's answer is not HTTP: {_cause(fault)}"))
            elif self._unproductive_bytes > MAX_HEAD:
                self._fail(errors.ConnectionError("garbage", f"the target's headers exceed {MAX_HEAD} bytes"))
            return
        if not self.answered.called:
            self._unproductive_bytes = 0
            self._report_head()
        if self._pieces:
            self._unproductive_bytes = 0
            if self._reader is not None:
                self._flush()
        else:
            self._unproductive_bytes += len(data)
            if self._unproductive_bytes > MAX_FRAMING and fault is None:
                fault = ValueError("framing without a body")
        if self._complete:
            self._finish(Failure(ResponseDone()))
        elif fault is not None:
            self._finish(_cut(fault))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._disconnected = True
        if not self._has_head:
            self._fail(broken_off(reason))
        elif self._has_framing or not reason.check(error.ConnectionDone):
            self._finish(_cut(reason.value))
        else:
            self._finish(Failure(PotentialDataLoss()))

    def not_connected(self, reason: Failure) -> None:
        """No connection could be made; not reported where the request was cancelled meanwhile."""
        if not self.answered.called and not reason.check(error.ConnectingCancelledError, CancelledError):
            self.answered.errback(unreachable(reason))

    # called by llhttp

    def on_message_begin(self) -> None:
        if self._has_head:
            raise ValueError("more than one answer")  # the first one is complete

    def on_status(self, phrase: bytes) -> None:
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers are not headers (RFC 9110 section 6.5.1)
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        if not 200 <= status < 600:
            raise ValueError(f"status {status}")
        for name, value in self._headers:
            lower = name.lower()
            if lower == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    raise ValueError(f"transfer coding {value!r}")
                self._has_framing = True
            elif lower == b"content-length":
                self._has_framing = True
        self._has_head = True
        self._complete = self._head_request

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._complete = True
        else:
            self._headers = []
            self._phrase = b""

    # called by the reader of the answer

    def deliver_to(self, protocol: Any) -> None:
        """From now on ``protocol`` gets the body, beginning with what has arrived already."""
        self._reader = protocol
        protocol.makeConnection(self.transport)
        if self._pieces:
            self._flush()
        if self._ended is not None:
            protocol.connectionLost(self._ended)
        else:
            self._resume()

    def abort(self) -> None:
        """Close the connection at once, whatever state it is in."""
        if not self._disconnected and not self._complete:
            cast("Any", self.transport).abortConnection()

    def _cancelled(self) -> None:
        if self.transport is not None:
            self.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    def _report_head(self) -> None:
        status = self._parser.get_status_code()
        answer = TargetResponse(status, self._phrase.translate(None, _CONTROL), self._headers, self)
        self.answered.callback(answer)
        if self._reader is None and not self._complete:
            cast("IPushProducer", self.transport).pauseProducing()

    def _resume(self) -> None:
        if not self._disconnected and not self._complete:
            cast("IPushProducer", self.transport).resumeProducing()

    def _flush(self) -> None:
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._reader.dataReceived(data)

    def _finish(self, reason: Failure) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        self._stop_sending()
        if not self._disconnected:
            self._close()
        if self._reader is not None:
            self._reader.connectionLost(reason)

    def _close(self) -> None:
        """Close in order, unless that means to wait for a target that reads no more, or for TLS's close_notify."""
        if self._sent_at_once and not ISSLTransport.providedBy(self.transport):
            cast("ITransport", self.transport).loseConnection()
        else:
            cast("Any", self.transport).abortConnection()

    def _fail(self, problem: errors.ConnectionError) -> None:
        self._stop_sending()
        if not self._disconnected:
            self.abort()
        if not self.answered.called:
            self.answered.errback(problem)

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None and not sending.called:
            sending.cancel()

    def _body_failed(self, reason: Failure) -> None:
        self._sending = None
        if not self._disconnected and not self._complete:
            self.abort()


def _known_version(data: bytes) -> bytes:
    """The beginning of an answer, as HTTP/1.1 where the target wrote a later 1.x, which llhttp rejects."""
    return data[:7] + b"1" + data[8:] if _LATER_VERSION.match(data) else data


def _cause(fault: BaseException) -> str:
    return str(fault.__context__ or fault)


def _cut(cause: BaseException | None) -> Failure:
    return Failure(ResponseFailed([Failure(cause)] if cause is not None else []))
