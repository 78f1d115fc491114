"""Notifies systemd that foreman is ready or stopping: the protocol of sd_notify(3), for units of ``Type=notify``."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping

#: The address of systemd's socket; a leading ``@`` stands for the NUL of Linux's abstract names (sd_notify(3)).
VARIABLE = "NOTIFY_SOCKET"
#: How long foreman waits for a supervisor whose socket is full, in seconds.
TIMEOUT = 0.5


def ready(environ: Mapping[str, str], make_socket: Callable[..., socket.socket] = socket.socket) -> bool:
    """Notify that the start is complete.

    :param environ: the environment; without ``NOTIFY_SOCKET`` in it nothing is done.
    :param make_socket: makes a socket from family and type.
    :return: whether a notification was sent.
    """
    return _notify(b"READY=1", environ, make_socket)


def stopping(environ: Mapping[str, str], make_socket: Callable[..., socket.socket] = socket.socket) -> bool:
    """Notify that the stop has begun; arguments and result as for ``ready``."""
    return _notify(b"STOPPING=1", environ, make_socket)


def _notify(state: bytes, environ: Mapping[str, str], make_socket: Callable[..., socket.socket]) -> bool:
    where = environ.get(VARIABLE, "")
    if where[:1] not in {"/", "@"}:
        return False
    address = "\0" + where[1:] if where.startswith("@") else where
    # A lost notification is no reason to fail: the supervisor has a time-out of its own.
    with contextlib.suppress(OSError), make_socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(TIMEOUT)
        channel.sendto(state, address)
        return True
    return False
