"""The port that foreman listens on: made from its description, and bound where no stranger can connect unless that is meant."""

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

#: How many may come at once. With Twisted's 50, the system lets the next ones wait a second before it tries again.
BACKLOG = 1024


def port_for(listen: str, factory: IProtocolFactory, reactor: Any) -> StreamServerEndpointService:
    """What listens at an endpoint description.

    :raises ConfigError: when Twisted, a plugin or a file of keys refuses it.
    """
    try:
        return strports.service(with_backlog(listen, BACKLOG), factory, reactor=reactor)
    except Exception as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise ConfigError([f"FOREMAN_LISTEN: {listen!r} cannot be used: {reason}"]) from problem


def why_not(listen: str, problem: Exception) -> str:
    """What to say where nobody can listen at ``listen``, an endpoint description: where, why, and what to do.

    :param problem: what Twisted raised.
    """
    url = url_of(listen)
    where = listen if url is None else url.removeprefix("http://")
    cause: object = problem.socketError if isinstance(problem, CannotListenError) else problem
    number = getattr(cause, "errno", None)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    cure = "FOREMAN_LISTEN chooses another place"
    if number == errno.EADDRINUSE:
        cure = "another program listens there; FOREMAN_LISTEN=127.0.0.1:9090, for example, chooses another port"
    elif number == errno.EADDRNOTAVAIL:
        cure = "this machine has no such address; FOREMAN_LISTEN=127.0.0.1:8080 is one for this machine alone"
    elif number == errno.ENOENT and listen.startswith("unix:"):
        reason, cure = "the folder of the socket is not there", "make it, or choose another with FOREMAN_LISTEN"
    elif number == errno.EACCES and url is not None:
        cure = "a port below 1024 needs a right of its own; FOREMAN_LISTEN chooses another"
    elif listen.startswith("unix:") and "lock" in reason.lower():
        reason, cure = "the socket is in use", "another program listens there; FOREMAN_LISTEN chooses another"
    return f"{where}: {' '.join(reason.split())}; {cure}"


def refuse_strangers(port: StreamServerEndpointService, listen: str) -> None:
    """See that a port that was just opened is bound to loopback, and close it if not.

    The description alone does not tell: a name such as ``localhost`` stands for whatever the system makes of it.

    :param listen: its description, for the error; :raises ConfigError: when other machines can connect.
    """
    opened = port._waitingForPort  # noqa: SLF001 - it offers no other way
    listening: Any = getattr(opened, "result", None)
    if not hasattr(listening, "getHost"):
        return  # standard input, or nothing that came at once
    host = getattr(listening.getHost(), "host", None)  # a Unix socket has none
    if host is not None and not is_loopback(host):
        listening.stopListening()
        raise ConfigError(
            [f"FOREMAN_LISTEN: {listen!r} is bound to {host}, where others can connect, and no token is set"]
        )
