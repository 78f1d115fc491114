"""The agent under treq: one request to the one target, its bytes written as they are.

Twisted's own ``Agent`` re-encodes the request target and title-cases header names; ``OneShotAgent`` writes the head that it
is given, on a connection of its own.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from foreman.protocol.headers import RawHeaders
from foreman.target.connection import Connection


@implementer(IAgent)
@define(eq=False)
class OneShotAgent:
    """The agent of one request: treq asks it, and the bytes that were prepared for the target go out unchanged.

    :ivar head: request line and headers with the closing blank line.
    :ivar body: the whole body, or a producer of exactly as many bytes as the head announces.
    """

    _endpoint: IStreamClientEndpoint
    _head: bytes
    _body: bytes | IBodyProducer

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send the prepared request; what treq made of it besides the method is ignored.

        :raises errors.ConnectionError: as the Deferred's failure, when no answer came.
        """
        connection = Connection(method, self._head, self._body)
        connection.connecting = self._endpoint.connect(_Once(connection))
        connection.connecting.addErrback(connection.not_connected)
        return connection.answered


class _Once(Factory):
    """Hand the one connection to the endpoint that makes it."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection


def head_bytes(method: bytes, target: bytes, headers: RawHeaders) -> bytes:
    """The request line and ``headers`` as they go over the wire (RFC 9112 section 3)."""
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target)]
    lines += [b"%b: %b\r\n" % pair for pair in headers]
    lines.append(b"\r\n")
    return b"".join(lines)
