"""One request to the target and its answer on one TCP connection, read with llhttp.

llhttp refuses whatever is ambiguous (RFC 9112), and whoever reads the body is told whether it was whole: Twisted's own
client cannot say how a body without length ended.
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

#: Bytes that the target may send before the last header of its answer; Go's own server allows 1 MiB, real heads are 300 bytes.
HEAD_BUDGET = 256 * 1024
#: Bytes that it may send after that without one of the body among them: sizes and extensions of chunks, trailers.
FRAMING_BUDGET = 256 * 1024
#: A request up to this many bytes has left this machine when its answer comes, whether or not the target reads it.
SENT_AT_ONCE = 16 * 1024
#: A later minor version of HTTP than any that there is (RFC 9110 section 2.5).
_LATER_VERSION = re.compile(rb"HTTP/1\.[2-9] ")
#: What no reason phrase has (RFC 9112 section 4), though llhttp lets it through; a terminal may act on it.
_CONTROL = bytes(byte for byte in (*range(0x20), 0x7F) if byte != 0x09)


@implementer(IResponse)
@define(eq=False)
class TargetResponse:
    """The head of the target's answer, and the way to its body.

    treq sees an empty ``headers``, so that it neither unpacks the body nor keeps a cookie; what the target sent stands
    in ``raw_headers``, in order and as it was written.
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
        """Give the body to ``protocol``; its ``connectionLost`` gets ResponseDone, PotentialDataLoss or ResponseFailed."""
        self._connection.deliver_to(protocol)

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember which answer led to this one; foreman follows no redirect, so nobody calls it."""
        self.previousResponse = response

    def abort(self) -> None:
        """Close the connection to the target at once; whoever reads the body is told that it was cut."""
        self._connection.abort()


class Connection(Protocol):
    """One request and its answer on one TCP connection.

    :ivar answered: fires with the Answer when its head is whole, or fails with errors.ConnectionError. Cancelling
        closes the connection.
    """

    def __init__(self, method: bytes, head: bytes, body: bytes | IBodyProducer) -> None:
        self.answered: Deferred[IResponse] = Deferred(lambda _: self._leave())
        self.connecting: Deferred[Any] | None = None
        self._head_request = method == b"HEAD"
        self._to_send = head
        self._body = body
        self._parser = httptools.HttpResponseParser(self)
        self._headers: RawHeaders = []
        self._phrase = b""
        self._idle_bytes = 0
        self._has_head = False
        self._sized = False
        self._complete = False
        self._pieces: list[bytes] = []
        self._reader: Any = None
        self._ended: Failure | None = None
        self._lost = False
        self._closes_at_once = isinstance(body, bytes) and len(head) + len(body) <= SENT_AT_ONCE
        self._sending: Deferred[None] | None = None

    # the transport's side

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        transport = cast("ITransport", self.transport)
        if isinstance(self._body, bytes):
            transport.write(self._to_send + self._body)
        else:
            transport.write(self._to_send)
            self._sending = self._body.startProducing(cast("Any", self.transport))
            self._sending.addErrback(self._body_failed)
        self._to_send = self._body = b""

    def dataReceived(self, data: bytes) -> None:
        if self._complete or self._lost:
            return
        fault: Exception | None = None
        try:
            self._parser.feed_data(data if self._idle_bytes or self._has_head else _known_version(data))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            fault = exc
        if not self._has_head:
            self._idle_bytes += len(data)
            if fault is not None:
                self._fail(errors.ConnectionError("garbage", f"the target's answer is not HTTP: {_cause(fault)}"))
            elif self._idle_bytes > HEAD_BUDGET:
                self._fail(errors.ConnectionError("garbage", f"the target's headers exceed {HEAD_BUDGET} bytes"))
            return
        if not self.answered.called:
            self._idle_bytes = 0
            self._give_head()
        if self._pieces:
            self._idle_bytes = 0
            if self._reader is not None:
                self._flush()
        else:
            self._idle_bytes += len(data)
            if self._idle_bytes > FRAMING_BUDGET and fault is None:
                fault = ValueError("framing without a body")
        if self._complete:
            self._finish(Failure(ResponseDone()))
        elif fault is not None:
            self._finish(_cut(fault))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        if not self._has_head:
            self._fail(broken_off(reason))
        elif self._sized or not reason.check(error.ConnectionDone):
            self._finish(_cut(reason.value))
        else:
            self._finish(Failure(PotentialDataLoss()))

    def not_connected(self, reason: Failure) -> None:
        """No connection could be made; a caller who left meanwhile is told of that alone."""
        if not self.answered.called and not reason.check(error.ConnectingCancelledError, CancelledError):
            self.answered.errback(unreachable(reason))

    # llhttp's side

    def on_message_begin(self) -> None:
        if self._has_head:
            raise ValueError("more than one answer")  # the first one is whole: what follows is nobody's

    def on_status(self, phrase: bytes) -> None:
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # a trailer is no header (RFC 9110 section 6.5.1)
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
                self._sized = True
            elif lower == b"content-length":
                self._sized = True
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

    # the reader's side

    def deliver_to(self, protocol: Any) -> None:
        """From now on ``protocol`` gets the body; what came before it was there comes first."""
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
        if not self._lost and not self._complete:
            cast("Any", self.transport).abortConnection()

    def _leave(self) -> None:
        if self.transport is not None:
            self.abort()
        elif self.connecting is not None:
            self.connecting.cancel()

    def _give_head(self) -> None:
        status = self._parser.get_status_code()
        answer = TargetResponse(status, self._phrase.translate(None, _CONTROL), self._headers, self)
        self.answered.callback(answer)
        if self._reader is None and not self._complete:
            cast("IPushProducer", self.transport).pauseProducing()

    def _resume(self) -> None:
        if not self._lost and not self._complete:
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
        if not self._lost:
            self._close()
        if self._reader is not None:
            self._reader.connectionLost(reason)

    def _close(self) -> None:
        """Close in order, but not where that means to wait for a target that reads nothing more, or for TLS's farewell."""
        if self._closes_at_once and not ISSLTransport.providedBy(self.transport):
            cast("ITransport", self.transport).loseConnection()
        else:
            cast("Any", self.transport).abortConnection()

    def _fail(self, problem: errors.ConnectionError) -> None:
        self._stop_sending()
        if not self._lost:
            self.abort()
        if not self.answered.called:
            self.answered.errback(problem)

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None and not sending.called:
            sending.cancel()

    def _body_failed(self, reason: Failure) -> None:
        self._sending = None
        if not self._lost and not self._complete:
            self.abort()


def _known_version(data: bytes) -> bytes:
    """The beginning of an answer, with HTTP/1.1 where the target knows a later 1.x, which llhttp refuses."""
    return data[:7] + b"1" + data[8:] if _LATER_VERSION.match(data) else data


def _cause(fault: BaseException) -> str:
    return str(fault.__context__ or fault)


def _cut(cause: BaseException | None) -> Failure:
    return Failure(ResponseFailed([Failure(cause)] if cause is not None else []))
