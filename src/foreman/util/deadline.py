"""Time limits that judge only after everything that has arrived was read, and that do not count a pause of foreman itself.

A process that was stopped (SIGSTOP, ``docker pause``, a stalled machine) finds its timers due before it has read its
sockets. A plain ``callLater`` would then call a peer silent whose bytes wait to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - as Deferred.addTimeout raises it
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

#: A limit that is later than this, in seconds, was held up by a pause of foreman itself. A busy reactor is late by less.
PAUSE = 1.0
#: How often a limit starts over, so that it comes to an end also where the reactor is always late.
MAX_PAUSES = 3
#: Differences of floating-point seconds below this are none.
_TINY = 1e-6


@define(eq=False)
class Deadline:
    """At most one call is due at a time, and it comes after one more look at the sockets.

    When the time is over, the reactor first gets one turn, in which it reads each socket that has something. A limit that
    is late by more than ``PAUSE`` starts over, at most ``MAX_PAUSES`` times: its peer may have been paused together with
    foreman, and what it sends may take several turns to read.

    :ivar heard_at: when the time began. Where something is heard often, set this to the present instead of calling
        ``set``: it costs no timer.
    :ivar after_pause: how long it waits after a pause, in seconds; None: its whole time again.
    """

    _clock: IReactorTime
    after_pause: float | None = None
    heard_at: float = field(default=0.0, init=False)
    _seconds: float = field(default=0.0, init=False)
    _pauses: int = field(default=0, init=False)
    _then: Callable[[], object] | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    @property
    def is_set(self) -> bool:
        """Whether something is due."""
        return self._call is not None

    def set(self, seconds: float, then: Callable[[], object]) -> None:
        """Call ``then`` when ``seconds`` have passed since ``heard_at``, and nothing else that was due before."""
        self.clear()
        self.heard_at = self._clock.seconds()
        self._seconds, self._then, self._pauses = seconds, then, 0
        self._wait(seconds, looked=False)

    def clear(self) -> None:
        """Nothing is due any more."""
        call, self._call, self._then = self._call, None, None
        if call is not None:
            call.cancel()

    def _wait(self, seconds: float, *, looked: bool) -> None:
        self._call = self._clock.callLater(seconds, self._due, looked)

    def _due(self, looked: bool) -> None:
        call, then = self._call, self._then
        assert call is not None
        assert then is not None
        now = self._clock.seconds()
        left = self._seconds - (now - self.heard_at)
        if left > _TINY:
            self._pauses = 0
            self._wait(left, looked=False)
        elif now - call.getTime() > PAUSE and self._pauses < MAX_PAUSES:
            self._pauses += 1
            again = self._seconds if self.after_pause is None else min(self._seconds, self.after_pause)
            self.heard_at = now - self._seconds + again
            self._wait(again, looked=False)
        elif not looked:
            self._wait(0, looked=True)
        else:
            self._call = self._then = None
            then()


def within(
    deferred: Deferred[T], seconds: float, clock: IReactorTime, otherwise: Callable[[], T] | None = None
) -> Deferred[T]:
    """Cancel ``deferred`` when it has not fired within ``seconds``; ``Deferred.addTimeout`` with a ``Deadline``.

    :param otherwise: gives the result in that case; None: it fails with ``twisted.internet.defer.TimeoutError``.
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
