"""Endpoints that connect to the target: at once where it is on this machine."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Any, NoReturn, cast

from attrs import frozen
from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorSocket,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from zope.interface import implementer

from foreman.config.target_address import TargetAddress
from foreman.util.deadline import within

#: A silent connection is probed after a minute, and closed after eight probes in two more, as Go's clients do.
_KEEPALIVE = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8))
    if hasattr(socket, name)
]


def endpoint_for(reactor: Any, address: TargetAddress, timeout: float) -> IStreamClientEndpoint:
    """The endpoint that connects to ``address`` within ``timeout`` seconds; names are resolved at each connection."""
    host, port = address.host, address.port
    endpoint: IStreamClientEndpoint
    unlimited = cast("float", None)  # Twisted means none by it; see LimitedEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, port, timeout=unlimited)
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(reactor, host, port, timeout=unlimited)
    else:
        endpoint = HostnameEndpoint(reactor, host, port, timeout=unlimited)
    endpoint = LimitedEndpoint(reactor, endpoint, timeout)
    if _is_loopback(host):
        if address.scheme == "http" and IReactorSocket.providedBy(reactor):
            return LoopbackEndpoint(reactor, host, port, endpoint)
    else:
        endpoint = KeepaliveEndpoint(endpoint)
    return wrapClientTLS(optionsForClientTLS(host), endpoint) if address.scheme == "https" else endpoint


@implementer(IStreamClientEndpoint)
@frozen
class LoopbackEndpoint:
    """Connects within the call: on this machine the handshake is complete when ``connect`` returns.

    Twisted's own endpoints take three turns of the reactor, a third of the latency that foreman adds to a first token.

    :ivar fallback: used where the connection is not made at once: it waits, and reports errors.
    """

    _reactor: Any
    _host: str
    _port: int
    _fallback: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol of ``protocolFactory``."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        adopting = _Adopting(protocolFactory)
        try:
            with socket.socket(family, socket.SOCK_STREAM) as attempt:
                attempt.setblocking(False)
                code = attempt.connect_ex((self._host, self._port))
                if code == errno.EINPROGRESS:
                    code = attempt.connect_ex((self._host, self._port))
                if code in (0, errno.EISCONN):
                    self._reactor.adoptStreamConnection(attempt.fileno(), family, adopting)
        except OSError:  # there is no free descriptor
            return self._fallback.connect(protocolFactory)
        return self._fallback.connect(protocolFactory) if adopting.protocol is None else succeed(adopting.protocol)


@implementer(IStreamClientEndpoint)
@frozen
class LimitedEndpoint:
    """Gives up after a time limit.

    Twisted's own limit would also count time in which foreman was paused and the target had accepted long ago.

    :ivar timeout: in seconds, name resolution included.
    """

    _reactor: Any
    _endpoint: IStreamClientEndpoint
    _timeout: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol of ``protocolFactory``; ``twisted.internet.error.TimeoutError`` when it takes too long."""
        connecting = self._endpoint.connect(protocolFactory)
        return connecting if connecting.called else within(connecting, self._timeout, self._reactor, _too_late)


def _too_late() -> NoReturn:
    raise error.TimeoutError


@implementer(IStreamClientEndpoint)
@frozen
class KeepaliveEndpoint:
    """Enables TCP keepalive, so that the system notices when the target's machine has lost its power or its network;
    foreman itself waits for a first byte without a limit.
    """

    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol of ``protocolFactory``."""
        return self._endpoint.connect(protocolFactory).addCallback(_enable_keepalive)


def _enable_keepalive(protocol: Any) -> Any:
    transport = protocol.transport
    if ITCPTransport.providedBy(transport):
        transport.setTcpKeepAlive(True)
        for option, value in _KEEPALIVE:
            cast("Any", transport).getHandle().setsockopt(socket.IPPROTO_TCP, option, value)
    return protocol


class _Adopting(Factory):
    """Keeps the protocol that the reactor builds for an adopted connection."""

    noisy = False
    protocol: Any = None

    def __init__(self, real: IProtocolFactory) -> None:
        self._real = real

    def buildProtocol(self, addr: Any) -> Any:
        self.protocol = self._real.buildProtocol(addr)
        return self.protocol


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
