"""Waiting for the first of several events, at most for some seconds, and only until foreman stops."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from foreman.util.waiters import Waiters


@define(eq=False)
class Wakeups:
    """The requests that wait for something about a job.

    :ivar closed: foreman stops, so that nothing waits any more.
    """

    _clock: IReactorTime
    closed: bool = field(default=False, init=False)
    _closing: Waiters[None] = field(factory=Waiters, init=False)

    def first_of(self, *notifications: Deferred[None], seconds: float) -> Deferred[None]:
        """Fires when one of ``notifications`` fires, when ``seconds`` have passed, or when foreman stops.

        When it fires or is cancelled, all of ``notifications`` are cancelled.
        """
        over, events = False, (*notifications, self._closing.wait())

        def stop(_: object = None) -> None:
            nonlocal over
            over = True
            if timer.active():
                timer.cancel()
            for event in events:
                event.cancel()

        def wake(_: object = None) -> None:
            if not over:
                stop()
                woken.callback(None)

        woken: Deferred[None] = Deferred(stop)
        timer = self._clock.callLater(0 if self.closed else seconds, wake)
        for event in events:
            event.addBoth(wake)
        return woken

    def close(self) -> None:
        """Wake all that wait; from now on nothing waits."""
        self.closed = True
        self._closing.fire(None)
