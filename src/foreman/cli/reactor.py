"""Choose the reactor, and run it for as long as a command needs it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_with_reactor(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run the reactor for as long as ``work``, which is given it, takes; what that returns.

    Whatever it raises passes; SystemExit, with 128 and the number of the signal, where one ended it before.
    """
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react
    from twisted.logger import globalLogBeginner

    found: list[T] = []
    failed: list[BaseException] = []
    reactors: list[Any] = []

    async def do(reactor: Any) -> None:
        reactors.append(reactor)
        try:
            found.append(await work(reactor))
        except BaseException as problem:  # noqa: BLE001 - raised again where no reactor runs
            failed.append(problem)

    # A command says what went wrong itself. Without an observer the log would go to standard error, with tracebacks.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=not sys.flags.dev_mode)
    with suppress(SystemExit):  # react always ends the process
        react(lambda reactor: Deferred.fromCoroutine(do(reactor)))
    if failed:
        raise failed[0]
    if not found:
        raise SystemExit(signal_status(reactors[0]))
    return found[0]


def signal_status(reactor: Any) -> int:
    """The status of a process whose reactor was stopped by a signal, as a shell counts it: 130 after ctrl-C."""
    return 128 + (getattr(reactor, "_exitSignal", None) or signal.SIGINT)


def choose_reactor() -> None:
    """Install the reactor that holds the most connections here, before anything imports another one.

    The default of macOS is select, which ends at 1,024 descriptors.
    """
    if sys.platform == "linux":
        from twisted.internet.epollreactor import install
    elif sys.platform == "darwin" or "bsd" in sys.platform:
        from twisted.internet.kqreactor import install
    else:
        return
    install()
