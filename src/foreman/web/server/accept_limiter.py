"""Accepting connections: a few in each turn of the reactor, and with one log line a minute where none can be accepted."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from zope.interface import implementer

#: About so many connections are accepted in one turn of the reactor (Twisted adds 20 to the number that it reached). Then
#: the open ones are read, so that a new client is served before the next thousand connect.
MAX_ACCEPTS = 32
#: At most one line is logged in this time about connections that cannot be accepted, in seconds.
LOG_INTERVAL = 60.0


@define(eq=False)
class AcceptLimiter:
    """Limits how many connections Twisted's listening ports (``tcp.Port``) accept in one turn of the reactor."""

    _clock: IReactorTime
    _ports: list[Any] = field(factory=list, init=False)

    def add_port(self, port: Any) -> Any:
        """Limit ``port``, which listens now.

        :return: ``port`` itself.
        """
        if hasattr(port, "numberAccepts"):
            self._ports.append(port)
            self.accepted()
            # Twisted logs three events and more each time that no file descriptor is left; it offers no other way to change that.
            port._logger = Logger(namespace="foreman.web.server.accept_limiter", observer=RateLimitedLog(self._clock))  # noqa: SLF001
        return port

    def accepted(self) -> None:
        """A connection was accepted: keep Twisted from accepting more and more in one turn."""
        for port in self._ports:
            port.numberAccepts = min(port.numberAccepts, MAX_ACCEPTS)


@implementer(ILogObserver)
@define(eq=False)
class RateLimitedLog:
    """Logs one line a minute instead of every event of Twisted's about connections that it cannot accept."""

    _clock: IReactorTime
    _closed: int = field(default=0, init=False)
    _logged_at: float | None = field(default=None, init=False)
    _log = Logger()

    def __call__(self, event: LogEvent) -> None:
        """Twisted logs ``event``."""
        self._closed += "address" in event
        now = self._clock.seconds()
        if self._logged_at is None or now - self._logged_at >= LOG_INTERVAL:
            self._log.warn(
                "connections cannot be accepted: {why} ({closed} were closed because of this since the last such line); see ulimit -n",
                why=formatEvent(event),
                closed=self._closed,
            )
            self._closed, self._logged_at = 0, now
