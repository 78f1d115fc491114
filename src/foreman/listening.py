"""The port that foreman listens on: made from its description, and bound where no stranger can connect unless that is meant."""

from __future__ import annotations

from typing import Any

from twisted.application import strports
from twisted.application.internet import StreamServerEndpointService
from twisted.internet.interfaces import IProtocolFactory

from foreman.addresses import is_loopback
from foreman.errors import ConfigError

#: How many may come at once. With Twisted's 50, the system lets the next ones wait a second before it tries again.
BACKLOG = 1024


def port_for(listen: str, factory: IProtocolFactory, reactor: Any) -> StreamServerEndpointService:
    """What listens at an endpoint description.

    :raises ConfigError: when Twisted, a plugin or a file of keys refuses it.
    """
    try:
        return strports.service(with_backlog(listen), factory, reactor=reactor)
    except Exception as problem:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise ConfigError([f"FOREMAN_LISTEN: {listen!r} cannot be used: {reason}"]) from problem


def with_backlog(listen: str) -> str:
    """The endpoint description ``listen`` with room for those who come at once, unless it says how much there is."""
    counts = listen.partition(":")[0] in ("tcp", "tcp6", "ssl", "unix") and ":backlog=" not in listen
    return f"{listen}:backlog={BACKLOG}" if counts else listen


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
