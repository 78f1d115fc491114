"""Choose the reactor, and run it for as long as a command needs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_with_reactor(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run the reactor until ``work``, which is passed the reactor, has finished; return its result.

    What ``work`` raises is raised here; if a signal stops the reactor first, SystemExit with 128 plus its number.
    """
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner

    results: list[T] = []
    failures: list[BaseException] = []
    reactors: list[Any] = []

    async def run(reactor: Any) -> None:
        reactors.append(reactor)
        try:
            results.append(await work(reactor))
        except BaseException as problem:  # noqa: BLE001 - raised again after the reactor has stopped
            failures.append(problem)

    # A command prints its errors itself. Without an observer Twisted would log to standard error, with tracebacks.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=not sys.flags.dev_mode)
    with suppress(SystemExit):  # react always ends the process
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    if failures:
        raise failures[0]
    if not results:
        raise SystemExit(signal_status(reactors[0]))
    return results[0]


def signal_status(reactor: Any) -> int:
    """The exit status of a process whose reactor was stopped by a signal: 130 after ctrl-C."""
    return 128 + (getattr(reactor, "_exitSignal", None) or signal.SIGINT)


def choose_reactor() -> None:
    """Install the reactor that handles the most connections on this platform, before anything imports another one.

    The default on macOS is select, which is limited to 1,024 descriptors.
    """
    if sys.platform == "linux":
        from twisted.internet.epollreactor import install
    elif sys.platform == "darwin" or "bsd" in sys.platform:
        from twisted.internet.kqreactor import install
    else:
        return
    install()
