"""The start of foreman: the options of ``twistd foreman``, its service, and the only import of the reactor."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.application.service import IService, MultiService
from twisted.python import usage

from foreman.config.settings import SETTINGS, Config, load
from foreman.errors import ConfigError
from foreman.system import sd_notify

if TYPE_CHECKING:
    from foreman.service import Foreman


class Options(usage.Options):
    """``twistd foreman``: one option for each setting that is not a secret; an option wins over its variable."""

    synopsis = "[options]"
    longdesc = (
        "The daemon in front of an Ollama server. Every option has an environment variable; see docs/settings.md."
    )
    optParameters = [  # noqa: RUF012 - usage.Options reads it from the class
        [setting.option, None, None, f"{setting.help} [{setting.variable}, default {setting.default or 'none'}]"]
        for setting in SETTINGS
        if setting.option
    ]

    config: Config

    def postOptions(self) -> None:
        """Read the settings; invalid ones are listed and end the process with status 2, as in ``foreman serve``.

        A ``usage.UsageError`` would also print more than a hundred lines of options.
        """
        try:
            self.config = load(os.environ, {name: value for name, value in self.items() if value is not None})
        except ConfigError as error:
            for problem in error.problems:
                sys.stderr.write(f"foreman: {problem}\n")
            raise SystemExit(2) from None
        runner: Any = getattr(self, "parent", None)
        if runner is not None:
            set_log_observer(runner, self.config.log_format, self.config.log_level)
            remove_stale_pid_file(runner.get("pidfile"))


def makeService(options: Options) -> IService:
    """The service for ``twistd foreman`` and ``twist foreman``; a store that cannot be used ends the process."""
    return _DaemonService(_build_or_exit(options.config), options.config.listen)


def service_from_environment() -> IService:
    """The service for ``foreman.tac``; invalid settings are listed and end the process."""
    try:
        config = load(os.environ)
    except ConfigError as problem:
        sys.exit(str(problem))
    return _DaemonService(_build_or_exit(config), config.listen)


def set_log_observer(runner: Any, log_format: str, level: str) -> None:
    """Let ``twistd`` or ``twist`` log as FOREMAN_LOG_FORMAT and FOREMAN_LOG_LEVEL say, unless its own options say otherwise.

    :param runner: their options, which are changed.
    """
    from twisted.logger import LogLevel

    from foreman.system import logs

    if "fileLogObserverFactory" in runner:  # twist, which does not distinguish a given option from its default
        given = list(takewhile(lambda word: word != runner.subCommand, sys.argv[1:]))
        if not any(word.startswith("--log-format") for word in given):
            # twist itself filters by its level.
            runner["fileLogObserverFactory"] = lambda stream: logs.observer(log_format, stream, "debug")
        if not any(word.startswith("--log-level") for word in given):
            runner["logLevel"] = LogLevel.levelWithName(level)
    elif not runner.get("logger") and not runner.get("syslog"):
        runner["logger"] = logs.for_twistd(runner, log_format, level)


def remove_stale_pid_file(pidfile: str | None) -> None:
    """Remove a pid file that is empty, or has the pid of this process: a process that was killed has left it.

    The first process of a container always has the same pid, so that ``twistd`` would take itself for another process
    that is already running, and never start again. A full disk or a loss of power leaves an empty file.
    """
    with contextlib.suppress(OSError, ValueError, TypeError):
        path = Path(pidfile or "")
        content = path.read_bytes()[:32].strip() if path.is_file() else b"none"
        if not content or int(content) == os.getpid():
            path.unlink()


class CannotListen(SystemExit, Exception):
    """The port cannot be opened: ends the process with one line on standard error.

    ``twistd`` removes its pid file, and tells the process that started it, only after an ``Exception``.
    """


class _DaemonService(MultiService):
    """The daemon as ``twistd`` and ``twist`` start it: a port that cannot be opened ends the process with one line."""

    def __init__(self, foreman: Foreman, listen: str) -> None:
        super().__init__()
        self._listen = listen
        self._is_listening = False
        foreman.setServiceParent(self)

    def privilegedStartService(self) -> None:
        with _listening(self._listen):
            super().privilegedStartService()
        self._is_listening = True

    def startService(self) -> None:
        # twist calls only this: the port is opened first there, too, before threads start that would outlive a failure.
        if not self._is_listening:
            self.privilegedStartService()
        super().startService()


@contextlib.contextmanager
def _listening(listen: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as problem:  # the port was bound to more than loopback
        raise CannotListen(f"foreman: {problem}") from None
    except Exception as problem:  # noqa: BLE001 - every reason is reported in one line
        from foreman.system.listening import listen_error

        raise CannotListen(f"foreman cannot listen on {listen_error(listen, problem)}") from None


def service_from(config: Config) -> Foreman:
    """The whole daemon on the installed reactor; it handles signals itself as soon as the reactor runs.

    :raises StoreRefused: when the database of jobs cannot be used.
    """
    from twisted.internet import reactor

    # Importing klein installs a reactor, so that nothing that imports klein may be imported before this.
    from foreman.service import Foreman

    running: Any = reactor
    # Timers must not depend on the wall clock, which may be set.
    running.seconds = time.monotonic
    config = within_descriptor_limit(config, raise_descriptor_limit())
    from ulid import ULID

    foreman = Foreman(config, running, time.time, ULID, random.random)
    foreman.open_store()
    running.callWhenRunning(_handle_signals, running, foreman)
    running.callWhenRunning(sd_notify.ready, os.environ)
    running.addSystemEventTrigger("before", "shutdown", sd_notify.stopping, os.environ)
    return foreman


def run(config: Config) -> None:
    """Serve until a signal, then end by that signal, as supervisors expect (143 in a shell after SIGTERM)."""
    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from foreman.system.logs import observer

    globalLogBeginner.beginLoggingTo(
        [observer(config.log_format, sys.stdout, config.log_level)], redirectStandardIO=False
    )
    running: Any = reactor
    foreman = _build_or_exit(config)
    with _listening(config.listen):
        foreman.privilegedStartService()
    foreman.startService()
    running.addSystemEventTrigger("before", "shutdown", foreman.stopService)
    running.run()
    exit_signal = getattr(running, "_exitSignal", None)
    if exit_signal is not None:
        signal.signal(exit_signal, signal.SIG_DFL)
        os.kill(os.getpid(), exit_signal)


def _build_or_exit(config: Config) -> Foreman:
    """The daemon; a store that cannot be used ends the process with the reason."""
    from foreman.store.errors import StoreRefused

    try:
        return service_from(config)
    except (StoreRefused, ConfigError) as problem:
        sys.exit(f"foreman: {problem}")


def _handle_signals(reactor: Any, foreman: Foreman) -> None:
    """SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reads the tokens again."""
    stopping = False

    def stop(by_reactor: Callable[[int], None], number: int) -> None:
        nonlocal stopping
        if stopping:
            foreman.hurry()
        else:
            stopping = True
            by_reactor(number)

    # Installed only now: the reactor installs its own handlers when it begins to run.
    signal.signal(signal.SIGTERM, lambda number, _frame: reactor.callFromThread(stop, reactor.sigTerm, number))
    signal.signal(signal.SIGINT, lambda number, _frame: reactor.callFromThread(stop, reactor.sigInt, number))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda _number, _frame: reactor.callFromThread(foreman.reload))


def within_descriptor_limit(config: Config, descriptors: int) -> Config:
    """``config`` with no more connections than this process has descriptors for.

    Connections beyond the maximum, which are still to be refused, and request bodies in files take up to an eighth of the
    maximum each; a quarter of the descriptors is left for connections to the target and for the job store.
    """
    possible = max(16, descriptors * 3 // 5)
    if config.max_connections <= possible:
        return config
    from twisted.logger import Logger

    Logger(namespace="foreman.tap").warn(
        "FOREMAN_MAX_CONNECTIONS is {possible} here, since this process may open {descriptors} files",
        possible=possible,
        descriptors=descriptors,
    )
    return evolve(config, max_connections=possible)


def raise_descriptor_limit() -> int:
    """Raise the number of files that this process may open as far as the system grants it, and return it."""
    try:
        import resource
    except ImportError:
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS reports a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
