"""Waiting for changes of jobs, as the store announces them."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from foreman.store.notifications import Notifications

JOBS = frozenset({"one", "two"})


def test_a_wait_that_begins_during_an_announcement_survives_the_cancelling_of_an_earlier_one() -> None:
    notifications = Notifications()
    old = {id_: notifications.when_changed(id_) for id_ in JOBS}
    new: dict[str, Deferred[None]] = {}

    def wait_anew(_: None, id_: str) -> None:
        (other,) = JOBS - {id_}
        new[other] = notifications.when_changed(other)
        old[other].addErrback(lambda _: None)
        old[other].cancel()

    for id_, waiter in old.items():
        waiter.addCallbacks(wait_anew, lambda _: None, callbackArgs=(id_,))
    notifications.announce(JOBS)
    assert len(new) == 1
    (waiter,) = new.values()
    assert not waiter.called
    notifications.announce(JOBS)
    assert waiter.called


def test_a_job_whose_last_wait_was_cancelled_leaves_nothing_behind() -> None:
    notifications = Notifications()
    first, second = notifications.when_changed("one"), notifications.when_changed("one")
    for waiter in (first, second):
        waiter.addErrback(lambda _: None)
    first.cancel()
    notifications.announce(JOBS)
    assert second.called
    third = notifications.when_changed("one")
    third.addErrback(lambda _: None)
    third.cancel()
    assert not notifications._changed
