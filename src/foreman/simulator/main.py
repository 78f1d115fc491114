"""The simulator as a program."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from foreman.simulator.engine.settings import Settings
from foreman.simulator.simulator import Simulator

#: How many requests a program that runs for days remembers.
_REMEMBER = 100


async def listen(reactor: Any, settings: Settings, where: str) -> tuple[Simulator, IListeningPort]:
    """A simulator that listens at ``where``, a Twisted endpoint description such as ``tcp:11434:interface=127.0.0.1``."""
    simulator = Simulator(reactor, settings, time.time())
    return simulator, await serverFromString(reactor, where).listen(simulator)


def run(settings: Settings, reactor: Any, where: str, report: Callable[[str], object] = print) -> int:
    """Listen at ``where`` until the reactor is stopped, by a signal for example; returns the exit status.

    :param report: called with one line for people, when the simulator listens or cannot.
    """
    outcome = 0

    def listens(result: tuple[Simulator, IListeningPort]) -> None:
        simulator, port = result
        report(f"the simulator listens on {_format_address(port.getHost())} with {', '.join(simulator.installed)}")

    def failed(failure: Failure) -> None:
        nonlocal outcome
        outcome = 1
        # Twisted's own message repeats the address and contains the errno.
        cause = getattr(failure.value, "socketError", failure.value)
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        report(f"the simulator cannot listen on {where}: {reason}; --listen selects another address")
        reactor.stop()

    def begin() -> None:
        started = Deferred.fromCoroutine(listen(reactor, evolve(settings, remember=_REMEMBER), where))
        started.addCallbacks(listens, failed)

    reactor.callWhenRunning(begin)
    reactor.run()
    return outcome


def _format_address(address: Any) -> str:
    """A Twisted address as people write it."""
    host = getattr(address, "host", None)
    if host is None:
        return str(getattr(address, "name", address))
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"
