"""Timeouts that fire only after the sockets were read once more, and that do not count a pause of foreman itself.

When a stopped process (SIGSTOP, ``docker pause``, a stalled machine) runs again, its timers are due before it has read its
sockets. A plain ``callLater`` would then take a peer for silent whose bytes are waiting to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - as Deferred.addTimeout raises it
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

#: A timer that is later than this, in seconds, was delayed by a pause of foreman itself. A busy reactor is late by less.
PAUSE_THRESHOLD = 1.0
#: How often a timeout starts over: it must fire even where the reactor is always late.
MAX_PAUSES = 3
#: Smaller differences of floating-point seconds do not count.
_TINY = 1e-6


@define(eq=False)
class Deadline:
    """A timeout: at most one call is due at a time, and it is made after the sockets were read once more.

    When the time is over, the reactor first gets one turn, in which it reads every socket that has data. A timeout that is
    late by more than ``PAUSE_THRESHOLD`` starts over, at most ``MAX_PAUSES`` times: the peer may have been paused together
    with foreman, and reading its data may take several turns.

    :ivar started_at: when the time began. Where a peer sends often, set this to the present instead of calling ``set``:
        that needs no timer.
    :ivar after_pause: how long to wait after a pause, in seconds; None: the whole time again.
    """

    _clock: IReactorTime
    after_pause: float | None = None
    started_at: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _pauses: int = field(default=0, init=False)
    _then: Callable[[], object] | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    @property
    def is_set(self) -> bool:
        """Whether a call is due."""
        return self._call is not None

    def set(self, seconds: float, then: Callable[[], object]) -> None:
        """Call ``then`` when ``seconds`` have passed since ``started_at``; a call that was due before is dropped."""
        self.clear()
        self.started_at = self._clock.seconds()
        self._seconds, self._then, self._pauses = seconds, then, 0
        self._wait(seconds, sockets_read=False)

    def clear(self) -> None:
        """Drop the call that is due, if there is one."""
        call, self._call, self._then = self._call, None, None
        if call is not None:
            call.cancel()

    def _wait(self, seconds: float, *, sockets_read: bool) -> None:
        self._call = self._clock.callLater(seconds, self._due, sockets_read)

    def _due(self, sockets_read: bool) -> None:
        call, then = self._call, self._then
        assert call is not None
        assert then is not None
        now = self._clock.seconds()
        left = self._seconds - (now - self.started_at)
        if left > _TINY:
            self._pauses = 0
            self._wait(left, sockets_read=False)
        elif now - call.getTime() > PAUSE_THRESHOLD and self._pauses < MAX_PAUSES:
            self._pauses += 1
            again = self._seconds if self.after_pause is None else min(self._seconds, self.after_pause)
            self.started_at = now - self._seconds + again
            self._wait(again, sockets_read=False)
        elif not sockets_read:
            self._wait(0, sockets_read=True)
        else:
            self._call = self._then = None
            then()


def within(
    deferred: Deferred[T], seconds: float, clock: IReactorTime, otherwise: Callable[[], T] | None = None
) -> Deferred[T]:
    """Cancel ``deferred`` when it has not fired within ``seconds``: ``Deferred.addTimeout`` with a ``Deadline``.

    :param otherwise: returns the result in that case; None: ``deferred`` fails with ``twisted.internet.defer.TimeoutError``.
    :return: ``deferred`` itself.
    """
    limit, is_over = Deadline(clock), False

    def end() -> None:
        nonlocal is_over
        is_over = True
        deferred.cancel()

    def settle(result: Any) -> Any:
        limit.clear()
        if not is_over:
            return result
        if otherwise is not None:
            return otherwise()
        if isinstance(result, Failure) and result.check(CancelledError):
            raise TimeoutError(seconds, "Deferred")
        return result

    limit.set(seconds, end)
    return deferred.addBoth(settle)
