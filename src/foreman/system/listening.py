"""The port that foreman listens on: built from its endpoint description, and on loopback only, unless more is allowed."""

from __future__ import annotations

import errno
from typing import Any

from twisted.application import strports
from twisted.application.internet import StreamServerEndpointService
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory

from foreman.config.listen_address import url_of, with_backlog
from foreman.config.target_address import is_loopback
from foreman.errors import ConfigError

#: How many connections may wait to be accepted. With Twisted's 50, more clients at once wait for a second, and try again.
BACKLOG = 1024


def port_for(listen: str, factory: IProtocolFactory, reactor: Any) -> StreamServerEndpointService:
    """A service that listens at an endpoint description.

    :raises ConfigError: when Twisted, a plugin or a key file rejects it.
    """
    try:
        return strports.service(with_backlog(listen, BACKLOG), factory, reactor=reactor)
    except Exception as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise ConfigError([f"FOREMAN_LISTEN: {listen!r} cannot be used: {reason}"]) from problem


def listen_error(listen: str, problem: Exception) -> str:
    """The error text when foreman cannot listen at ``listen``, an endpoint description: where, why, and what to do.

    :param problem: what Twisted raised.
    """
    url = url_of(listen)
    where = listen if url is None else url.removeprefix("http://")
    cause: object = problem.socketError if isinstance(problem, CannotListenError) else problem
    number = getattr(cause, "errno", None)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    remedy = "FOREMAN_LISTEN selects another address"
    if number == errno.EADDRINUSE:
        remedy = "another program listens there; FOREMAN_LISTEN=127.0.0.1:9090, for example, selects another port"
    elif number == errno.EADDRNOTAVAIL:
        remedy = "this machine has no such address; FOREMAN_LISTEN=127.0.0.1:8080 listens for this machine only"
    elif number == errno.ENOENT and listen.startswith("unix:"):
        reason, remedy = (
            "the directory of the socket does not exist",
            "create it, or select another with FOREMAN_LISTEN",
        )
    elif number == errno.EACCES and url is not None:
        remedy = "ports below 1024 require a privilege; FOREMAN_LISTEN selects another"
    elif listen.startswith("unix:") and "lock" in reason.lower():
        reason, remedy = "the socket is in use", "another program listens there; FOREMAN_LISTEN selects another"
    return f"{where}: {' '.join(reason.split())}; {remedy}"


def require_loopback(port: StreamServerEndpointService, listen: str) -> None:
    """Close a port that was just opened unless it is bound to loopback.

    The description does not show that: a name such as ``localhost`` resolves to whatever the system is configured to.

    :param listen: its description, for the error; :raises ConfigError: when other machines can connect.
    """
    opened = port._waitingForPort  # noqa: SLF001 - it offers no other way
    listening: Any = getattr(opened, "result", None)
    if not hasattr(listening, "getHost"):
        return  # standard input, or an endpoint that is not ready at once
    host = getattr(listening.getHost(), "host", None)  # a Unix socket has none
    if host is not None and not is_loopback(host):
        listening.stopListening()
        raise ConfigError(
            [f"FOREMAN_LISTEN: {listen!r} is bound to {host}, where others can connect, and no token is set"]
        )
