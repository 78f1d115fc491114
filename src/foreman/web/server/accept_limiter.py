"""How connections are accepted: a few at a time, and with few words where there are too many."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from zope.interface import implementer

#: About so many connections are accepted in one turn of the reactor (Twisted adds 20 to what it has reached): then those
#: that are there are read first, so that a newcomer is heard before the next thousand come.
ACCEPTED_AT_ONCE = 32
#: How often it is logged that none can be accepted, in seconds.
BETWEEN_LINES = 60.0


@define(eq=False)
class AcceptLimiter:
    """Slows the ports down on which connections come in, Twisted's ``tcp.Port``."""

    _clock: IReactorTime
    _ports: list[Any] = field(factory=list, init=False)

    def listens(self, port: Any) -> Any:
        """``port`` is open; it is given back."""
        if hasattr(port, "numberAccepts"):
            self._ports.append(port)
            self.accepted()
            # Twisted says three things and more each time that a descriptor is lacking; it offers no other way.
            port._logger = Logger(namespace="foreman.web.server.accept_limiter", observer=RateLimitedLog(self._clock))  # noqa: SLF001
        return port

    def accepted(self) -> None:
        """A connection was accepted: Twisted would accept more and more in one turn."""
        for port in self._ports:
            port.numberAccepts = min(port.numberAccepts, ACCEPTED_AT_ONCE)


@implementer(ILogObserver)
@define(eq=False)
class RateLimitedLog:
    """Makes one line a minute of everything that Twisted says about connections that it cannot accept."""

    _clock: IReactorTime
    _closed: int = field(default=0, init=False)
    _said_at: float | None = field(default=None, init=False)
    _log = Logger()

    def __call__(self, event: LogEvent) -> None:
        """One thing that Twisted says."""
        self._closed += "address" in event
        now = self._clock.seconds()
        if self._said_at is None or now - self._said_at >= BETWEEN_LINES:
            self._log.warn(
                "connections cannot be accepted: {why} ({closed} were closed for it since the last such line); see ulimit -n",
                why=formatEvent(event),
                closed=self._closed,
            )
            self._closed, self._said_at = 0, now
