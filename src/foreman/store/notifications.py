"""Announcements of changes in the store, made after their commit."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from foreman.util.waiters import Waiters


@define(eq=False)
class Notifications:
    """Announces each commit.

    :ivar on_queued: called when a job may have become able to run; :ivar on_due: called with the first time at which a
        job that has just been written is due or expires, in milliseconds since the epoch.
    :ivar on_committed: called with the ids of the jobs that a commit wrote.
    """

    on_committed: Callable[[frozenset[str]], None] = field(default=lambda _: None)
    on_queued: Callable[[], None] = field(default=lambda: None)
    on_due: Callable[[int], None] = field(default=lambda _: None)
    _changed: dict[str, Waiters[None]] = field(factory=dict, init=False)

    def when_changed(self, id_: str) -> Deferred[None]:
        """Fires at the next change of the job ``id_``; cancelling it removes it.

        Call it before reading the job, so that no change between the two is missed.
        """
        waiters = self._changed.get(id_)
        if waiters is None:
            waiters = self._changed[id_] = Waiters(on_empty=lambda: self._drop_empty(id_))
        return waiters.wait()

    def _drop_empty(self, id_: str) -> None:
        if not self._changed.get(id_):  # while an announcement fires some, newer ones may have taken their place
            self._changed.pop(id_, None)

    def committed(self, changed: frozenset[str], queued: bool = False, due: int | None = None) -> None:
        """Announce a commit of the writer, as ``announce``, and pass it on to ``on_committed``."""
        if changed:
            self.on_committed(changed)
        self.announce(changed, queued, due)

    def announce(self, changed: frozenset[str], queued: bool = False, due: int | None = None) -> None:
        """Announce a commit.

        :param changed: the jobs that it changed; :param queued: whether one of them may be able to run now;
        :param due: the first time at which one of them is due or expires, None for never.
        """
        for waiters in [self._changed.pop(id_) for id_ in changed & self._changed.keys()]:
            waiters.fire(None)
        if queued:
            self.on_queued()
        if due is not None:
            self.on_due(due)
