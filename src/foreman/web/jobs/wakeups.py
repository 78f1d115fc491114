"""Waiting for the first of several things, for a while, and until foreman stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


@define(eq=False)
class Wakeups:
    """Those who wait.

    :ivar closed: foreman stops, and nobody waits any more.
    """

    _clock: IReactorTime
    closed: bool = field(default=False, init=False)
    _waiting: dict[Deferred[None], Callable[[], None]] = field(factory=dict, init=False)

    def first_of(self, *notifications: Deferred[None], seconds: float) -> Deferred[None]:
        """Fires when one of ``notifications`` has, when ``seconds`` are over, or when foreman stops.

        The bells are this one's, and none of them rings any more when it has fired or was cancelled.
        """
        over = False

        def stop(_: object = None) -> None:
            nonlocal over
            over = True
            if timer.active():
                timer.cancel()
            self._waiting.pop(woken, None)
            for bell in notifications:
                bell.cancel()

        def wake(_: object = None) -> None:
            if not over:
                stop()
                woken.callback(None)

        woken: Deferred[None] = Deferred(stop)
        timer = self._clock.callLater(0 if self.closed else seconds, wake)
        self._waiting[woken] = wake
        for bell in notifications:
            bell.addBoth(wake)
        return woken

    def close(self) -> None:
        """Wake everybody, and let nobody wait from now on."""
        self.closed = True
        for wake in list(self._waiting.values()):
            wake()


@contextmanager
def listening(bell: Deferred[None]) -> Iterator[Deferred[None]]:
    """Nobody waits for ``bell`` afterwards, whether or not it has rung."""
    try:
        yield bell
    finally:
        bell.addErrback(lambda _: None)
        bell.cancel()
