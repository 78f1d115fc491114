"""Who is told when something in the store has changed, after the commit."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class Notifications:
    """Rung after each commit.

    :ivar on_queued: called when a job may have become able to run; :ivar on_due: called with the first moment at which
        the clock changes a job that has just been written, in milliseconds since the epoch.
    """

    on_queued: Callable[[], None] = field(default=lambda: None)
    on_due: Callable[[int], None] = field(default=lambda _: None)
    _waiting: dict[str, dict[Deferred[None], None]] = field(factory=dict, init=False)

    def when_changed(self, id_: str) -> Deferred[None]:
        """Fires at the next change of the job ``id_``. Cancelling it forgets who waits.

        Ask for it before looking at the job, so that no change falls between.
        """
        told: Deferred[None] = Deferred(lambda _: self._forget(id_, told))
        self._waiting.setdefault(id_, {})[told] = None
        return told

    def ring(self, changed: frozenset[str], queued: bool = False, due: int | None = None) -> None:
        """Tell of the jobs that changed, whether one may run now, and when the clock changes one."""
        told = [one for id_ in changed & self._waiting.keys() for one in self._waiting.pop(id_)]
        for one in told:
            if not one.called:  # an earlier one, on hearing it, may have made this one give up
                one.callback(None)
        if queued:
            self.on_queued()
        if due is not None:
            self.on_due(due)

    def _forget(self, id_: str, told: Deferred[None]) -> None:
        waiting = self._waiting.get(id_, {})
        waiting.pop(told, None)
        if not waiting:
            self._waiting.pop(id_, None)
