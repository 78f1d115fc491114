"""One thing that happens unless another comes first."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime


@define(eq=False)
class Deadline:
    """At most one call is due at a time."""

    _clock: IReactorTime
    _call: IDelayedCall | None = field(default=None, init=False)

    def set(self, seconds: float, then: Callable[[], object]) -> None:
        """Call ``then`` in ``seconds``, and nothing else that was due before."""
        self.clear()
        self._call = self._clock.callLater(seconds, self._due, then)

    def clear(self) -> None:
        """Nothing is due any more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _due(self, then: Callable[[], object]) -> None:
        self._call = None
        then()
