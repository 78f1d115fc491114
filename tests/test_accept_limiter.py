"""How connections are accepted."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest_twisted
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from foreman.web.server.accept_limiter import LOG_INTERVAL, MAX_ACCEPTS, AcceptLimiter
from support.live_foreman import reactor


class Full:
    """A listening socket of a process that may open no more files."""

    def accept(self) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")


def said(events: Sequence[LogEvent]) -> list[str]:
    return [str(event["why"]) for event in events if "cannot be accepted" in (event.get("log_format") or "")]


@pytest_twisted.ensureDeferred
async def test_a_lack_of_descriptors_is_one_line_a_minute() -> None:
    clock = Clock()
    port: Any = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    try:
        assert AcceptLimiter(clock).add_port(port) is port
        with capturedLogs() as events, patch.object(port, "socket", Full()):
            for _ in range(100):
                port.doRead()
                clock.advance(LOG_INTERVAL / 100)
            port.doRead()
        assert len(said(events)) == 2
        assert "EMFILE" in said(events)[0]
        assert len(events) == 2
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_crowd_is_accepted_a_few_at_a_time() -> None:
    accepting, accepted = AcceptLimiter(Clock()), []

    class Counting(Factory):
        def buildProtocol(self, addr: object) -> Protocol:
            accepting.accepted()
            accepted.append(addr)
            return Protocol()

    port: Any = accepting.add_port(reactor.listenTCP(0, Counting(), backlog=1024, interface="127.0.0.1"))
    port.stopReading()
    callers = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(400)]
    try:
        taken = []
        for _ in range(4):
            before = len(accepted)
            port.doRead()
            taken.append(len(accepted) - before)
        assert max(taken) <= MAX_ACCEPTS + 20
        assert min(taken) > 0
    finally:
        for caller in callers:
            caller.close()
        port.startReading()
        await port.stopListening()


def test_a_port_of_another_kind_is_left_alone() -> None:
    port = object()
    assert AcceptLimiter(Clock()).add_port(port) is port
