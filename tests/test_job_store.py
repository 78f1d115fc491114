"""What ``JobStore`` promises, on each database: submissions, announcements, attempts, and the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from foreman.jobs.artifacts import Artifact
from foreman.jobs.queries import Filter
from foreman.jobs.retry_policy import AttemptError, Transition, next_transition
from foreman.store.errors import StoreUnavailable
from support.live_foreman import bytes_of
from support.stores import DATABASES, Stores, new


@pytest.fixture(params=sorted(DATABASES))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    made = DATABASES[request.param](tmp_path)
    yield made
    blockon(Deferred.fromCoroutine(made.close()))


def soon(work: Any) -> Deferred[Any]:
    """Begin a coroutine."""
    return Deferred.fromCoroutine(work)


async def outcome(work: Any) -> Any:
    """What it gives, or the exception."""
    try:
        return await work
    except Exception as problem:  # noqa: BLE001 - to be looked at
        return problem


@ensureDeferred
async def test_what_was_acknowledged_is_seen_by_another_connection(stores: Stores) -> None:
    store = stores.store()
    for count in range(1, 6):
        await store.enqueue([new()])
        assert stores.rows() == count


@ensureDeferred
async def test_who_stops_listening_has_not_taken_back_what_was_asked(stores: Stores) -> None:
    store = stores.store()
    first, second = soon(store.enqueue([new()])), soon(store.enqueue([new()]))
    first.cancel()
    second.cancel()
    assert isinstance(await outcome(first), CancelledError)
    assert isinstance(await outcome(second), CancelledError)
    await store.enqueue([new()])
    assert stores.rows() == 3


@ensureDeferred
async def test_ids_grow_within_a_millisecond_and_when_the_clock_is_set_back(stores: Stores) -> None:
    store = stores.store()
    ids = []
    for by in (0.0, 0.0, 0.0, -3600.0, 0.0, 1.0, 7200.0):
        stores.wall.now += by
        ids += [one.id for one in await store.enqueue([new(), new()])]
    assert ids == sorted(set(ids))
    assert [job.id for job in await store.list_jobs(Filter(), None, 100)] == ids[::-1]


@ensureDeferred
async def test_bells_ring_after_the_commit_and_before_the_answer(stores: Stores) -> None:
    store = stores.store()
    heard: list[tuple[str, int]] = []
    store.notifications.on_queued = lambda: heard.append(("queued", stores.rows()))
    (enqueued,) = await store.enqueue([new()])
    assert heard == [("queued", 1)]
    told = store.notifications.when_changed(enqueued.id)
    told.addCallback(lambda _: heard.append(("changed", stores.rows())))
    await store.cancel(enqueued.id)
    assert heard == [("queued", 1), ("changed", 1)]


@ensureDeferred
async def test_a_listeners_mistake_is_not_theirs_who_were_committed(stores: Stores, logged_failures: Any) -> None:
    store = stores.store()

    def mistaken() -> None:
        raise ZeroDivisionError

    store.notifications.on_queued = mistaken
    assert len(await store.enqueue([new()])) == 1
    assert len(logged_failures.take(ZeroDivisionError)) == 1


@ensureDeferred
async def test_asking_for_the_end_of_a_running_job_is_a_change(stores: Stores) -> None:
    store = stores.store()
    (enqueued,) = await store.enqueue([new()])
    await store.claim("gate", lambda _: 0)
    told = store.notifications.when_changed(enqueued.id)
    job = await store.cancel(enqueued.id)
    stores.wall.now += 5
    again = await store.cancel(enqueued.id)
    assert told.called
    assert (job.state, job.cancel_asked_at) == ("running", again.cancel_asked_at)


@ensureDeferred
async def test_a_job_that_was_to_be_cancelled_and_is_released_is_said_to_be_cancelled(stores: Stores) -> None:
    store = stores.store()
    (enqueued,) = await store.enqueue([new()])
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    await store.cancel(enqueued.id)
    await store.release(claim)
    assert [event.type for event in await store.events(enqueued.id, 0)] == ["queued", "running", "cancelled"]


@ensureDeferred
async def test_what_was_cancelled_while_it_ran_can_be_tried_again_and_is_no_longer_to_end(stores: Stores) -> None:
    store = stores.store()
    (enqueued,) = await store.enqueue([new()])
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    await store.cancel(enqueued.id)
    mishap = AttemptError("busy", "why")
    ended = await store.end_attempt(claim, lambda job, now: next_transition(job, mishap, now, 0.5))
    again = await store.retry(enqueued.id)
    assert (ended.state, again.state, again.cancel_asked_at, again.finished_at) == ("cancelled", "queued", None, None)


@ensureDeferred
async def test_a_deadline_is_not_forgotten_while_its_job_runs(stores: Stores) -> None:
    store = stores.store()
    deadline = store.now() + 60_000
    await store.enqueue([new(deadline=deadline)])
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    assert await store.sweep() is None
    due: list[int] = []
    store.notifications.on_due = due.append
    await store.end_attempt(
        claim, lambda job, _: Transition("queued", None, counts=False, uncounted_tries=0, error=job.error)
    )
    assert due == [deadline]


@ensureDeferred
async def test_a_place_is_told_while_no_more_than_a_thousand_are_before(stores: Stores) -> None:
    store = stores.store()
    ids = [one.id for one in await store.enqueue([new() for _ in range(1002)])]
    places = [job and job.position for job in [await store.get(ids[place]) for place in (0, 999, 1000, 1001)]]
    assert places == [1, 1000, 1001, None]


@ensureDeferred
async def test_stopping_answers_all_who_wait(stores: Stores) -> None:
    store = stores.store()
    asked = [soon(outcome(store.enqueue([new()]))) for _ in range(200)]
    await store.stop()
    assert [type(one) for one in await gatherResults(asked)] == [list] * 200
    assert store.condition == "off"
    for late in (store.enqueue([new()]), store.counts()):
        problem = await outcome(late)
        assert isinstance(problem, StoreUnavailable)
        assert problem.condition == "off"
    assert stores.rows() == 200


@ensureDeferred
async def test_what_was_there_is_there_after_another_start(stores: Stores) -> None:
    store = stores.store()
    ids = [one.id for one in await store.enqueue([new(metadata={"a": "b"}), new()])]
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    await store.succeed(claim, [Artifact("response", "text/plain", b"hello")], None)
    await store.stop()
    again = stores.store()
    jobs = [await again.get(id_) for id_ in ids]
    assert [job and (job.state, dict(job.metadata)) for job in jobs] == [("succeeded", {"a": "b"}), ("queued", {})]
    assert await bytes_of(again, ids[0], "response") == b"hello"
