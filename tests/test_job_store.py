"""What ``JobStore`` promises, on each database: submissions, claims, reads, the clock, retention and the end."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from foreman.jobs.artifacts import Artifact, ArtifactFile
from foreman.jobs.queries import Filter
from foreman.jobs.retry_policy import AttemptError, Transition, next_transition
from foreman.store.errors import (
    ArtifactGone,
    ArtifactsTooLarge,
    KeyReused,
    StaleClaim,
    StoreUnavailable,
    TooManyJobs,
    WrongState,
)
from support.live_foreman import artifact_bytes
from support.new_jobs import new_job
from support.stores import DATABASES, Stores, outcome, soon


@pytest.fixture(params=sorted(DATABASES))
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    made = DATABASES[request.param](tmp_path)
    yield made
    blockon(Deferred.fromCoroutine(made.close()))


@ensureDeferred
async def test_what_was_acknowledged_is_seen_by_another_connection(stores: Stores) -> None:
    store = stores.store()
    for count in range(1, 6):
        await store.enqueue([new_job()])
        assert stores.rows() == count


@ensureDeferred
async def test_who_stops_listening_has_not_taken_back_what_was_asked(stores: Stores) -> None:
    store = stores.store()
    first, second = soon(store.enqueue([new_job()])), soon(store.enqueue([new_job()]))
    first.cancel()
    second.cancel()
    assert isinstance(await outcome(first), CancelledError)
    assert isinstance(await outcome(second), CancelledError)
    await store.enqueue([new_job()])
    assert stores.rows() == 3


@ensureDeferred
async def test_ids_grow_within_a_millisecond_and_when_the_clock_is_set_back(stores: Stores) -> None:
    store = stores.store()
    ids = []
    for by in (0.0, 0.0, 0.0, -3600.0, 0.0, 1.0, 7200.0):
        stores.wall.now += by
        ids += [one.id for one in await store.enqueue([new_job(), new_job()])]
    assert ids == sorted(set(ids))
    assert [job.id for job in await store.list_jobs(Filter(), None, 100)] == ids[::-1]


@ensureDeferred
async def test_bells_ring_after_the_commit_and_before_the_answer(stores: Stores) -> None:
    store = stores.store()
    heard: list[tuple[str, int]] = []
    store.notifications.on_queued = lambda: heard.append(("queued", stores.rows()))
    (enqueued,) = await store.enqueue([new_job()])
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
    assert len(await store.enqueue([new_job()])) == 1
    assert len(logged_failures.take(ZeroDivisionError)) == 1


@ensureDeferred
async def test_asking_for_the_end_of_a_running_job_is_a_change(stores: Stores) -> None:
    store = stores.store()
    (enqueued,) = await store.enqueue([new_job()])
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
    (enqueued,) = await store.enqueue([new_job()])
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    await store.cancel(enqueued.id)
    await store.release(claim)
    assert [event.type for event in await store.events(enqueued.id, 0)] == ["queued", "running", "cancelled"]


@ensureDeferred
async def test_what_was_cancelled_while_it_ran_can_be_tried_again_and_is_no_longer_to_end(stores: Stores) -> None:
    store = stores.store()
    (enqueued,) = await store.enqueue([new_job()])
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
    await store.enqueue([new_job(deadline=deadline)])
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
    ids = [one.id for one in await store.enqueue([new_job() for _ in range(1002)])]
    places = [job and job.position for job in [await store.get(ids[place]) for place in (0, 999, 1000, 1001)]]
    assert places == [1, 1000, 1001, None]


# submissions


@ensureDeferred
async def test_a_submission_is_stored_whole_or_not_at_all_and_a_repetition_is_no_new_job(stores: Stores) -> None:
    store = stores.store(max_jobs=6)
    (first,) = await store.enqueue([new_job(idempotency_key="k")])
    again, other = await store.enqueue([new_job(idempotency_key="k"), new_job()])
    assert (again.id, again.replayed, other.replayed) == (first.id, True, False)
    problem = await outcome(store.enqueue([new_job(), new_job(idempotency_key="k", fingerprint="another")]))
    assert isinstance(problem, KeyReused)
    assert problem.index == 1
    assert isinstance(await outcome(store.enqueue([new_job(owner="p") for _ in range(6)])), TooManyJobs)
    assert stores.rows() == 2
    assert await store.fingerprints("o", ["k", "unknown"]) == {"k": "f"}
    assert await store.fingerprints("p", ["k"]) == {}


@ensureDeferred
async def test_the_next_job_is_that_of_the_least_key_among_the_models_that_can_run(stores: Stores) -> None:
    store = stores.store()
    late, early, hasty, embedding = await store.enqueue(
        [
            new_job(model="a"),
            new_job(model="b", priority=4),
            new_job(model="c", priority=3),
            new_job(model="a", lane="embedding"),
        ]
    )
    bonus = {"a": 300_000, "b": 0, "c": None}.get
    for expected in (late, early):
        peeked = await store.peek("gate", bonus)
        claim = await store.claim("gate", bonus)
        assert peeked is not None
        assert claim is not None
        assert peeked.id == claim.job.id == expected.id
    assert await store.claim("gate", bonus) is None
    assert [job and job.position for job in await store.get_many([hasty.id, late.id, embedding.id, "none"])] == [
        1, None, 1, None,
    ]  # fmt: skip
    assert await store.oldest_run_at("gate") == store.now()


# claims


@ensureDeferred
async def test_a_claim_of_an_earlier_start_writes_nothing(stores: Stores) -> None:
    store = stores.store()
    (submitted,) = await store.enqueue([new_job()])
    stale = await store.claim("gate", lambda _: 0)
    assert stale is not None
    await store.append_output(stale, 0, b"a line\n")
    await store.stop()
    store = stores.store()
    rescued = await store.get(submitted.id)
    assert rescued is not None
    assert (rescued.state, rescued.rescues, rescued.instance) == ("queued", 1, None)
    assert await artifact_bytes(store, submitted.id, "partial") == b"a line\n"
    fresh = await store.claim("gate", lambda _: 0)
    assert fresh is not None
    answer = [Artifact("response", "text/plain", b"stale")]
    for write in (
        store.append_output(stale, 1, b"x"),
        store.succeed(stale, answer, None),
        store.end_attempt(stale, lambda job, _: Transition("failed", None, True, 0, job.error), answer),
        store.release(stale),
    ):
        assert isinstance(await outcome(write), StaleClaim)
    await store.succeed(fresh, [Artifact("response", "text/plain", b"fresh")], None)
    assert await artifact_bytes(store, submitted.id, "response") == b"fresh"
    assert await store.get_artifact(submitted.id, "partial") is None
    types = [event.type for event in await store.events(submitted.id, 0)]
    assert types == ["queued", "running", "rescued", "running", "succeeded"]


@ensureDeferred
async def test_a_release_does_not_count_and_a_failed_attempt_does(stores: Stores) -> None:
    store = stores.store()
    await store.enqueue([new_job()])
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    released = await store.release(claim)
    assert (released.state, released.attempt) == ("queued", 0)
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    failure = AttemptError("target_error", "it crashed")
    ended = await store.end_attempt(claim, lambda job, now: next_transition(job, failure, now, 0.5))
    assert (ended.state, ended.attempt, ended.error and ended.error.error_class) == ("scheduled", 1, "target_error")


# what users do


@ensureDeferred
async def test_only_an_ended_job_is_deleted_and_only_one_without_success_retried(stores: Stores) -> None:
    store = stores.store()
    (submitted,) = await store.enqueue([new_job()])
    for refused in (store.delete(submitted.id), store.retry(submitted.id), store.cancel("0" * 26)):
        assert isinstance(await outcome(refused), WrongState)
    assert (await store.cancel(submitted.id)).state == "cancelled"
    assert (await store.cancel(submitted.id)).state == "cancelled"
    assert (await store.retry(submitted.id)).state == "queued"
    await store.cancel(submitted.id)
    await store.delete(submitted.id)
    assert await store.get(submitted.id) is None
    assert await store.events(submitted.id, 0) == []


@ensureDeferred
async def test_an_artifact_is_read_by_ranges_until_it_is_replaced(stores: Stores) -> None:
    store = stores.store()
    (submitted,) = await store.enqueue([new_job()])
    _, is_new = await store.put_artifact(submitted.id, Artifact("notes", "text/plain", b"0123456789"))
    stored = await store.get_artifact(submitted.id, "notes")
    assert stored is not None
    assert is_new
    assert await store.read_artifact(stored, 3, 6, "o") == b"345"
    file = ArtifactFile("notes", "text/plain", BytesIO(b"abc"))
    info, is_new = await store.put_artifact(submitted.id, file, max_bytes=10)
    assert (info.bytes, is_new) == (3, False)
    assert isinstance(await outcome(store.read_artifact(stored, 0, 1, "o")), ArtifactGone)
    large = Artifact("more", "text/plain", b"x" * 8)
    assert isinstance(await outcome(store.put_artifact(submitted.id, large, max_bytes=10)), ArtifactsTooLarge)


# lists


@ensureDeferred
async def test_a_list_is_newest_first_and_goes_on_where_it_ended(stores: Stores) -> None:
    store = stores.store()
    ids = []
    for number in range(6):
        owner, model = ("alice", "bob")[number % 2], ("a", "library/a:latest", "b")[number % 3]
        ids += [
            one.id for one in await store.enqueue([new_job(owner=owner, model=model, metadata={"n": str(number % 2)})])
        ]
        stores.wall.now += 1
    await store.cancel(ids[0])

    async def listed(which: Filter) -> list[int]:
        found: list[int] = []
        before = None
        while page := await store.list_jobs(which, before, 2):
            found += [ids.index(job.id) for job in page]
            before = page[-1].id
        return found

    assert await listed(Filter()) == [5, 4, 3, 2, 1, 0]
    assert await listed(Filter(owner="alice")) == [4, 2, 0]
    assert await listed(Filter(model="A")) == [4, 3, 1, 0]
    assert await listed(Filter(states=("queued",), owner="alice")) == [4, 2]
    assert await listed(Filter(metadata={"n": "1"}, model="b")) == [5]
    middle = store.now() - 3000
    assert await listed(Filter(created_after=middle)) == [5, 4, 3]
    assert await listed(Filter(created_before=middle, states=("queued", "cancelled"))) == [2, 1, 0]


# the clock


@ensureDeferred
async def test_what_is_due_is_queued_and_what_has_expired_is_discarded(stores: Stores) -> None:
    store = stores.store()
    now = store.now()
    later, expiring = await store.enqueue([new_job(run_at=now + 5000), new_job(deadline=now + 9000)])
    assert await store.sweep() == now + 5000
    stores.wall.now += 5
    assert await store.sweep() == now + 9000
    stores.wall.now += 5
    assert await store.sweep() is None
    states = [job and job.state for job in await store.get_many([later.id, expiring.id])]
    assert states == ["queued", "discarded"]
    assert await store.load_clock() is None
    await store.save_clock(now, 60)
    assert await store.load_clock() == (now, 60)


@ensureDeferred
async def test_only_retries_are_brought_forward_when_the_clock_was_set_back(stores: Stores) -> None:
    store = stores.store()
    (retried,) = await store.enqueue([new_job()])
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    await store.end_attempt(claim, lambda job, now: Transition("scheduled", now + 900_000, True, 0, job.error))
    (planned,) = await store.enqueue([new_job(run_at=store.now() + 900_000)])
    await store.cap_retry_delays(60.0)
    await store.sweep()
    states = [job and job.state for job in await store.get_many([retried.id, planned.id])]
    assert states == ["queued", "scheduled"]


# retention


@ensureDeferred
async def test_ended_jobs_are_deleted_by_state_age_and_owner(stores: Stores) -> None:
    store = stores.store()
    ids = [one.id for one in await store.enqueue([new_job(owner=owner) for owner in ("alice", "bob", "alice", "bob")])]
    for id_ in ids[:3]:
        await store.cancel(id_)
    stores.wall.now += 10
    before = store.now()
    assert await store.prune("succeeded", before) == 0
    assert await store.prune("cancelled", before - 60_000) == 0
    batch = await store.delete_batch("cancelled", before, "alice", "")
    assert (batch.count, batch.last) == (2, None)
    assert await store.prune("cancelled", before) == 1
    assert [job is not None for job in await store.get_many(ids)] == [False, False, False, True]
    await store.purge_deleted()


# the end


@ensureDeferred
async def test_stopping_answers_all_who_wait(stores: Stores) -> None:
    store = stores.store()
    asked = [soon(outcome(store.enqueue([new_job()]))) for _ in range(200)]
    await store.stop()
    assert [type(one) for one in await gatherResults(asked)] == [list] * 200
    assert store.condition == "off"
    for late in (store.enqueue([new_job()]), store.counts()):
        problem = await outcome(late)
        assert isinstance(problem, StoreUnavailable)
        assert problem.condition == "off"
    assert stores.rows() == 200


@ensureDeferred
async def test_what_was_there_is_there_after_another_start(stores: Stores) -> None:
    store = stores.store()
    ids = [one.id for one in await store.enqueue([new_job(metadata={"a": "b"}), new_job()])]
    claim = await store.claim("gate", lambda _: 0)
    assert claim is not None
    await store.succeed(claim, [Artifact("response", "text/plain", b"hello")], None)
    await store.stop()
    again = stores.store()
    jobs = [await again.get(id_) for id_ in ids]
    assert [job and (job.state, dict(job.metadata)) for job in jobs] == [("succeeded", {"a": "b"}), ("queued", {})]
    assert await artifact_bytes(again, ids[0], "response") == b"hello"
