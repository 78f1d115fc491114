"""Fails a test that leaves something behind: a lost failure, a pending timer, an open connection."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import hypothesis
import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

# How long an example takes depends on the machine.
hypothesis.settings.register_profile("foreman", deadline=None)
# To search for what a hundred examples do not find: HYPOTHESIS_PROFILE=thorough make test
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "foreman"))

# Started in the background by a shell, or by nohup, the tests would ignore these signals, and so would every command that
# they start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# The user's own jobs are neither touched, nor in the way if another version has written them.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="foreman-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

#: How many turns the reactor gets to finish what a test has told to stop, but has not waited for.
_LAST_TURNS = 30


@implementer(ILogObserver)
@define(eq=False)
class LoggedFailures:
    """Failures that were logged during a test; a test has to take those that it expects."""

    _events: list[LogEvent] = field(factory=list)

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_failure") is not None:
            self._events.append(event)

    def take(self, *types: type[BaseException]) -> list[Failure]:
        """The failures of these types, which then no longer fail the test."""
        gc.collect()
        taken = [event for event in self._events if event["log_failure"].check(*types)]
        self._events = [event for event in self._events if event not in taken]
        return [event["log_failure"] for event in taken]

    def rest(self) -> list[str]:
        """The failures that were not taken, as text."""
        return [f"a failure was lost:\n{event['log_failure'].getTraceback()}" for event in self._events]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Keep how long each test module took at the most, for ``tools/touched.py``."""
    if getattr(config, "cache", None) is None or hasattr(config, "workerinput"):
        return
    took: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                took[report.location[0]] += report.duration
    known: dict[str, float] = config.cache.get("foreman/seconds", {})
    longest = {path: max(seconds, known.get(path, 0.0)) for path, seconds in took.items()}
    config.cache.set("foreman/seconds", known | longest)


@pytest.fixture(scope="module", autouse=True)
def _freeze_imported_objects() -> None:
    """Let the collection after each test examine only what its module has made, not every imported library."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def logged_failures() -> Iterator[LoggedFailures]:
    """The failures that are logged during the test."""
    observer = LoggedFailures()
    globalLogPublisher.addObserver(observer)
    yield observer
    globalLogPublisher.removeObserver(observer)


@pytest.fixture(autouse=True)
def nothing_left_behind(logged_failures: LoggedFailures) -> Iterator[None]:
    """Compare what the reactor holds before and after the test, and look for failures without an errback."""
    from twisted.internet import reactor  # chosen by pytest-twisted, after this module was imported

    before = _held(reactor)
    yield
    left = _left(reactor, before)
    for _ in range(_LAST_TURNS):
        if not left:
            break
        pytest_twisted.blockon(deferLater(reactor, 0.01))
        left = _left(reactor, before)
    gc.collect()
    complaints = logged_failures.rest() + left
    if complaints:
        pytest.fail("\n".join(complaints), pytrace=False)


def _held(reactor: Any) -> set[object]:
    """Timers, readers and writers of the reactor, without its own."""
    held: set[object] = {*reactor.getReaders(), *reactor.getWriters(), *reactor.getDelayedCalls()}
    own: set[object] = reactor._internalReaders
    return held - own


def _left(reactor: Any, before: Collection[object]) -> list[str]:
    return [f"still there: {thing}" for thing in _held(reactor) - set(before)]
