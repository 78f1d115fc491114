"""The agent that treq uses: one request to the target, its bytes written unchanged.

Twisted's own ``Agent`` re-encodes the request target and changes the case of header names; ``OneShotAgent`` writes the
head that it is given, on a new connection.
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
    """The agent of one request, whose bytes were prepared before.

    :ivar head: request line and headers with the blank line after them; :ivar body: the whole body, or a producer of
        exactly as many bytes as the head announces.
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
        """Send the prepared request; of the arguments only ``method`` is used.

        :raises errors.ConnectionError: as the Deferred's failure, when no answer came.
        """
        connection = Connection(method, self._head, self._body)
        connection.connecting = self._endpoint.connect(_OneConnection(connection))
        connection.connecting.addErrback(connection.not_connected)
        return connection.answered


class _OneConnection(Factory):
    """Gives the one connection to the endpoint that establishes it."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection


def head_bytes(method: bytes, target: bytes, headers: RawHeaders) -> bytes:
    """The request line and ``headers`` as they are sent (RFC 9112 section 3)."""
    lines = [b"%b %b HTTP/1.1\r\n" % (method, target)]
    lines += [b"%b: %b\r\n" % pair for pair in headers]
    lines.append(b"\r\n")
    return b"".join(lines)
