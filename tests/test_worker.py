"""Jobs from the store through the gate to the target and back: a real store, a pretended target, and a clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from conftest import LoggedFailures
from foreman import errors
from foreman.jobs.artifacts import ERROR, PARTIAL, RESPONSE, STREAM
from foreman.store.errors import WrongState, unavailable
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.worker.answer_check import AnswerCheck
from foreman.worker.attempt import Attempt
from foreman.worker.worker import RECHECK, STORE_PAUSE, UNREACHED_PAUSE
from support.fake_target import TargetCall
from support.new_jobs import HELLO, job_for
from support.worker_harness import JSON, VECTOR, WorkerHarness, stored_lines

reactor: Any = installed_reactor

LINE = b'{"model":"llama3","message":{"role":"assistant","content":"word"},"done":false}\n'
LAST = (
    b'{"model":"llama3","message":{"role":"assistant","content":"."},"done":true,"done_reason":"stop",'
    b'"total_duration":2000000000,"load_duration":1000000000,"prompt_eval_count":3,"eval_count":2}\n'
)
WHOLE = (
    b'{"model":"llama3","message":{"role":"assistant","content":"word."},"done":true,"done_reason":"stop",'
    b'"total_duration":2000000000,"load_duration":1000000000,"prompt_eval_count":3,"eval_count":2}'
)


@pytest_twisted.async_yield_fixture
async def harness(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[WorkerHarness]:
    made = WorkerHarness(tmp_path / "jobs.db", **getattr(request, "param", {}))
    yield made
    await made.end()


# one job


@pytest_twisted.ensureDeferred
async def test_a_job_gets_its_turn_and_its_answer_is_kept(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for(content_type="application/json", headers=(("OpenAI-Beta", "x"),)))
    call = await harness.target_call()
    assert (call.head, json.loads(call.body)) == (
        b"POST /api/chat",
        {"model": "llama3", "messages": HELLO, "input": "x"},
    )
    job = await harness.job(id_)
    assert (job.state, job.attempt, job.fence) == ("running", 1, 1)
    (turn,) = harness.inference.target.gate.running
    assert (turn.ticket.id, turn.ticket.caller, turn.ticket.is_job) == (id_, "alice", True)
    call.begin().say(LINE, LAST).end()
    job = await harness.becomes(id_, "succeeded")
    assert harness.inference.target.gate.running == []
    assert [info.name for info in job.artifacts] == [RESPONSE, STREAM]
    assert (await harness.artifact(id_, RESPONSE), await harness.artifact(id_, STREAM)) == (WHOLE, LINE + LAST)
    usage = job.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.load_ms, usage.total_ms) == (3, 2, 1000, 2000)
    assert (job.attempt, job.error) == (1, None)
    assert await harness.events(id_) == ["queued", "running", "succeeded"]


@pytest.mark.parametrize(
    ("endpoint", "stream", "goes", "comes"),
    [
        ("/api/chat", False, True, None),
        ("/api/generate", True, None, None),
        ("/v1/chat/completions", True, False, b'{"object":"chat.completion"}'),
        ("/v1/messages", False, None, b'{"type":"message","content":[]}'),
        ("/api/embed", False, None, VECTOR),
    ],
)
@pytest_twisted.ensureDeferred
async def test_native_chats_are_asked_for_a_stream_and_all_others_for_a_whole(
    harness: WorkerHarness, endpoint: str, stream: bool, goes: bool | None, comes: bytes | None
) -> None:
    harness.start()
    payload = b'{"model":"llama3", "stream":%b ,"x":[1,{"stream":0}]}' % (b"true" if stream else b"false")
    (id_,) = await harness.hand_over(job_for(endpoint, payload=payload, stream=stream))
    call = await harness.target_call()
    wanted = (
        payload
        if goes is None
        else payload.replace(b"%b ," % (b"false" if goes else b"true"), b"%b ," % (b"true" if goes else b"false"))
    )
    assert call.body == wanted
    if comes is None:
        call.begin().say(LAST).end()
    else:
        call.begin(headers=JSON).say(comes).end()
    await harness.becomes(id_, "succeeded")
    assert await harness.artifact(id_, RESPONSE) == (comes or LAST.rstrip())


@pytest_twisted.ensureDeferred
async def test_a_transcription_is_kept_as_it_came(harness: WorkerHarness) -> None:
    harness.start()
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nllama3\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    (id_,) = await harness.hand_over(job_for("/v1/audio/transcriptions", payload=form, content_type=kind))
    call = await harness.target_call()
    assert call.body == form
    call.begin().say(b"spoken words\n").end()
    job = await harness.becomes(id_, "succeeded")
    assert [info.name for info in job.artifacts] == [RESPONSE]
    assert await harness.artifact(id_, RESPONSE) == b"spoken words\n"


@pytest_twisted.ensureDeferred
async def test_jobs_run_one_after_another_in_the_order_of_the_queue(harness: WorkerHarness) -> None:
    ids = await harness.hand_over(job_for(priority=5), job_for(priority=9), job_for(priority=0), job_for(priority=5))
    harness.start()
    order = []
    for number in range(1, 5):
        call = await harness.target_call(number)
        order.append(ids.index(harness.inference.target.gate.running[0].ticket.id))
        call.begin().say(LAST).end()
    assert order == [2, 0, 3, 1]
    for id_ in ids:
        await harness.becomes(id_, "succeeded")


@pytest_twisted.ensureDeferred
async def test_embeddings_run_beside_a_chat_one_at_a_time(harness: WorkerHarness) -> None:
    harness.start()
    chat, one, other = await harness.hand_over(job_for(), job_for("/api/embed"), job_for("/v1/embeddings"))
    await harness.target_call(2)
    running, embedding = sorted(harness.target.calls, key=lambda call: call.head)
    assert (running.head, embedding.head) == (b"POST /api/chat", b"POST /api/embed")
    assert len(harness.inference.target.embeddings.running) == 1
    embedding.begin(headers=JSON).say(VECTOR).end()
    await harness.becomes(one, "succeeded")
    (await harness.target_call(3)).begin(headers=JSON).say(VECTOR).end()
    await harness.becomes(other, "succeeded")
    running.begin().say(LAST).end()
    await harness.becomes(chat, "succeeded")


@pytest_twisted.ensureDeferred
async def test_a_model_in_the_cloud_takes_no_turn(harness: WorkerHarness) -> None:
    harness.start()
    far, far_too, chat = await harness.hand_over(
        job_for(model="far", lane="embedding"), job_for(model="x:cloud", lane="embedding"), job_for()
    )
    await harness.target_call(2)
    assert [turn.ticket.id for turn in harness.inference.target.gate.running] == [chat]
    assert harness.inference.target.embeddings.running == []
    for call in list(harness.target.calls):
        call.begin().say(LAST).end()
    (await harness.target_call(3)).begin().say(LAST).end()
    for id_ in (far, far_too, chat):
        await harness.becomes(id_, "succeeded")


@pytest_twisted.ensureDeferred
async def test_a_name_that_ollama_refuses_is_refused_by_it_and_holds_up_nobody(harness: WorkerHarness) -> None:
    harness.start()
    odd, next_one = await harness.hand_over(job_for("/api/embed", "in valid"), job_for("/api/embed"))
    (await harness.target_call()).begin(400, JSON).say(b'{"error":"invalid model name"}').end()
    job = await harness.becomes(odd, "failed")
    assert job.error is not None
    assert (job.error.error_class, job.error.message) == ("refused", "400: invalid model name")
    (await harness.target_call(2)).begin(headers=JSON).say(VECTOR).end()
    await harness.becomes(next_one, "succeeded")


# people


@pytest_twisted.ensureDeferred
async def test_with_fifty_jobs_in_the_store_a_person_is_next(harness: WorkerHarness) -> None:
    harness.start()
    await harness.hand_over(*[job_for() for _ in range(50)])
    call = await harness.target_call()
    person = harness.work.ask()
    assert [ticket.is_job for ticket in harness.inference.target.gate.waiting] == [False]
    call.begin().say(LAST).end()
    await harness.until(lambda: not harness.inference.target.gate.waiting)
    call = await harness.target_call(2)
    assert not harness.inference.target.gate.running[0].ticket.is_job
    await harness.turn()
    assert len(harness.inference.target.gate.waiting_jobs) == 1
    call.begin().say(LAST).end()
    assert person.results == [None]
    await harness.target_call(3)
    assert harness.inference.target.gate.running[0].ticket.is_job


@pytest.mark.parametrize(
    ("harness", "turns"), [({"patience": 60.0}, 4), ({"patience": 3600.0}, None)], indirect=["harness"]
)
@pytest_twisted.ensureDeferred
async def test_a_job_that_has_waited_for_the_patience_gets_every_fourth_turn(
    harness: WorkerHarness, turns: int | None
) -> None:
    for _ in range(8):
        harness.work.ask()
    await harness.hand_over(job_for(), job_for())
    await harness.wait(61, step=61)
    harness.start()
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    order = []
    for number in range(1, 9):
        call = await harness.target_call(number)
        order.append(harness.inference.target.gate.running[0].ticket.is_job)
        call.begin().say(LAST).end()
        await harness.turn()
    assert order == ([False, False, False, turns is not None] * 2)


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_in_the_room_leaves_it(harness: WorkerHarness) -> None:
    person = harness.work.ask()
    harness.start()
    first, second = await harness.hand_over(job_for(), job_for())
    await harness.until(lambda: [one.id for one in harness.inference.target.gate.waiting_jobs] == [first])
    await harness.store.cancel(first)
    await harness.until(lambda: [one.id for one in harness.inference.target.gate.waiting_jobs] == [second])
    await harness.store.cancel(second)
    await harness.turn()
    assert harness.inference.target.gate.waiting_jobs == []
    harness.target.calls[0].begin().say(LAST).end()
    assert person.results == [None]
    await harness.turn()
    assert len(harness.target.calls) == 1


@pytest_twisted.ensureDeferred
async def test_a_job_that_expires_in_the_room_leaves_it(harness: WorkerHarness) -> None:
    harness.work.ask()
    harness.start()
    (id_,) = await harness.hand_over(job_for(deadline=harness.store.now() + 10_000))
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    await harness.wait(11)
    job = await harness.becomes(id_, "discarded")
    assert job.error is not None
    assert job.error.error_class == "expired"
    assert harness.inference.target.gate.waiting_jobs == []
    assert len(harness.target.calls) == 1


@pytest_twisted.ensureDeferred
async def test_no_load_goes_on_for_a_job_that_was_cancelled(harness: WorkerHarness) -> None:
    harness.target.ps = {"models": []}
    await harness.inference.target.inventory.refresh()
    person = harness.work.ask()
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    person.leave()
    (turn,) = harness.inference.target.gate.running
    assert turn.kept
    assert not harness.target.calls[0].left
    await harness.store.cancel(id_)
    await harness.wait(2)
    assert harness.target.calls[0].left
    assert harness.inference.target.gate.running == []


@pytest_twisted.ensureDeferred
async def test_a_load_goes_on_for_the_next_job_when_the_first_is_cancelled(harness: WorkerHarness) -> None:
    harness.target.ps = {"models": []}
    await harness.inference.target.inventory.refresh()
    harness.start()
    first, second = await harness.hand_over(job_for(), job_for())
    await harness.target_call()
    person = harness.work.ask()
    await harness.store.cancel(first)
    harness.worker.cancel(first)
    await harness.becomes(first, "cancelled")
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    assert [turn.kept for turn in harness.inference.target.gate.running] == [True]
    harness.target.calls[0].begin()
    call = await harness.target_call(2)
    call.begin().say(LAST).end()
    assert person.results == [None]
    (await harness.target_call(3)).begin().say(LAST).end()
    await harness.becomes(second, "succeeded")


@pytest_twisted.ensureDeferred
async def test_the_turn_shows_the_job_that_runs_and_not_the_one_that_waited(harness: WorkerHarness) -> None:
    harness.work.ask()
    harness.start()
    await harness.hand_over(job_for(model="big:7b"))
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    (urgent,) = await harness.hand_over(job_for(priority=0))
    await harness.turn()
    harness.target.calls[0].begin().say(LAST).end()
    await harness.target_call(2)
    (turn,) = harness.inference.target.gate.running
    assert (turn.ticket.id, turn.ticket.model) == (urgent, "llama3")


# models


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_before_it_is_known_what_is_loaded(harness: WorkerHarness) -> None:
    inventory = harness.inference.target.inventory
    inventory.tags, inventory.running = None, []
    harness.target.slow = True
    await harness.hand_over(job_for(model="big:7b"))
    await harness.wait(10, step=10)
    await harness.hand_over(job_for())
    harness.start()
    await harness.until(lambda: harness.target.waiting)
    await harness.turn()
    assert harness.target.calls == []
    harness.target.answer()
    await harness.target_call()
    assert harness.inference.target.gate.running[0].ticket.model == "llama3"


@pytest_twisted.ensureDeferred
async def test_jobs_of_the_loaded_model_go_first_within_a_bound_and_starve_nobody(harness: WorkerHarness) -> None:
    (other,) = await harness.hand_over(job_for(model="big:7b"))
    await harness.wait(20, step=20)
    soon = await harness.hand_over(*[job_for() for _ in range(2)])
    await harness.wait(20, step=20)
    await harness.hand_over(job_for())
    harness.start()
    order = []
    for number in range(1, 5):
        call = await harness.target_call(number)
        order.append(harness.inference.target.gate.running[0].ticket.id)
        call.begin().say(LAST).end()
    assert order[:3] == [*soon, other]


@pytest.mark.parametrize("model", ["llama3", "llama3:latest"])
@pytest.mark.parametrize(("load", "bonus"), [(1.0, 30), (20.0, 120), (500.0, 300)])
@pytest_twisted.ensureDeferred
async def test_how_far_the_loaded_model_goes_before_is_what_loading_takes(
    harness: WorkerHarness, model: str, load: float, bonus: int
) -> None:
    harness.start()
    told = LAST.replace(b'"load_duration":1000000000', b'"load_duration":%d' % (load * 1e9))
    (id_,) = await harness.hand_over(job_for(model=model))
    (await harness.target_call()).begin().say(told).end()
    await harness.becomes(id_, "succeeded")
    harness.work.ask()
    await harness.hand_over(job_for(model="big:7b"))
    await harness.wait(bonus - 1, step=bonus)
    within = await harness.hand_over(job_for(model=model))
    await harness.wait(2, step=2)
    await harness.hand_over(job_for(model=model))
    await harness.turn()
    harness.target.calls[1].begin().say(b'{"done":true}\n').end()
    (await harness.target_call(3)).begin().say(LAST).end()
    await harness.becomes(within[0], "succeeded")
    await harness.target_call(4)
    assert harness.inference.target.gate.running[0].ticket.model == "big:7b"


@pytest_twisted.ensureDeferred
async def test_a_job_whose_model_is_gone_waits_for_it_and_holds_up_nobody(harness: WorkerHarness) -> None:
    harness.start()
    gone, there = await harness.hand_over(job_for(model="gone"), job_for())
    call = await harness.target_call()
    assert harness.inference.target.gate.running[0].ticket.id == there
    call.begin().say(LAST).end()
    await harness.wait(3 * RECHECK)
    assert ((await harness.job(gone)).state, len(harness.target.calls)) == ("queued", 1)
    harness.target.tags = {"models": [{"name": "gone:latest"}]}
    await harness.inference.target.inventory.refresh()
    await harness.wait(RECHECK)
    (await harness.target_call(2)).begin().say(LAST).end()
    job = await harness.becomes(gone, "succeeded")
    assert job.attempt == 1


@pytest_twisted.ensureDeferred
async def test_a_model_that_goes_after_the_last_look_makes_its_job_wait(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for(max_attempts=1))
    harness.target.tags = {"models": []}
    (await harness.target_call()).begin(404, JSON).say(b'{"error":"model \'llama3\' not found"}').end()
    job = await harness.becomes(id_, "scheduled")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("model_missing", 0)
    await harness.inference.target.inventory.refresh()
    await harness.wait(30)
    assert (len(harness.target.calls), (await harness.job(id_)).state) == (1, "queued")
    del harness.target.tags["models"][:]
    harness.target.tags["models"].append({"name": "llama3:latest"})
    await harness.inference.target.inventory.refresh()
    await harness.wait(RECHECK)
    (await harness.target_call(2)).begin().say(LAST).end()
    assert (await harness.becomes(id_, "succeeded")).attempt == 1


# the target away


@pytest_twisted.ensureDeferred
async def test_jobs_that_come_while_the_target_is_away_all_run_at_their_first_try(harness: WorkerHarness) -> None:
    harness.set_target_away()
    await harness.inference.target.inventory.refresh()
    harness.start()
    ids = await harness.hand_over(*[job_for() for _ in range(20)])
    await harness.wait(60)
    jobs = [await harness.job(id_) for id_ in ids]
    assert {(job.state, job.fence, job.error) for job in jobs} == {("queued", 0, None)}
    harness.set_target_away(away=False)
    await harness.wait(RECHECK + 1)
    for number in range(1, 21):
        (await harness.target_call(number)).begin().say(LAST).end()
    for id_ in ids:
        assert (await harness.becomes(id_, "succeeded")).attempt == 1


@pytest_twisted.ensureDeferred
async def test_a_target_that_goes_away_burns_no_attempt_and_stops_the_claims(harness: WorkerHarness) -> None:
    harness.start()
    harness.set_target_away()
    first, second = await harness.hand_over(job_for(max_attempts=1), job_for())
    await harness.until(lambda: harness.inference.target.inventory.degraded)
    job = await harness.becomes(first, "queued")
    assert (job.attempt, job.fence) == (0, 1)
    assert job.error is not None
    assert (job.error.error_class, job.error.message) == ("unreachable", "nobody there")
    await harness.wait(120, step=2)
    assert ((await harness.job(first)).fence, (await harness.job(second)).fence) == (1, 0)
    assert harness.inference.target.gate.waiting_jobs == []
    harness.set_target_away(away=False)
    await harness.inference.target.inventory.refresh()
    (await harness.target_call()).begin().say(LAST).end()
    job = await harness.becomes(first, "succeeded")
    assert (job.attempt, job.error) == (1, None)


@pytest_twisted.ensureDeferred
async def test_a_target_that_goes_away_while_a_job_waits_for_its_turn_gets_no_job(harness: WorkerHarness) -> None:
    person = harness.work.ask()
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    harness.set_target_away()
    await harness.inference.target.inventory.refresh()
    person.leave()
    await harness.until(lambda: not harness.inference.target.gate.waiting_jobs)
    await harness.turn()
    assert (await harness.job(id_)).fence == 0
    assert harness.inference.target.gate.running == []


@pytest_twisted.ensureDeferred
async def test_a_target_that_lists_its_models_and_takes_no_job_is_not_stormed(harness: WorkerHarness) -> None:
    harness.target.failures = [errors.ConnectionError("refused", "nobody there")] * 1000
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    await harness.wait(10 * UNREACHED_PAUSE, step=UNREACHED_PAUSE / 2)
    assert 1 <= (await harness.job(id_)).fence <= 11


@pytest_twisted.ensureDeferred
async def test_three_breaks_before_the_answer_are_forgiven_and_the_fourth_counts(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    attempts = []
    for number in range(1, 5):
        (await harness.target_call(number)).response.errback(errors.ConnectionError("reset", "gone"))
        job = await harness.becomes(id_, "scheduled")
        assert job.error is not None
        assert job.error.error_class == "unreachable"
        attempts.append(job.attempt)
        await harness.wait((job.run_at - harness.store.now()) / 1000 + 0.1, step=30)
    assert attempts == [0, 0, 0, 1]
    (await harness.target_call(5)).begin().say(LAST).end()
    assert (await harness.becomes(id_, "succeeded")).attempt == 2


# the target fails


@pytest.mark.parametrize(
    ("status", "headers", "body", "error_class", "state", "attempt", "pause"),
    [
        (500, JSON, b'{"error":"model runner has unexpectedly stopped"}', "target_error", "scheduled", 1, 5),
        (503, JSON, b'{"error":"server busy"}', "busy", "scheduled", 0, 5),
        (503, [*JSON, (b"Retry-After", b"42")], b"", "busy", "scheduled", 0, 42),
        (429, [*JSON, (b"retry-after", b"999999")], b"", "busy", "scheduled", 0, 3600),
        (429, [*JSON, (b"Retry-After", b"Fri, 31 Dec 1999 23:59:59 GMT")], b"", "busy", "scheduled", 0, 5),
        (401, JSON, b'{"error":"unauthorized"}', "unauthorized", "scheduled", 0, 5),
        (403, JSON, b"", "unauthorized", "scheduled", 0, 5),
        (404, JSON, b'{"error":"model \'llama3\' not found"}', "model_missing", "scheduled", 0, 5),
        (400, JSON, b'{"error":"bad option"}', "refused", "failed", 1, None),
        (413, JSON, b"", "refused", "failed", 1, None),
        (200, None, LINE + b'{"error":"out of memory"}\n', "target_error", "scheduled", 1, 5),
        (200, None, LINE, "truncated", "scheduled", 1, 5),
        (200, JSON, b"{", "truncated", "scheduled", 1, 5),
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_failure_has_its_class_and_what_follows(
    harness: WorkerHarness,
    status: int,
    headers: Any,
    body: bytes,
    error_class: str,
    state: str,
    attempt: int,
    pause: int | None,
) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    (await harness.target_call()).begin(status, headers).say(body).end()
    job = await harness.becomes(id_, state)
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == (error_class, attempt)
    if pause is not None:
        assert job.run_at == harness.store.now() + 1000 * pause
    assert harness.inference.target.gate.running == []
    kept = [info.name for info in job.artifacts]
    assert kept == ([ERROR, PARTIAL] if status == 200 else [ERROR])


@pytest_twisted.ensureDeferred
async def test_a_stream_that_breaks_off_or_falls_silent_leaves_its_lines_until_one_succeeds(
    harness: WorkerHarness,
) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    (await harness.target_call()).begin().say(LINE, LINE[:9]).end(errors.ConnectionError("reset", "x"))
    job = await harness.becomes(id_, "scheduled")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("truncated", 1)
    assert await harness.artifact(id_, PARTIAL) == LINE
    await harness.wait(6)
    call = (await harness.target_call(2)).begin().say(LINE, LINE)
    await harness.wait(601, step=100)
    job = await harness.becomes(id_, "scheduled")
    assert call.aborted
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("silent", 2)
    assert await harness.artifact(id_, PARTIAL) == LINE + LINE
    await harness.wait(16)
    (await harness.target_call(3)).begin().say(LINE, LAST).end()
    job = await harness.becomes(id_, "succeeded")
    assert [info.name for info in job.artifacts] == [RESPONSE, STREAM]
    assert job.error is None


@pytest_twisted.ensureDeferred
async def test_a_job_out_of_attempts_is_discarded_after_growing_pauses(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    pauses = []
    for number in range(1, 6):
        (await harness.target_call(number)).begin(500, JSON).say(b'{"error":"crashed"}').end()
        job = await harness.becomes(id_, "scheduled" if number < 5 else "discarded")
        if number < 5:
            pauses.append((job.run_at - harness.store.now()) / 1000)
            await harness.wait(pauses[-1], step=30)
    assert pauses == [5, 15, 45, 135]
    assert job.error is not None
    assert (job.attempt, job.error.error_class, job.error.message) == (5, "target_error", "500: crashed")
    assert await harness.artifact(id_, ERROR) == b'{"error":"crashed"}'


@pytest.mark.parametrize("harness", [{"max_artifact": 1000}], indirect=True)
@pytest_twisted.ensureDeferred
async def test_an_answer_larger_than_an_artifact_may_be_fails_the_job_and_stops_the_target(
    harness: WorkerHarness,
) -> None:
    harness.start()
    just, too_large, at_once = await harness.hand_over(*[job_for() for _ in range(3)])
    filler = LINE.replace(b"word", b"x" * (1000 - len(LAST) - len(LINE) + 4))
    (await harness.target_call()).begin().say(filler, LAST).end()
    await harness.becomes(just, "succeeded")
    call = (await harness.target_call(2)).begin().say(filler, LAST[:-1] + b" \n")
    await harness.until(lambda: call.aborted)
    job = await harness.becomes(too_large, "failed")
    assert job.error is not None
    assert (job.error.error_class, "FOREMAN_MAX_ARTIFACT" in job.error.message) == ("too_large", True)
    assert await harness.artifact(too_large, PARTIAL) == filler
    (await harness.target_call(3)).begin().say(filler, LINE, LAST).end()
    job = await harness.becomes(at_once, "failed")
    assert job.error is not None
    assert job.error.error_class == "too_large"


@pytest.mark.parametrize("harness", [{"silence": 3600.0}], indirect=True)
@pytest_twisted.ensureDeferred
async def test_a_job_whose_answer_never_begins_gives_the_turn_back(harness: WorkerHarness) -> None:
    harness.start()
    silent, after_it = await harness.hand_over(job_for(), job_for())
    call = await harness.target_call()
    await harness.wait(3599, step=600)
    assert not call.left
    await harness.wait(1)
    assert call.left
    job = await harness.becomes(silent, "scheduled")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("silent", 1)
    # What has begun is not broken off by it, however long it takes.
    begun = (await harness.target_call(2)).begin().say(LINE)
    for _ in range(8):
        await harness.wait(500, step=500)
        begun.say(LINE)
    begun.say(LAST).end()
    await harness.becomes(after_it, "succeeded")
    harness.worker.close()


@pytest.mark.parametrize("payload", [b"{", b'"x"', b"\x00"])
@pytest_twisted.ensureDeferred
async def test_a_payload_that_cannot_be_read_fails_and_holds_up_nobody(harness: WorkerHarness, payload: bytes) -> None:
    harness.start()
    odd, packed, next_one = await harness.hand_over(
        job_for(payload=payload, stream=False),
        job_for(payload=payload, stream=False, content_encoding="zstd"),
        job_for(),
    )
    for id_ in (odd, packed):
        job = await harness.becomes(id_, "failed")
        assert job.error is not None
        assert job.error.error_class == "refused"
        assert job.error.message.startswith("its payload cannot be read")
    (await harness.target_call()).begin().say(LAST).end()
    await harness.becomes(next_one, "succeeded")


@pytest_twisted.ensureDeferred
async def test_a_mistake_of_foremans_own_leaves_no_job_running_for_ever(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    harness.start()
    monkeypatch.setattr("foreman.worker.attempt.classify", lambda _: 1 / 0)
    judged, asked_for = await harness.hand_over(job_for(max_attempts=1), job_for(max_attempts=1))
    (await harness.target_call()).begin().say(LAST).end()
    job = await harness.becomes(judged, "discarded")
    assert job.error is not None
    assert job.error.error_class == "target_error"
    await harness.target_call(2)
    harness.target.calls[1].response.errback(RuntimeError("a mistake"))
    job = await harness.becomes(asked_for, "discarded")
    assert job.error is not None
    assert "a mistake" in job.error.message
    assert harness.inference.target.gate.running == []
    assert len(logged_failures.take(ZeroDivisionError, RuntimeError)) == 2


@pytest_twisted.ensureDeferred
async def test_a_mistake_while_an_answer_is_looked_into_leaves_no_job_running(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    async def broken(_self: AnswerCheck, _attempt: Attempt) -> None:
        raise ZeroDivisionError("a mistake")

    harness.start()
    monkeypatch.setattr(AnswerCheck, "check", broken)
    (id_,) = await harness.hand_over(job_for(max_attempts=1))
    (await harness.target_call()).begin().say(LAST).end()
    job = await harness.becomes(id_, "discarded")
    assert job.error is not None
    assert "a mistake" in job.error.message
    assert len(logged_failures.take(ZeroDivisionError)) == 1


# ending it


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest_twisted.ensureDeferred
async def test_a_job_past_its_deadline_is_broken_off(harness: WorkerHarness, phase: str) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for(deadline=harness.store.now() + 60_000))
    call = await harness.target_call()
    if phase == "in the stream":
        call.begin().say(LINE)
    await harness.wait(59)
    assert not call.is_over
    await harness.wait(1)
    assert call.left or call.aborted
    job = await harness.becomes(id_, "discarded")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("expired", 1)
    assert harness.inference.target.gate.running == []


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest.mark.parametrize("by", ["its route", "the queue"])
@pytest_twisted.ensureDeferred
async def test_a_running_job_that_is_cancelled_is_broken_off(harness: WorkerHarness, phase: str, by: str) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    call = await harness.target_call()
    if phase == "in the stream":
        call.begin().say(LINE)
    if by == "its route":
        assert (await harness.store.cancel(id_)).state == "running"
        harness.worker.cancel(id_)
    else:
        assert not harness.inference.cancel(id_, lambda caller: caller != "alice")
        assert harness.inference.cancel(id_, lambda caller: caller == "alice")
    assert call.left or call.aborted
    job = await harness.becomes(id_, "cancelled")
    assert (job.error, job.attempt) == (None, 0)
    assert await harness.events(id_) == ["queued", "running", "cancelled"]
    harness.worker.cancel(id_)


@pytest_twisted.ensureDeferred
async def test_a_cancel_that_only_the_store_was_told_of_breaks_it_off_too(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    call = (await harness.target_call()).begin().say(LINE)
    harness.store.notifications.announce(frozenset({id_}))
    await harness.turn()
    assert not call.aborted
    await harness.store.cancel(id_)
    await harness.becomes(id_, "cancelled")
    assert call.aborted


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_when_its_answer_is_whole_has_it(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    (await harness.target_call()).begin().say(LAST).end()
    harness.worker.cancel(id_)
    await harness.becomes(id_, "succeeded")
    assert (await harness.becomes(id_, "succeeded")).attempt == 1


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_while_it_fails_is_cancelled(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    call = (await harness.target_call()).begin(500, JSON).say(b'{"error":"crashed"}')
    cancelling = Deferred.fromCoroutine(harness.store.cancel(id_))
    call.end()
    await cancelling
    await harness.becomes(id_, "cancelled")


# stopping


@pytest_twisted.ensureDeferred
async def test_what_runs_when_foreman_stops_may_finish_and_nothing_new_begins(harness: WorkerHarness) -> None:
    harness.start()
    first, second = await harness.hand_over(job_for(), job_for())
    call = await harness.target_call()
    harness.worker.close()
    harness.inference.close()
    call.begin().say(LAST).end()
    await harness.becomes(first, "succeeded")
    await harness.turn()
    assert harness.worker.when_idle().called
    assert ((await harness.job(second)).state, len(harness.target.calls)) == ("queued", 1)


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest_twisted.ensureDeferred
async def test_what_does_not_finish_in_time_is_queued_again_and_nothing_counts(
    harness: WorkerHarness, phase: str
) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for(max_attempts=1))
    call = await harness.target_call()
    if phase == "in the stream":
        call.begin().say(LINE)
    harness.worker.close()
    harness.inference.close()
    harness.inference.stop()
    assert call.left or call.aborted
    job = await harness.becomes(id_, "queued")
    assert (job.attempt, job.error) == (0, None)
    assert await harness.events(id_) == ["queued", "running", "released"]


@pytest_twisted.ensureDeferred
async def test_stopping_while_a_job_waits_for_its_turn_leaves_it_queued(harness: WorkerHarness) -> None:
    person = harness.work.ask()
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    await harness.until(lambda: harness.inference.target.gate.waiting_jobs)
    harness.worker.close()
    harness.inference.close()
    await harness.until(lambda: harness.worker.when_idle().called)
    harness.target.calls[0].begin().say(LAST).end()
    assert person.results == [None]
    assert ((await harness.job(id_)).fence, len(harness.target.calls)) == (0, 1)


@pytest_twisted.ensureDeferred
async def test_stopping_while_a_job_is_being_taken_gives_it_back(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = SQLiteJobStore.claim

    async def claimed_late(store: SQLiteJobStore, *arguments: Any) -> Any:
        found = await claim(store, *arguments)
        harness.worker.close()
        harness.inference.close()
        return found

    monkeypatch.setattr(SQLiteJobStore, "claim", claimed_late)
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    await harness.until(lambda: harness.worker.when_idle().called)
    job = await harness.job(id_)
    assert (job.state, job.attempt, job.fence) == ("queued", 0, 1)
    assert harness.target.calls == []
    assert harness.inference.target.gate.running == []


@pytest_twisted.ensureDeferred
async def test_stopping_while_the_target_is_asked_whether_it_is_back_ends_the_worker(harness: WorkerHarness) -> None:
    harness.set_target_away()
    await harness.inference.target.inventory.refresh()
    harness.target.slow = True
    await harness.hand_over(job_for())
    harness.start()
    await harness.until(lambda: harness.target.waiting)
    harness.worker.close()
    await harness.inference.target.inventory.stop()
    await harness.until(lambda: harness.worker.when_idle().called)


# the store fails


class Trouble:
    """A store whose writes fail from now on, until ``over``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, condition: Any = "full") -> None:
        self.tried = 0
        self.over = False
        write = Database.write

        def failing(database: Database, step: Any) -> Any:
            if self.over:
                return write(database, step)
            self.tried += 1
            failed: Deferred[Any] = Deferred()
            failed.errback(unavailable(condition, "a test"))
            return failed

        monkeypatch.setattr(Database, "write", failing)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_cannot_be_written_is_written_later(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start()
    first, second = await harness.hand_over(job_for(), job_for())
    call = await harness.target_call()
    trouble = Trouble(monkeypatch)
    call.begin().say(LINE, LAST).end()
    await harness.wait(4 * STORE_PAUSE)
    assert 3 <= trouble.tried <= 10
    assert (await harness.job(first)).state == "running"
    assert len(harness.target.calls) == 1
    assert harness.inference.target.gate.running == []
    trouble.over = True
    await harness.wait(STORE_PAUSE)
    await harness.becomes(first, "succeeded")
    assert await harness.artifact(first, RESPONSE) == WHOLE
    (await harness.target_call(2)).begin().say(LAST).end()
    await harness.becomes(second, "succeeded")


@pytest_twisted.ensureDeferred
async def test_foreman_stops_although_an_answer_cannot_be_written(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start()
    await harness.hand_over(job_for())
    call = await harness.target_call()
    trouble = Trouble(monkeypatch)
    call.begin().say(LAST).end()
    await harness.until(lambda: trouble.tried)
    await harness.turn()
    harness.worker.close()
    harness.inference.close()
    await harness.until(lambda: harness.worker.when_idle().called)
    assert trouble.tried == 2
    trouble.over = True


@pytest.mark.parametrize("condition", ["broken", "unwritable"])
@pytest_twisted.ensureDeferred
async def test_a_store_that_has_failed_is_left_alone_for_a_while(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    await harness.hand_over(job_for())
    trouble = Trouble(monkeypatch, condition)
    harness.worker.start()
    await harness.until(lambda: trouble.tried)
    await harness.wait(10 * STORE_PAUSE)
    assert 5 <= trouble.tried <= 12
    assert harness.inference.target.gate.running == []
    trouble.over = True


@pytest_twisted.ensureDeferred
async def test_an_answer_is_dropped_when_the_store_breaks_and_when_the_job_was_taken_away(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start()
    taken, broken, last = await harness.hand_over(job_for(), job_for(), job_for())
    call = await harness.target_call()
    await harness.database.write(
        lambda tx: tx.cursor.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (taken,)) and None
    )
    call.begin().say(LAST).end()
    call = await harness.target_call(2)
    assert await harness.artifact(taken, RESPONSE) is None
    trouble = Trouble(monkeypatch, "broken")
    call.begin().say(LAST).end()
    await harness.until(lambda: trouble.tried)
    await harness.turn()
    trouble.over = True
    await harness.wait(STORE_PAUSE)
    (await harness.target_call(3)).begin().say(LAST).end()
    await harness.becomes(last, "succeeded")
    assert (await harness.job(broken)).state == "running"


@pytest_twisted.ensureDeferred
async def test_whoever_cancels_a_job_that_was_taken_away_does_no_harm(harness: WorkerHarness) -> None:
    harness.start()
    taken, next_one = await harness.hand_over(job_for(), job_for())
    await harness.target_call()

    def take_away(tx: Any) -> None:
        tx.cursor.execute(
            "UPDATE jobs SET state = 'failed', boot = NULL, finished_at = ? WHERE id = ?", (tx.now, taken)
        )

    await harness.database.write(take_away)
    assert harness.inference.cancel(taken, lambda _: True)
    (await harness.target_call(2)).begin().say(LAST).end()
    await harness.becomes(next_one, "succeeded")


@pytest_twisted.ensureDeferred
async def test_lines_are_kept_while_they_come_and_are_gone_when_it_has_ended(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    call = (await harness.target_call()).begin().say(LINE, LINE)
    output = harness.worker.output_of(id_)
    assert output is not None
    assert (output.lines, output.ended, output.attempt) == ([LINE, LINE], False, 1)
    await harness.wait(2)
    assert await stored_lines(harness.store, id_) == [LINE + LINE]
    await harness.wait(4)
    call.say(LINE)
    with monkeypatch.context() as patch:
        Trouble(patch)
        await harness.wait(2)
        call.say(LINE)
        await harness.wait(2)
    await harness.wait(2)
    assert b"".join(await stored_lines(harness.store, id_)) == LINE * 4
    call.say(LAST).end()
    await harness.becomes(id_, "succeeded")
    assert await stored_lines(harness.store, id_) == []
    await harness.until(lambda: output.ended)
    assert harness.worker.output_of(id_) is None


@pytest_twisted.ensureDeferred
async def test_a_running_job_that_was_taken_away_is_broken_off_at_the_next_keeping(harness: WorkerHarness) -> None:
    harness.start()
    (id_,) = await harness.hand_over(job_for())
    call = (await harness.target_call()).begin().say(LINE)
    await harness.database.write(
        lambda tx: tx.cursor.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (id_,)) and None
    )
    await harness.wait(2)
    assert call.aborted
    assert harness.inference.target.gate.running == []


# looking


@pytest_twisted.ensureDeferred
async def test_an_idle_worker_looks_only_when_it_is_told(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    first = SQLiteJobStore.peek

    async def counted(store: SQLiteJobStore, *arguments: Any) -> Any:
        looks.append(arguments)
        return await first(store, *arguments)

    monkeypatch.setattr(SQLiteJobStore, "peek", counted)
    harness.worker.start()
    await harness.wait(600, step=60)
    assert len(looks) == 2
    await harness.hand_over(job_for(model="gone"))
    await harness.wait(60)
    assert len(looks) <= 2 + 2 + 60 / RECHECK + 1


@pytest_twisted.ensureDeferred
async def test_a_head_that_cannot_be_claimed_is_no_reason_to_spin(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = []

    async def none(*_: Any) -> None:
        claims.append(1)

    await harness.hand_over(job_for())
    monkeypatch.setattr(SQLiteJobStore, "claim", none)
    harness.worker.start()
    await harness.turn()
    await harness.wait(10)
    assert len(claims) <= 12
    monkeypatch.undo()


@pytest_twisted.ensureDeferred
async def test_looking_that_fails_is_tried_again(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    await harness.hand_over(job_for())
    with monkeypatch.context() as patch:
        patch.setattr("foreman.worker.worker.Worker._bonuses", lambda *_: lambda _model: 1 / 0)
        harness.worker.start()
        await harness.turn()
        assert harness.inference.target.gate.running == []
    assert logged_failures.take(ZeroDivisionError)
    await harness.wait(STORE_PAUSE)
    await harness.target_call()


@pytest_twisted.ensureDeferred
async def test_a_job_queued_while_the_worker_looks_is_not_overlooked(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest = SQLiteJobStore.oldest_run_at

    async def late(store: SQLiteJobStore, *arguments: Any) -> Any:
        found = await oldest(store, *arguments)
        if arguments == ("gate",) and found is None and not harness.target.calls:
            await harness.hand_over(job_for())
        return found

    monkeypatch.setattr(SQLiteJobStore, "oldest_run_at", late)
    harness.worker.start()
    await harness.target_call()


# all of it at once


class Storm:
    """Everything that may happen, in any order.

    :ivar ids: of the jobs that were handed over; :ivar people: who asked beside them.
    """

    ANSWERS = ((200, None, LAST), (200, None, LINE), (500, JSON, b"{}"), (503, JSON, b"{}"), (400, JSON, b"{}"))
    KINDS = "hand-over hand-over ask leave answer answer cancel break away wait turn turn".split()

    def __init__(self, harness: WorkerHarness, seed: int) -> None:
        self.harness, self.random = harness, Random(seed)
        self.ids: list[str] = []
        self.people: list[Any] = []

    @property
    def open_calls(self) -> list[TargetCall]:
        return [call for call in self.harness.target.calls if not call.is_over and not call.response.called]

    def answer(self, call: TargetCall, status: int, headers: Any, body: bytes) -> None:
        call.begin(status, headers)
        if call.reader is not None:  # else the load was all that was wanted
            call.say(body).end()

    async def blow(self, steps: int) -> None:
        for _ in range(steps):
            await self.act(self.random.choice(self.KINDS))
            assert len(self.harness.inference.target.gate.running) <= 1
            assert len(self.harness.inference.target.gate.waiting_jobs) <= 1

    async def act(self, what: str) -> None:
        harness, random = self.harness, self.random
        if what == "hand-over":
            model = random.choice(["llama3", "big:7b", "far", "gone"])
            lane, endpoint = random.choice([("gate", "/api/chat"), ("embedding", "/api/embed")])
            deadline = random.choice([None, None, None, harness.store.now() + 40_000])
            job = job_for(endpoint, model, lane=lane, deadline=deadline, priority=random.randrange(10))
            self.ids.extend(await harness.hand_over(job))
        elif what == "ask":
            self.people.append(harness.work.ask(model=random.choice(["llama3", "big:7b"])))
        elif what == "leave" and self.people:
            person = random.choice(self.people)
            if not person.results:
                person.leave()
        elif what == "answer" and self.open_calls:
            self.answer(random.choice(self.open_calls), *random.choice(self.ANSWERS))
        elif what == "cancel" and self.ids:
            id_ = random.choice(self.ids)
            with suppress(WrongState):
                await harness.store.cancel(id_)
                harness.worker.cancel(id_)
        elif what == "break" and self.open_calls:
            random.choice(self.open_calls).response.errback(errors.ConnectionError("reset", "gone"))
        elif what == "away":
            harness.set_target_away(away=not harness.target.failures)
            await harness.inference.target.inventory.refresh()
        elif what == "wait":
            harness.clock.advance(random.choice([0.0, 1.0, 30.0]))
        elif what == "turn":
            await deferLater(reactor, random.choice([0.0, 0.002, 0.01]))
            harness.clock.advance(0)


@pytest.mark.parametrize("seed", range(8))
@pytest_twisted.ensureDeferred
async def test_whatever_happens_in_whatever_order_every_job_ends_and_no_turn_is_lost(
    harness: WorkerHarness, seed: int
) -> None:
    harness.start()
    storm = Storm(harness, seed)
    await storm.blow(120)
    harness.set_target_away(away=False)
    harness.target.tags["models"].append({"name": "gone:latest"})
    await harness.inference.target.inventory.refresh()
    for _ in range(4000):
        for call in storm.open_calls:
            storm.answer(call, 200, None, LAST)
        jobs = [await harness.job(id_) for id_ in storm.ids]
        if all(job.ended for job in jobs) and all(person.results for person in storm.people):
            break
        harness.clock.advance(2.0)
        await deferLater(reactor, 0.002)
    assert [job.state for job in jobs if not job.ended] == []
    for job in jobs:
        kept = {info.name for info in job.artifacts}
        assert (RESPONSE in kept) is (job.state == "succeeded")


@pytest.mark.parametrize("seed", range(8))
@pytest_twisted.ensureDeferred
async def test_whenever_foreman_stops_no_job_is_left_as_running(
    harness: WorkerHarness, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start()
    storm = Storm(harness, seed)
    await storm.blow(40 + seed)
    monkeypatch.setattr(Storm, "KINDS", ["hand-over", "answer", "cancel", "wait", "turn"])
    harness.worker.close()
    harness.inference.close()
    asked = len(harness.target.calls)
    await storm.blow(seed)
    harness.inference.stop()
    await harness.until(lambda: harness.worker.when_idle().called)
    jobs = [await harness.job(id_) for id_ in storm.ids]
    assert "running" not in {job.state for job in jobs}
    assert all(job.attempt == 0 for job in jobs if job.state == "queued" and job.error is None)
    assert len(harness.target.calls) == asked
