"""The simulator as a program of its own."""

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

#: A program that runs for days does not keep what it was asked.
_REMEMBER = 100


async def listen(reactor: Any, settings: Settings, where: str) -> tuple[Simulator, IListeningPort]:
    """A simulator that listens at ``where``, a Twisted endpoint description such as ``tcp:11434:interface=127.0.0.1``."""
    simulator = Simulator(reactor, settings, time.time())
    return simulator, await serverFromString(reactor, where).listen(simulator)


def run(settings: Settings, reactor: Any, where: str, say: Callable[[str], object] = print) -> int:
    """Listen at ``where`` until the reactor is stopped, by a signal for example; what a process should exit with.

    :param say: is told one line for people, when the simulator listens or cannot.
    """
    outcome = 0

    def listens(result: tuple[Simulator, IListeningPort]) -> None:
        simulator, port = result
        say(f"the simulator listens on {_shown(port.getHost())} with {', '.join(simulator.installed)}")

    def failed(failure: Failure) -> None:
        nonlocal outcome
        outcome = 1
        # Twisted's own sentence repeats the place, and has the number of the error.
        cause = getattr(failure.value, "socketError", failure.value)
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        say(f"the simulator cannot listen at {where}: {reason}; --listen chooses another place")
        reactor.stop()

    def begin() -> None:
        started = Deferred.fromCoroutine(listen(reactor, evolve(settings, remember=_REMEMBER), where))
        started.addCallbacks(listens, failed)

    reactor.callWhenRunning(begin)
    reactor.run()
    return outcome


def _shown(address: Any) -> str:
    """An address of Twisted's as people write it."""
    host = getattr(address, "host", None)
    if host is None:
        return str(getattr(address, "name", address))
    return f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"
