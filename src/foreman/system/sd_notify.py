"""Tell systemd that foreman is ready, or stopping: the protocol of sd_notify(3), for units of ``Type=notify``."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping

#: Where systemd listens; a leading ``@`` stands for the NUL of Linux's abstract names (sd_notify(3)).
VARIABLE = "NOTIFY_SOCKET"
#: How long a supervisor that has much to read may keep foreman waiting, in seconds.
PATIENCE = 0.5


def ready(environ: Mapping[str, str], make_socket: Callable[..., socket.socket] = socket.socket) -> bool:
    """The start is over and callers are served.

    :param environ: the environment; without ``NOTIFY_SOCKET`` in it nothing is done.
    :param make_socket: makes a socket from family and type.
    :return: whether somebody was told.
    """
    return _tell(b"READY=1", environ, make_socket)


def stopping(environ: Mapping[str, str], make_socket: Callable[..., socket.socket] = socket.socket) -> bool:
    """The stop has begun. Takes and returns what ``ready`` does."""
    return _tell(b"STOPPING=1", environ, make_socket)


def _tell(state: bytes, environ: Mapping[str, str], make_socket: Callable[..., socket.socket]) -> bool:
    where = environ.get(VARIABLE, "")
    if where[:1] not in {"/", "@"}:
        return False
    address = "\0" + where[1:] if where.startswith("@") else where
    # Being heard is worth a moment, but not failing for: whoever listens has a limit of its own.
    with contextlib.suppress(OSError), make_socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(PATIENCE)
        channel.sendto(state, address)
        return True
    return False
