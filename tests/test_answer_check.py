"""A reverse proxy answers for Ollama: jobs are not lost by it, and a lane stops where that goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from pytest_twisted import ensureDeferred

from foreman import errors
from foreman.jobs.retry_policy import MAX_UNCOUNTED_TRIES
from foreman.worker.answer_check import MAX_FOREIGN, PAUSE
from support.fake_target import LAST
from support.new_jobs import job_for
from support.worker_harness import JSON, VECTOR, WorkerHarness

HTML = [(b"Content-Type", b"text/html")]
TEXT = [(b"Content-Type", b"text/plain; charset=utf-8")]

#: What proxies, tunnels and sign-in pages answer for a target that is stopped.
PAGES: list[tuple[int, Any, bytes]] = [
    (404, TEXT, b"404 page not found\n"),
    (404, HTML, b"<html>this page of models was not found</html>"),
    (404, JSON, b'{"message":"no Route matched with those values"}'),
    (308, HTML, b"moved"),
    (405, HTML, b"<html>405 Not Allowed</html>"),
    (413, HTML, b"<html>413 Request Entity Too Large</html>"),
    (502, HTML, b"<html>502 Bad Gateway</html>"),
    (502, JSON, b'{"error":"bad gateway"}'),
    (400, JSON, b'{"error":"bad gateway upstream"}'),
    (418, JSON, b'{"error":{"message":"teapot"}}'),
    (500, JSON, b'{"error":"upstream connect error"}'),
    (504, HTML, b"<html>504 Gateway Time-out</html>"),
    (521, HTML, b"<html>Web server is down</html>"),
    (200, HTML, b"<html>please sign in</html>"),
    (200, JSON, b'{"status":"please sign in"}'),
]


@pytest_twisted.async_yield_fixture
async def harness(tmp_path: Path) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "jobs.db")
    yield made
    await made.end()


@pytest.mark.parametrize(("status", "headers", "body"), PAGES)
@pytest.mark.parametrize("endpoint", ["/api/chat", "/v1/chat/completions", "/api/embed"])
@ensureDeferred
async def test_an_answer_for_a_target_that_is_away_is_an_outage(
    harness: WorkerHarness,
    endpoint: str,
    status: int,
    headers: Any,
    body: bytes,
) -> None:
    harness.start()
    first, second = await harness.hand_over(job_for(endpoint, max_attempts=1), job_for(endpoint))
    call = await harness.target_call()
    harness.target.problem = errors.HTTPError(status, "the page")
    call.begin(status, headers).say(body).end()
    job = await harness.becomes(first, "queued")
    assert (job.attempt, job.uncounted_tries) == (0, 0)
    assert job.error is not None
    assert job.error.error_class == "unreachable"
    await harness.wait(60, step=5)
    assert len(harness.target.calls) == 1
    assert (await harness.job(second)).fence == 0
    assert harness.inference.target.inventory.why_held("gate") is not None
    harness.target.problem = None
    await harness.inference.target.inventory.refresh()
    assert harness.inference.target.inventory.why_held("gate") is None
    told: Any = JSON
    answer = VECTOR if endpoint == "/api/embed" else b'{"object":"x","choices":[]}'
    if endpoint == "/api/chat":
        answer, told = LAST, None
    for number, id_ in enumerate((first, second), 2):
        (await harness.target_call(number)).begin(headers=told).say(answer).end()
        assert (await harness.becomes(id_, "succeeded")).attempt == 1


@ensureDeferred
async def test_an_answer_that_is_not_ollamas_costs_no_attempt_at_first_although_the_target_is_there(
    harness: WorkerHarness,
) -> None:
    """Ollama may have come back in between."""
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    for number in range(1, MAX_UNCOUNTED_TRIES + 1):
        (await harness.target_call(number)).begin(404, TEXT).say(b"404 page not found\n").end()
        job = await harness.becomes(id_, "scheduled")
        assert (job.attempt, job.uncounted_tries) == (0, number)
        assert job.error is not None
        assert "Ollama is there" in job.error.message
        await harness.wait(600, step=60)
    (await harness.target_call(MAX_UNCOUNTED_TRIES + 1)).begin(404, TEXT).say(b"404 page not found\n").end()
    assert (await harness.becomes(id_, "failed")).error.error_class == "refused"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, [(b"Content-Type", b"text/plain")], b"404 page not found"),  # an Ollama without this route
        (413, HTML, b"<html>413 Request Entity Too Large</html>"),
    ],
)
@ensureDeferred
async def test_what_tells_of_the_request_is_judged_at_once_where_the_target_is_there(
    harness: WorkerHarness,
    status: int,
    headers: Any,
    body: bytes,
) -> None:
    harness.start()
    ids = await harness.hand_over(*[job_for() for _ in range(MAX_FOREIGN + 1)])
    for number, id_ in enumerate(ids, 1):
        (await harness.target_call(number)).begin(status, headers).say(body).end()
        assert (await harness.becomes(id_, "failed")).attempt == 1
    assert harness.inference.target.inventory.held == {}


@ensureDeferred
async def test_several_foreign_answers_in_a_row_stop_their_lane_and_say_so(harness: WorkerHarness) -> None:
    harness.start()
    ids = await harness.hand_over(*[job_for() for _ in range(50)])
    for number in range(1, MAX_FOREIGN + 1):
        (await harness.target_call(number)).begin(308, HTML).say(b"moved").end()
    await harness.turn()
    inventory = harness.inference.target.inventory
    assert "308" in (inventory.why_held("gate") or "")
    assert inventory.why_held("embedding") is None
    (embedding,) = await harness.hand_over(job_for("/api/embed"))
    (await harness.target_call(MAX_FOREIGN + 1)).begin(headers=JSON).say(VECTOR).end()
    await harness.becomes(embedding, "succeeded")
    await harness.wait(PAUSE - 2)
    assert len(harness.target.calls) == MAX_FOREIGN + 1
    await harness.wait(5)
    (await harness.target_call(MAX_FOREIGN + 2)).begin(308, HTML).say(b"moved").end()
    await harness.wait(2 * PAUSE - 5)
    assert len(harness.target.calls) == MAX_FOREIGN + 2
    await harness.wait(5)
    (await harness.target_call(MAX_FOREIGN + 3)).begin().say(LAST).end()  # one of Ollama's own ends it
    await harness.target_call(MAX_FOREIGN + 4)
    assert inventory.held == {}
    states = [(await harness.job(id_)).state for id_ in ids]
    assert not {"failed", "discarded"} & set(states)
    harness.target.calls[-1].begin().say(LAST).end()


@ensureDeferred
async def test_foreman_stops_while_it_asks_whether_the_target_is_there(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for(max_attempts=1))
    call = await harness.target_call()
    harness.target.slow = True
    call.begin(404, TEXT).say(b"404 page not found\n").end()
    await harness.until(lambda: harness.target.waiting)
    harness.worker.close()
    await harness.inference.target.inventory.stop()
    job = await harness.becomes(id_, "queued")
    assert job.attempt == 0


@ensureDeferred
async def test_a_chat_that_gets_a_page_makes_the_inventory_ask_but_not_each_of_a_thousand(
    harness: WorkerHarness,
) -> None:
    asked = harness.target.polls
    for _ in range(20):
        person = harness.work.ask()
        harness.target.calls[-1].begin(404, HTML).say(b"<html>").end()
        await harness.turn()
        assert person.responder.status == 404
        assert person.responder.pieces == [b"<html>"]  # what came is passed on as it is
    assert harness.target.polls == asked + 1
    harness.target.problem = errors.HTTPError(404, "404 page not found")
    harness.clock.advance(2)
    harness.work.ask()
    harness.target.calls[-1].begin(404, HTML).say(b"<html>").end()
    assert harness.inference.target.inventory.degraded is not None


@ensureDeferred
async def test_a_mistake_of_a_job_fails_it_at_once_and_many_of_the_same_ask_the_target_once_a_second(
    harness: WorkerHarness,
) -> None:
    harness.start()
    ids = await harness.hand_over(*[job_for() for _ in range(20)], job_for("/api/embed"))
    await harness.target_call(2)
    asked = harness.target.polls
    left = {call.head: call for call in harness.target.calls}
    left[b"POST /api/embed"].begin(400, JSON).say(b'{"error":"invalid option"}').end()
    assert (await harness.becomes(ids[20], "failed")).attempt == 1
    call = left[b"POST /api/chat"]
    for number, id_ in enumerate(ids[:20], 3):
        call.begin(400, JSON).say(b'{"error":"invalid option"}').end()
        job = await harness.becomes(id_, "failed")
        assert job.error is not None
        assert (job.attempt, job.error.message) == (1, "400: invalid option")
        if number < 22:
            call = await harness.target_call(number)
    assert harness.target.polls == asked + 1
    assert harness.inference.target.inventory.held == {}


@ensureDeferred
async def test_another_refusal_than_before_makes_foreman_ask_however_young_the_lists_are(
    harness: WorkerHarness,
) -> None:
    harness.start()
    first, second = await harness.hand_over(job_for(), job_for())
    (await harness.target_call()).begin(400, JSON).say(b'{"error":"invalid option"}').end()
    await harness.becomes(first, "failed")
    call = await harness.target_call(2)
    harness.target.problem = errors.HTTPError(400, "bad gateway upstream")
    call.begin(400, JSON).say(b'{"error":"bad gateway upstream"}').end()
    job = await harness.becomes(second, "queued")
    assert (job.attempt, job.uncounted_tries) == (0, 0)
    harness.target.problem = None
    await harness.wait(2)
    await harness.inference.target.inventory.refresh()
    (await harness.target_call(3)).begin().say(LAST).end()
    await harness.becomes(second, "succeeded")
