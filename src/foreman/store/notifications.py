"""Announcements of changes in the store, made after their commit."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class Notifications:
    """Announces each commit.

    :ivar on_queued: called when a job may have become able to run; :ivar on_due: called with the first time at which a
        job that has just been written is due or expires, in milliseconds since the epoch.
    """

    on_queued: Callable[[], None] = field(default=lambda: None)
    on_due: Callable[[int], None] = field(default=lambda _: None)
    _waiting: dict[str, dict[Deferred[None], None]] = field(factory=dict, init=False)

    def when_changed(self, id_: str) -> Deferred[None]:
        """Fires at the next change of the job ``id_``; can be cancelled.

        Call this before reading the job, so that no change is missed in between.
        """
        changed: Deferred[None] = Deferred(lambda _: self._discard(id_, changed))
        self._waiting.setdefault(id_, {})[changed] = None
        return changed

    def announce(self, changed: frozenset[str], queued: bool = False, due: int | None = None) -> None:
        """Announce a commit.

        :param changed: the jobs that it changed; :param queued: whether one of them may be able to run now;
        :param due: the first time at which one of them is due or expires, None for never.
        """
        waiting = [deferred for id_ in changed & self._waiting.keys() for deferred in self._waiting.pop(id_)]
        for deferred in waiting:
            if not deferred.called:  # a callback of an earlier one may have cancelled it
                deferred.callback(None)
        if queued:
            self.on_queued()
        if due is not None:
            self.on_due(due)

    def _discard(self, id_: str, changed: Deferred[None]) -> None:
        waiting = self._waiting.get(id_, {})
        waiting.pop(changed, None)
        if not waiting:
            self._waiting.pop(id_, None)
