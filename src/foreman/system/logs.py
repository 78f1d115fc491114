"""The formats of the log: text, or one JSON object per line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import msgspec
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatTime,
    textFileLogObserver,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface import implementer

_PLAIN = (str, int, float, bool, type(None))


def observer(log_format: str, stream: TextIO, level: str = "info") -> ILogObserver:
    """The observer for ``FOREMAN_LOG_FORMAT`` (``text`` or ``json``) that writes to ``stream``.

    :param level: the lowest level that is written, as of ``FOREMAN_LOG_LEVEL``.
    """
    all_levels: ILogObserver = JSONObserver(stream) if log_format == "json" else textFileLogObserver(stream)
    predicate = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    return FilteringLogObserver(all_levels, [predicate])


#: The options of this process's ``twistd``, the format and the level: ``twistd`` finds the factory of its observer by name,
#: and passes it no arguments.
_twistd: tuple[Mapping[str, Any], str, str] = ({}, "text", "info")


def for_twistd(options: Mapping[str, Any], log_format: str, level: str) -> str:
    """Set how ``twistd`` writes its log.

    :param options: those of ``twistd``, read when it begins to log; :param log_format, level: as for ``observer``.
    :return: the name of the factory of its observer.
    """
    global _twistd  # noqa: PLW0603 - there is one log in a process
    _twistd = (options, log_format, level)
    return f"{__name__}.{twistd_observer.__name__}"


def twistd_observer() -> ILogObserver:
    """The factory of ``twistd``'s observer, which writes to the log file of ``twistd``; SIGUSR1 begins a new file."""
    options, log_format, level = _twistd
    name = options.get("logfile") or ("-" if options.get("nodaemon") else "twistd.log")
    if name == "-":
        return observer(log_format, sys.stdout, level)
    file: Any = LogFile.fromFullPath(name)
    if not signal.getsignal(signal.SIGUSR1):  # no handler is installed
        signal.signal(signal.SIGUSR1, lambda _number, _frame: file.rotate())
    return observer(log_format, file, level)


@implementer(ILogObserver)
class JSONObserver:
    """Writes each event as one line: time, level, system, message, and those of its fields that are plain values."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        """Write one event."""
        level = event.get("log_level")
        line: dict[str, Any] = {
            "time": formatTime(event["log_time"]),
            "level": level.name if level is not None else "info",
            "system": event.get("log_namespace", "-"),
            "message": formatEvent(event),
        }
        for name, value in event.items():
            if not name.startswith(("log_", "_")) and name not in line and isinstance(value, _PLAIN):
                line[name] = value
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            line["traceback"] = failure.getTraceback()
        self._stream.write(msgspec.json.encode(line).decode("utf-8") + "\n")
        self._stream.flush()
