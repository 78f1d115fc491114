"""Jobs from the store through the gate to the target and back: a real store, a pretended target, and a clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from ulid import ULID

from conftest import LoggedFailures
from foreman import errors
from foreman.jobs.artifacts import ERROR, PARTIAL, RESPONSE, STREAM
from foreman.jobs.job import Job, NewJob
from foreman.protocol.endpoints import Lane
from foreman.protocol.routes import Route, classify
from foreman.store.errors import WrongState, unavailable
from foreman.store.notifications import Notifications
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.statements.execution import OUTPUT
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.util.cooperator import cooperator
from foreman.worker.answer_check import AnswerCheck
from foreman.worker.attempt import Attempt, Bounds
from foreman.worker.due_jobs import DueJobs
from foreman.worker.worker import RECHECK, STORE_PAUSE, UNREACHED_PAUSE, Worker
from support.live_foreman import bytes_of
from test_inference import Call, Work

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
JSON = [(b"Content-Type", b"application/json")]
VECTOR = b'{"embeddings":[[1]]}'
HELLO = [{"role": "user", "content": "hi"}]


async def kept(store: SQLiteJobStore, id_: str) -> list[bytes]:
    """The lines that the store has of the first try of a job."""
    rows: list[tuple[bytes]] = await store.database.read(lambda cursor: cursor.execute(OUTPUT, (id_, 1)).fetchall())
    return [data for (data,) in rows]


def new(endpoint: str = "/api/chat", model: str = "llama3", *, lane: Any = None, **more: Any) -> NewJob:
    """A job as it is handed over."""
    found = classify(b"POST", endpoint.encode())
    assert isinstance(found, Route)
    payload = more.pop("payload", json.dumps({"model": model, "messages": HELLO, "input": "x"}).encode())
    return NewJob(
        endpoint=endpoint,
        lane=lane or ("embedding" if found.lane is Lane.EMBEDDING else "gate"),
        family=found.family,
        model=model,
        owner="alice",
        payload=payload,
        stream=more.pop("stream", endpoint in {"/api/chat", "/api/generate"}),
        fingerprint="f",
        **more,
    )


class Shop:
    """A worker and all that is around it.

    :ivar set_by: how far the wall clock was set, in seconds; :ivar broken_writes: what the next writes fail with.
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self.work = Work(settings.pop("turns", 1))
        self.clock, self.target, self.inference = self.work.clock, self.work.target, self.work.inference
        self.clock.advance(1000)
        self.set_by = 0.0
        self.database = Database(reactor, path, str(ULID()), self.wall, Notifications())
        self.database.open()
        self.database.start()
        self.store = SQLiteJobStore(self.database, ULID, 1000)
        self.due_jobs = DueJobs(self.clock, self.store)
        patience, most = settings.pop("patience", 1800.0), settings.pop("max_artifact", 1_000_000)
        bounds = Bounds(most, settings.pop("silence", 86_400.0))
        self.worker = Worker(
            self.clock,
            self.store,
            self.inference.target,
            self.inference,
            cooperator(self.clock),
            lambda: 0.0,
            patience,
            bounds,
        )
        self.inference.target.inventory.on_recovery = self.worker.nudge
        assert not settings

    def wall(self) -> float:
        return 1_800_000_000 + self.set_by + self.clock.seconds()

    def start(self) -> None:
        self.due_jobs.start()
        self.worker.start()

    async def hand_over(self, *jobs: NewJob) -> list[str]:
        return [one.id for one in await self.store.enqueue(jobs)]

    async def job(self, id_: str) -> Job:
        found = await self.store.get(id_)
        assert found is not None
        return found

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Let threads and clock turn, without time passing, until ``condition`` is true."""
        for _ in range(5000):
            if condition():
                return
            self.clock.advance(0)
            await deferLater(reactor, 0.003)
        raise AssertionError(f"it never came to be: {what or condition}")

    async def turn(self) -> None:
        """Let happen what needs no time of the clock."""
        for _ in range(12):
            self.clock.advance(0)
            await deferLater(reactor, 0.004)

    async def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await deferLater(reactor, 0.004)
        await self.turn()

    async def asked(self, count: int = 1) -> Call:
        """The last of so many requests to the target, once there are as many."""
        await self.until(lambda: len(self.target.calls) >= count, f"{count} requests")
        assert len(self.target.calls) == count
        return self.target.calls[-1]

    async def becomes(self, id_: str, state: str) -> Job:
        """The job, once it is in ``state``."""
        for _ in range(3000):
            job = await self.job(id_)
            if job.state == state:
                return job
            self.clock.advance(0)
            await deferLater(reactor, 0.003)
        raise AssertionError(f"it is {job.state}, {job.error}, and not {state}")

    async def artifact(self, id_: str, name: str) -> bytes | None:
        return await bytes_of(self.store, id_, name)

    async def events(self, id_: str) -> list[str]:
        return [event.type for event in await self.store.events(id_, 0)]

    def is_away(self, *, away: bool = True) -> None:
        """The target can be reached no more, or again."""
        problem = errors.ConnectionError("refused", "nobody there")
        self.target.problem = problem if away else None
        self.target.failures = [problem] * 1000 if away else []

    async def end(self) -> None:
        """Stop all as the service does."""
        self.worker.close()
        self.inference.close()
        await self.inference.target.inventory.stop()
        self.inference.stop()
        idle = self.worker.when_idle()
        await self.until(lambda: idle.called, "the worker is idle")
        await self.due_jobs.stop()
        await self.database.stop()
        self.clock.advance(0)
        assert self.clock.getDelayedCalls() == []
        assert (self.inference.target.gate.running, self.inference.target.gate.waiting_jobs) == ([], [])
        assert self.inference.when_idle().called


@pytest_twisted.async_yield_fixture
async def shop(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    made = Shop(tmp_path / "jobs.db", **getattr(request, "param", {}))
    yield made
    await made.end()


# one job


@pytest_twisted.ensureDeferred
async def test_a_job_gets_its_turn_and_its_answer_is_kept(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new(content_type="application/json", headers=(("OpenAI-Beta", "x"),)))
    call = await shop.asked()
    assert (call.head, json.loads(call.body)) == (
        b"POST /api/chat",
        {"model": "llama3", "messages": HELLO, "input": "x"},
    )
    job = await shop.job(id_)
    assert (job.state, job.attempt, job.fence) == ("running", 1, 1)
    (turn,) = shop.inference.target.gate.running
    assert (turn.ticket.id, turn.ticket.caller, turn.ticket.is_job) == (id_, "alice", True)
    call.begin().say(LINE, LAST).end()
    job = await shop.becomes(id_, "succeeded")
    assert shop.inference.target.gate.running == []
    assert [info.name for info in job.artifacts] == [RESPONSE, STREAM]
    assert (await shop.artifact(id_, RESPONSE), await shop.artifact(id_, STREAM)) == (WHOLE, LINE + LAST)
    usage = job.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.load_ms, usage.total_ms) == (3, 2, 1000, 2000)
    assert (job.attempt, job.error) == (1, None)
    assert await shop.events(id_) == ["queued", "running", "succeeded"]


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
    shop: Shop, endpoint: str, stream: bool, goes: bool | None, comes: bytes | None
) -> None:
    shop.start()
    payload = b'{"model":"llama3", "stream":%b ,"x":[1,{"stream":0}]}' % (b"true" if stream else b"false")
    (id_,) = await shop.hand_over(new(endpoint, payload=payload, stream=stream))
    call = await shop.asked()
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
    await shop.becomes(id_, "succeeded")
    assert await shop.artifact(id_, RESPONSE) == (comes or LAST.rstrip())


@pytest_twisted.ensureDeferred
async def test_a_transcription_is_kept_as_it_came(shop: Shop) -> None:
    shop.start()
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nllama3\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"
    (id_,) = await shop.hand_over(new("/v1/audio/transcriptions", payload=form, content_type=kind))
    call = await shop.asked()
    assert call.body == form
    call.begin().say(b"spoken words\n").end()
    job = await shop.becomes(id_, "succeeded")
    assert [info.name for info in job.artifacts] == [RESPONSE]
    assert await shop.artifact(id_, RESPONSE) == b"spoken words\n"


@pytest_twisted.ensureDeferred
async def test_jobs_run_one_after_another_in_the_order_of_the_queue(shop: Shop) -> None:
    ids = await shop.hand_over(new(priority=5), new(priority=9), new(priority=0), new(priority=5))
    shop.start()
    order = []
    for number in range(1, 5):
        call = await shop.asked(number)
        order.append(ids.index(shop.inference.target.gate.running[0].ticket.id))
        call.begin().say(LAST).end()
    assert order == [2, 0, 3, 1]
    for id_ in ids:
        await shop.becomes(id_, "succeeded")


@pytest_twisted.ensureDeferred
async def test_embeddings_run_beside_a_chat_one_at_a_time(shop: Shop) -> None:
    shop.start()
    chat, one, other = await shop.hand_over(new(), new("/api/embed"), new("/v1/embeddings"))
    await shop.asked(2)
    running, embedding = sorted(shop.target.calls, key=lambda call: call.head)
    assert (running.head, embedding.head) == (b"POST /api/chat", b"POST /api/embed")
    assert len(shop.inference.target.embeddings.running) == 1
    embedding.begin(headers=JSON).say(VECTOR).end()
    await shop.becomes(one, "succeeded")
    (await shop.asked(3)).begin(headers=JSON).say(VECTOR).end()
    await shop.becomes(other, "succeeded")
    running.begin().say(LAST).end()
    await shop.becomes(chat, "succeeded")


@pytest_twisted.ensureDeferred
async def test_a_model_in_the_cloud_takes_no_turn(shop: Shop) -> None:
    shop.start()
    far, far_too, chat = await shop.hand_over(
        new(model="far", lane="embedding"), new(model="x:cloud", lane="embedding"), new()
    )
    await shop.asked(2)
    assert [turn.ticket.id for turn in shop.inference.target.gate.running] == [chat]
    assert shop.inference.target.embeddings.running == []
    for call in list(shop.target.calls):
        call.begin().say(LAST).end()
    (await shop.asked(3)).begin().say(LAST).end()
    for id_ in (far, far_too, chat):
        await shop.becomes(id_, "succeeded")


@pytest_twisted.ensureDeferred
async def test_a_name_that_ollama_refuses_is_refused_by_it_and_holds_up_nobody(shop: Shop) -> None:
    shop.start()
    odd, next_one = await shop.hand_over(new("/api/embed", "in valid"), new("/api/embed"))
    (await shop.asked()).begin(400, JSON).say(b'{"error":"invalid model name"}').end()
    job = await shop.becomes(odd, "failed")
    assert job.error is not None
    assert (job.error.error_class, job.error.message) == ("refused", "400: invalid model name")
    (await shop.asked(2)).begin(headers=JSON).say(VECTOR).end()
    await shop.becomes(next_one, "succeeded")


# people


@pytest_twisted.ensureDeferred
async def test_with_fifty_jobs_in_the_store_a_person_is_next(shop: Shop) -> None:
    shop.start()
    await shop.hand_over(*[new() for _ in range(50)])
    call = await shop.asked()
    person = shop.work.ask()
    assert [ticket.is_job for ticket in shop.inference.target.gate.waiting] == [False]
    call.begin().say(LAST).end()
    await shop.until(lambda: not shop.inference.target.gate.waiting)
    call = await shop.asked(2)
    assert not shop.inference.target.gate.running[0].ticket.is_job
    await shop.turn()
    assert len(shop.inference.target.gate.waiting_jobs) == 1
    call.begin().say(LAST).end()
    assert person.results == [None]
    await shop.asked(3)
    assert shop.inference.target.gate.running[0].ticket.is_job


@pytest.mark.parametrize(("shop", "turns"), [({"patience": 60.0}, 4), ({"patience": 3600.0}, None)], indirect=["shop"])
@pytest_twisted.ensureDeferred
async def test_a_job_that_has_waited_for_the_patience_gets_every_fourth_turn(shop: Shop, turns: int | None) -> None:
    for _ in range(8):
        shop.work.ask()
    await shop.hand_over(new(), new())
    await shop.wait(61, step=61)
    shop.start()
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    order = []
    for number in range(1, 9):
        call = await shop.asked(number)
        order.append(shop.inference.target.gate.running[0].ticket.is_job)
        call.begin().say(LAST).end()
        await shop.turn()
    assert order == ([False, False, False, turns is not None] * 2)


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_in_the_room_leaves_it(shop: Shop) -> None:
    person = shop.work.ask()
    shop.start()
    first, second = await shop.hand_over(new(), new())
    await shop.until(lambda: [one.id for one in shop.inference.target.gate.waiting_jobs] == [first])
    await shop.store.cancel(first)
    await shop.until(lambda: [one.id for one in shop.inference.target.gate.waiting_jobs] == [second])
    await shop.store.cancel(second)
    await shop.turn()
    assert shop.inference.target.gate.waiting_jobs == []
    shop.target.calls[0].begin().say(LAST).end()
    assert person.results == [None]
    await shop.turn()
    assert len(shop.target.calls) == 1


@pytest_twisted.ensureDeferred
async def test_a_job_that_expires_in_the_room_leaves_it(shop: Shop) -> None:
    shop.work.ask()
    shop.start()
    (id_,) = await shop.hand_over(new(deadline=shop.store.now() + 10_000))
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    await shop.wait(11)
    job = await shop.becomes(id_, "discarded")
    assert job.error is not None
    assert job.error.error_class == "expired"
    assert shop.inference.target.gate.waiting_jobs == []
    assert len(shop.target.calls) == 1


@pytest_twisted.ensureDeferred
async def test_no_load_goes_on_for_a_job_that_was_cancelled(shop: Shop) -> None:
    shop.target.ps = {"models": []}
    await shop.inference.target.inventory.refresh()
    person = shop.work.ask()
    shop.start()
    (id_,) = await shop.hand_over(new())
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    person.leave()
    (turn,) = shop.inference.target.gate.running
    assert turn.kept
    assert not shop.target.calls[0].left
    await shop.store.cancel(id_)
    await shop.wait(2)
    assert shop.target.calls[0].left
    assert shop.inference.target.gate.running == []


@pytest_twisted.ensureDeferred
async def test_a_load_goes_on_for_the_next_job_when_the_first_is_cancelled(shop: Shop) -> None:
    shop.target.ps = {"models": []}
    await shop.inference.target.inventory.refresh()
    shop.start()
    first, second = await shop.hand_over(new(), new())
    await shop.asked()
    person = shop.work.ask()
    await shop.store.cancel(first)
    shop.worker.cancel(first)
    await shop.becomes(first, "cancelled")
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    assert [turn.kept for turn in shop.inference.target.gate.running] == [True]
    shop.target.calls[0].begin()
    call = await shop.asked(2)
    call.begin().say(LAST).end()
    assert person.results == [None]
    (await shop.asked(3)).begin().say(LAST).end()
    await shop.becomes(second, "succeeded")


@pytest_twisted.ensureDeferred
async def test_the_turn_shows_the_job_that_runs_and_not_the_one_that_waited(shop: Shop) -> None:
    shop.work.ask()
    shop.start()
    await shop.hand_over(new(model="big:7b"))
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    (urgent,) = await shop.hand_over(new(priority=0))
    await shop.turn()
    shop.target.calls[0].begin().say(LAST).end()
    await shop.asked(2)
    (turn,) = shop.inference.target.gate.running
    assert (turn.ticket.id, turn.ticket.model) == (urgent, "llama3")


# models


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_before_it_is_known_what_is_loaded(shop: Shop) -> None:
    inventory = shop.inference.target.inventory
    inventory.tags, inventory.running = None, []
    shop.target.slow = True
    await shop.hand_over(new(model="big:7b"))
    await shop.wait(10, step=10)
    await shop.hand_over(new())
    shop.start()
    await shop.until(lambda: shop.target.waiting)
    await shop.turn()
    assert shop.target.calls == []
    shop.target.answer()
    await shop.asked()
    assert shop.inference.target.gate.running[0].ticket.model == "llama3"


@pytest_twisted.ensureDeferred
async def test_jobs_of_the_loaded_model_go_first_within_a_bound_and_starve_nobody(shop: Shop) -> None:
    (other,) = await shop.hand_over(new(model="big:7b"))
    await shop.wait(20, step=20)
    soon = await shop.hand_over(*[new() for _ in range(2)])
    await shop.wait(20, step=20)
    await shop.hand_over(new())
    shop.start()
    order = []
    for number in range(1, 5):
        call = await shop.asked(number)
        order.append(shop.inference.target.gate.running[0].ticket.id)
        call.begin().say(LAST).end()
    assert order[:3] == [*soon, other]


@pytest.mark.parametrize("model", ["llama3", "llama3:latest"])
@pytest.mark.parametrize(("load", "bonus"), [(1.0, 30), (20.0, 120), (500.0, 300)])
@pytest_twisted.ensureDeferred
async def test_how_far_the_loaded_model_goes_before_is_what_loading_takes(
    shop: Shop, model: str, load: float, bonus: int
) -> None:
    shop.start()
    told = LAST.replace(b'"load_duration":1000000000', b'"load_duration":%d' % (load * 1e9))
    (id_,) = await shop.hand_over(new(model=model))
    (await shop.asked()).begin().say(told).end()
    await shop.becomes(id_, "succeeded")
    shop.work.ask()
    await shop.hand_over(new(model="big:7b"))
    await shop.wait(bonus - 1, step=bonus)
    within = await shop.hand_over(new(model=model))
    await shop.wait(2, step=2)
    await shop.hand_over(new(model=model))
    await shop.turn()
    shop.target.calls[1].begin().say(b'{"done":true}\n').end()
    (await shop.asked(3)).begin().say(LAST).end()
    await shop.becomes(within[0], "succeeded")
    await shop.asked(4)
    assert shop.inference.target.gate.running[0].ticket.model == "big:7b"


@pytest_twisted.ensureDeferred
async def test_a_job_whose_model_is_gone_waits_for_it_and_holds_up_nobody(shop: Shop) -> None:
    shop.start()
    gone, there = await shop.hand_over(new(model="gone"), new())
    call = await shop.asked()
    assert shop.inference.target.gate.running[0].ticket.id == there
    call.begin().say(LAST).end()
    await shop.wait(3 * RECHECK)
    assert ((await shop.job(gone)).state, len(shop.target.calls)) == ("queued", 1)
    shop.target.tags = {"models": [{"name": "gone:latest"}]}
    await shop.inference.target.inventory.refresh()
    await shop.wait(RECHECK)
    (await shop.asked(2)).begin().say(LAST).end()
    job = await shop.becomes(gone, "succeeded")
    assert job.attempt == 1


@pytest_twisted.ensureDeferred
async def test_a_model_that_goes_after_the_last_look_makes_its_job_wait(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new(max_attempts=1))
    shop.target.tags = {"models": []}
    (await shop.asked()).begin(404, JSON).say(b'{"error":"model \'llama3\' not found"}').end()
    job = await shop.becomes(id_, "scheduled")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("model_missing", 0)
    await shop.inference.target.inventory.refresh()
    await shop.wait(30)
    assert (len(shop.target.calls), (await shop.job(id_)).state) == (1, "queued")
    del shop.target.tags["models"][:]
    shop.target.tags["models"].append({"name": "llama3:latest"})
    await shop.inference.target.inventory.refresh()
    await shop.wait(RECHECK)
    (await shop.asked(2)).begin().say(LAST).end()
    assert (await shop.becomes(id_, "succeeded")).attempt == 1


# the target away


@pytest_twisted.ensureDeferred
async def test_jobs_that_come_while_the_target_is_away_all_run_at_their_first_try(shop: Shop) -> None:
    shop.is_away()
    await shop.inference.target.inventory.refresh()
    shop.start()
    ids = await shop.hand_over(*[new() for _ in range(20)])
    await shop.wait(60)
    jobs = [await shop.job(id_) for id_ in ids]
    assert {(job.state, job.fence, job.error) for job in jobs} == {("queued", 0, None)}
    shop.is_away(away=False)
    await shop.wait(RECHECK + 1)
    for number in range(1, 21):
        (await shop.asked(number)).begin().say(LAST).end()
    for id_ in ids:
        assert (await shop.becomes(id_, "succeeded")).attempt == 1


@pytest_twisted.ensureDeferred
async def test_a_target_that_goes_away_burns_no_attempt_and_stops_the_claims(shop: Shop) -> None:
    shop.start()
    shop.is_away()
    first, second = await shop.hand_over(new(max_attempts=1), new())
    await shop.until(lambda: shop.inference.target.inventory.degraded)
    job = await shop.becomes(first, "queued")
    assert (job.attempt, job.fence) == (0, 1)
    assert job.error is not None
    assert (job.error.error_class, job.error.message) == ("unreachable", "nobody there")
    await shop.wait(120, step=2)
    assert ((await shop.job(first)).fence, (await shop.job(second)).fence) == (1, 0)
    assert shop.inference.target.gate.waiting_jobs == []
    shop.is_away(away=False)
    await shop.inference.target.inventory.refresh()
    (await shop.asked()).begin().say(LAST).end()
    job = await shop.becomes(first, "succeeded")
    assert (job.attempt, job.error) == (1, None)


@pytest_twisted.ensureDeferred
async def test_a_target_that_goes_away_while_a_job_waits_for_its_turn_gets_no_job(shop: Shop) -> None:
    person = shop.work.ask()
    shop.start()
    (id_,) = await shop.hand_over(new())
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    shop.is_away()
    await shop.inference.target.inventory.refresh()
    person.leave()
    await shop.until(lambda: not shop.inference.target.gate.waiting_jobs)
    await shop.turn()
    assert (await shop.job(id_)).fence == 0
    assert shop.inference.target.gate.running == []


@pytest_twisted.ensureDeferred
async def test_a_target_that_lists_its_models_and_takes_no_job_is_not_stormed(shop: Shop) -> None:
    shop.target.failures = [errors.ConnectionError("refused", "nobody there")] * 1000
    shop.start()
    (id_,) = await shop.hand_over(new())
    await shop.wait(10 * UNREACHED_PAUSE, step=UNREACHED_PAUSE / 2)
    assert 1 <= (await shop.job(id_)).fence <= 11


@pytest_twisted.ensureDeferred
async def test_three_breaks_before_the_answer_are_forgiven_and_the_fourth_counts(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    attempts = []
    for number in range(1, 5):
        (await shop.asked(number)).heard.errback(errors.ConnectionError("reset", "gone"))
        job = await shop.becomes(id_, "scheduled")
        assert job.error is not None
        assert job.error.error_class == "unreachable"
        attempts.append(job.attempt)
        await shop.wait((job.run_at - shop.store.now()) / 1000 + 0.1, step=30)
    assert attempts == [0, 0, 0, 1]
    (await shop.asked(5)).begin().say(LAST).end()
    assert (await shop.becomes(id_, "succeeded")).attempt == 2


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
    shop: Shop, status: int, headers: Any, body: bytes, error_class: str, state: str, attempt: int, pause: int | None
) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    (await shop.asked()).begin(status, headers).say(body).end()
    job = await shop.becomes(id_, state)
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == (error_class, attempt)
    if pause is not None:
        assert job.run_at == shop.store.now() + 1000 * pause
    assert shop.inference.target.gate.running == []
    kept = [info.name for info in job.artifacts]
    assert kept == ([ERROR, PARTIAL] if status == 200 else [ERROR])


@pytest_twisted.ensureDeferred
async def test_a_stream_that_breaks_off_or_falls_silent_leaves_its_lines_until_one_succeeds(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    (await shop.asked()).begin().say(LINE, LINE[:9]).end(errors.ConnectionError("reset", "x"))
    job = await shop.becomes(id_, "scheduled")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("truncated", 1)
    assert await shop.artifact(id_, PARTIAL) == LINE
    await shop.wait(6)
    call = (await shop.asked(2)).begin().say(LINE, LINE)
    await shop.wait(601, step=100)
    job = await shop.becomes(id_, "scheduled")
    assert call.aborted
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("silent", 2)
    assert await shop.artifact(id_, PARTIAL) == LINE + LINE
    await shop.wait(16)
    (await shop.asked(3)).begin().say(LINE, LAST).end()
    job = await shop.becomes(id_, "succeeded")
    assert [info.name for info in job.artifacts] == [RESPONSE, STREAM]
    assert job.error is None


@pytest_twisted.ensureDeferred
async def test_a_job_out_of_attempts_is_discarded_after_growing_pauses(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    pauses = []
    for number in range(1, 6):
        (await shop.asked(number)).begin(500, JSON).say(b'{"error":"crashed"}').end()
        job = await shop.becomes(id_, "scheduled" if number < 5 else "discarded")
        if number < 5:
            pauses.append((job.run_at - shop.store.now()) / 1000)
            await shop.wait(pauses[-1], step=30)
    assert pauses == [5, 15, 45, 135]
    assert job.error is not None
    assert (job.attempt, job.error.error_class, job.error.message) == (5, "target_error", "500: crashed")
    assert await shop.artifact(id_, ERROR) == b'{"error":"crashed"}'


@pytest.mark.parametrize("shop", [{"max_artifact": 1000}], indirect=True)
@pytest_twisted.ensureDeferred
async def test_an_answer_larger_than_an_artifact_may_be_fails_the_job_and_stops_the_target(shop: Shop) -> None:
    shop.start()
    just, too_large, at_once = await shop.hand_over(*[new() for _ in range(3)])
    filler = LINE.replace(b"word", b"x" * (1000 - len(LAST) - len(LINE) + 4))
    (await shop.asked()).begin().say(filler, LAST).end()
    await shop.becomes(just, "succeeded")
    call = (await shop.asked(2)).begin().say(filler, LAST[:-1] + b" \n")
    await shop.until(lambda: call.aborted)
    job = await shop.becomes(too_large, "failed")
    assert job.error is not None
    assert (job.error.error_class, "FOREMAN_MAX_ARTIFACT" in job.error.message) == ("too_large", True)
    assert await shop.artifact(too_large, PARTIAL) == filler
    (await shop.asked(3)).begin().say(filler, LINE, LAST).end()
    job = await shop.becomes(at_once, "failed")
    assert job.error is not None
    assert job.error.error_class == "too_large"


@pytest.mark.parametrize("shop", [{"silence": 3600.0}], indirect=True)
@pytest_twisted.ensureDeferred
async def test_a_job_whose_answer_never_begins_gives_the_turn_back(shop: Shop) -> None:
    shop.start()
    silent, after_it = await shop.hand_over(new(), new())
    call = await shop.asked()
    await shop.wait(3599, step=600)
    assert not call.left
    await shop.wait(1)
    assert call.left
    job = await shop.becomes(silent, "scheduled")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("silent", 1)
    # What has begun is not broken off by it, however long it takes.
    begun = (await shop.asked(2)).begin().say(LINE)
    for _ in range(8):
        await shop.wait(500, step=500)
        begun.say(LINE)
    begun.say(LAST).end()
    await shop.becomes(after_it, "succeeded")
    shop.worker.close()


@pytest.mark.parametrize("payload", [b"{", b'"x"', b"\x00"])
@pytest_twisted.ensureDeferred
async def test_a_payload_that_cannot_be_read_fails_and_holds_up_nobody(shop: Shop, payload: bytes) -> None:
    shop.start()
    odd, packed, next_one = await shop.hand_over(
        new(payload=payload, stream=False), new(payload=payload, stream=False, content_encoding="zstd"), new()
    )
    for id_ in (odd, packed):
        job = await shop.becomes(id_, "failed")
        assert job.error is not None
        assert job.error.error_class == "refused"
        assert job.error.message.startswith("its payload cannot be read")
    (await shop.asked()).begin().say(LAST).end()
    await shop.becomes(next_one, "succeeded")


@pytest_twisted.ensureDeferred
async def test_a_mistake_of_foremans_own_leaves_no_job_running_for_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    shop.start()
    monkeypatch.setattr("foreman.worker.attempt.classify", lambda _: 1 / 0)
    judged, asked_for = await shop.hand_over(new(max_attempts=1), new(max_attempts=1))
    (await shop.asked()).begin().say(LAST).end()
    job = await shop.becomes(judged, "discarded")
    assert job.error is not None
    assert job.error.error_class == "target_error"
    await shop.asked(2)
    shop.target.calls[1].heard.errback(RuntimeError("a mistake"))
    job = await shop.becomes(asked_for, "discarded")
    assert job.error is not None
    assert "a mistake" in job.error.message
    assert shop.inference.target.gate.running == []
    assert len(logged_failures.take(ZeroDivisionError, RuntimeError)) == 2


@pytest_twisted.ensureDeferred
async def test_a_mistake_while_an_answer_is_looked_into_leaves_no_job_running(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    async def broken(_self: AnswerCheck, _attempt: Attempt) -> None:
        raise ZeroDivisionError("a mistake")

    shop.start()
    monkeypatch.setattr(AnswerCheck, "check", broken)
    (id_,) = await shop.hand_over(new(max_attempts=1))
    (await shop.asked()).begin().say(LAST).end()
    job = await shop.becomes(id_, "discarded")
    assert job.error is not None
    assert "a mistake" in job.error.message
    assert len(logged_failures.take(ZeroDivisionError)) == 1


# ending it


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest_twisted.ensureDeferred
async def test_a_job_past_its_deadline_is_broken_off(shop: Shop, phase: str) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new(deadline=shop.store.now() + 60_000))
    call = await shop.asked()
    if phase == "in the stream":
        call.begin().say(LINE)
    await shop.wait(59)
    assert not call.is_over
    await shop.wait(1)
    assert call.left or call.aborted
    job = await shop.becomes(id_, "discarded")
    assert job.error is not None
    assert (job.error.error_class, job.attempt) == ("expired", 1)
    assert shop.inference.target.gate.running == []


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest.mark.parametrize("by", ["its route", "the queue"])
@pytest_twisted.ensureDeferred
async def test_a_running_job_that_is_cancelled_is_broken_off(shop: Shop, phase: str, by: str) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    call = await shop.asked()
    if phase == "in the stream":
        call.begin().say(LINE)
    if by == "its route":
        assert (await shop.store.cancel(id_)).state == "running"
        shop.worker.cancel(id_)
    else:
        assert not shop.inference.cancel(id_, lambda caller: caller != "alice")
        assert shop.inference.cancel(id_, lambda caller: caller == "alice")
    assert call.left or call.aborted
    job = await shop.becomes(id_, "cancelled")
    assert (job.error, job.attempt) == (None, 0)
    assert await shop.events(id_) == ["queued", "running", "cancelled"]
    shop.worker.cancel(id_)


@pytest_twisted.ensureDeferred
async def test_a_cancel_that_only_the_store_was_told_of_breaks_it_off_too(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    call = (await shop.asked()).begin().say(LINE)
    shop.store.notifications.announce(frozenset({id_}))
    await shop.turn()
    assert not call.aborted
    await shop.store.cancel(id_)
    await shop.becomes(id_, "cancelled")
    assert call.aborted


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_when_its_answer_is_whole_has_it(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    (await shop.asked()).begin().say(LAST).end()
    shop.worker.cancel(id_)
    await shop.becomes(id_, "succeeded")
    assert (await shop.becomes(id_, "succeeded")).attempt == 1


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_while_it_fails_is_cancelled(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    call = (await shop.asked()).begin(500, JSON).say(b'{"error":"crashed"}')
    cancelling = Deferred.fromCoroutine(shop.store.cancel(id_))
    call.end()
    await cancelling
    await shop.becomes(id_, "cancelled")


# stopping


@pytest_twisted.ensureDeferred
async def test_what_runs_when_foreman_stops_may_finish_and_nothing_new_begins(shop: Shop) -> None:
    shop.start()
    first, second = await shop.hand_over(new(), new())
    call = await shop.asked()
    shop.worker.close()
    shop.inference.close()
    call.begin().say(LAST).end()
    await shop.becomes(first, "succeeded")
    await shop.turn()
    assert shop.worker.when_idle().called
    assert ((await shop.job(second)).state, len(shop.target.calls)) == ("queued", 1)


@pytest.mark.parametrize("phase", ["before the head", "in the stream"])
@pytest_twisted.ensureDeferred
async def test_what_does_not_finish_in_time_is_queued_again_and_nothing_counts(shop: Shop, phase: str) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new(max_attempts=1))
    call = await shop.asked()
    if phase == "in the stream":
        call.begin().say(LINE)
    shop.worker.close()
    shop.inference.close()
    shop.inference.stop()
    assert call.left or call.aborted
    job = await shop.becomes(id_, "queued")
    assert (job.attempt, job.error) == (0, None)
    assert await shop.events(id_) == ["queued", "running", "released"]


@pytest_twisted.ensureDeferred
async def test_stopping_while_a_job_waits_for_its_turn_leaves_it_queued(shop: Shop) -> None:
    person = shop.work.ask()
    shop.start()
    (id_,) = await shop.hand_over(new())
    await shop.until(lambda: shop.inference.target.gate.waiting_jobs)
    shop.worker.close()
    shop.inference.close()
    await shop.until(lambda: shop.worker.when_idle().called)
    shop.target.calls[0].begin().say(LAST).end()
    assert person.results == [None]
    assert ((await shop.job(id_)).fence, len(shop.target.calls)) == (0, 1)


@pytest_twisted.ensureDeferred
async def test_stopping_while_a_job_is_being_taken_gives_it_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = SQLiteJobStore.claim

    async def claimed_late(store: SQLiteJobStore, *arguments: Any) -> Any:
        found = await claim(store, *arguments)
        shop.worker.close()
        shop.inference.close()
        return found

    monkeypatch.setattr(SQLiteJobStore, "claim", claimed_late)
    shop.start()
    (id_,) = await shop.hand_over(new())
    await shop.until(lambda: shop.worker.when_idle().called)
    job = await shop.job(id_)
    assert (job.state, job.attempt, job.fence) == ("queued", 0, 1)
    assert shop.target.calls == []
    assert shop.inference.target.gate.running == []


@pytest_twisted.ensureDeferred
async def test_stopping_while_the_target_is_asked_whether_it_is_back_ends_the_worker(shop: Shop) -> None:
    shop.is_away()
    await shop.inference.target.inventory.refresh()
    shop.target.slow = True
    await shop.hand_over(new())
    shop.start()
    await shop.until(lambda: shop.target.waiting)
    shop.worker.close()
    await shop.inference.target.inventory.stop()
    await shop.until(lambda: shop.worker.when_idle().called)


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
async def test_an_answer_that_cannot_be_written_is_written_later(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.start()
    first, second = await shop.hand_over(new(), new())
    call = await shop.asked()
    trouble = Trouble(monkeypatch)
    call.begin().say(LINE, LAST).end()
    await shop.wait(4 * STORE_PAUSE)
    assert 3 <= trouble.tried <= 10
    assert (await shop.job(first)).state == "running"
    assert len(shop.target.calls) == 1
    assert shop.inference.target.gate.running == []
    trouble.over = True
    await shop.wait(STORE_PAUSE)
    await shop.becomes(first, "succeeded")
    assert await shop.artifact(first, RESPONSE) == WHOLE
    (await shop.asked(2)).begin().say(LAST).end()
    await shop.becomes(second, "succeeded")


@pytest_twisted.ensureDeferred
async def test_foreman_stops_although_an_answer_cannot_be_written(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.start()
    await shop.hand_over(new())
    call = await shop.asked()
    trouble = Trouble(monkeypatch)
    call.begin().say(LAST).end()
    await shop.until(lambda: trouble.tried)
    await shop.turn()
    shop.worker.close()
    shop.inference.close()
    await shop.until(lambda: shop.worker.when_idle().called)
    assert trouble.tried == 2
    trouble.over = True


@pytest.mark.parametrize("condition", ["broken", "unwritable"])
@pytest_twisted.ensureDeferred
async def test_a_store_that_has_failed_is_left_alone_for_a_while(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, condition: str
) -> None:
    await shop.hand_over(new())
    trouble = Trouble(monkeypatch, condition)
    shop.worker.start()
    await shop.until(lambda: trouble.tried)
    await shop.wait(10 * STORE_PAUSE)
    assert 5 <= trouble.tried <= 12
    assert shop.inference.target.gate.running == []
    trouble.over = True


@pytest_twisted.ensureDeferred
async def test_an_answer_is_dropped_when_the_store_breaks_and_when_the_job_was_taken_away(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    taken, broken, last = await shop.hand_over(new(), new(), new())
    call = await shop.asked()
    await shop.database.write(
        lambda tx: tx.cursor.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (taken,)) and None
    )
    call.begin().say(LAST).end()
    call = await shop.asked(2)
    assert await shop.artifact(taken, RESPONSE) is None
    trouble = Trouble(monkeypatch, "broken")
    call.begin().say(LAST).end()
    await shop.until(lambda: trouble.tried)
    await shop.turn()
    trouble.over = True
    await shop.wait(STORE_PAUSE)
    (await shop.asked(3)).begin().say(LAST).end()
    await shop.becomes(last, "succeeded")
    assert (await shop.job(broken)).state == "running"


@pytest_twisted.ensureDeferred
async def test_whoever_cancels_a_job_that_was_taken_away_does_no_harm(shop: Shop) -> None:
    shop.start()
    taken, next_one = await shop.hand_over(new(), new())
    await shop.asked()

    def take_away(tx: Any) -> None:
        tx.cursor.execute(
            "UPDATE jobs SET state = 'failed', boot = NULL, finished_at = ? WHERE id = ?", (tx.now, taken)
        )

    await shop.database.write(take_away)
    assert shop.inference.cancel(taken, lambda _: True)
    (await shop.asked(2)).begin().say(LAST).end()
    await shop.becomes(next_one, "succeeded")


@pytest_twisted.ensureDeferred
async def test_lines_are_kept_while_they_come_and_are_gone_when_it_has_ended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    call = (await shop.asked()).begin().say(LINE, LINE)
    output = shop.worker.output_of(id_)
    assert output is not None
    assert (output.lines, output.ended, output.attempt) == ([LINE, LINE], False, 1)
    await shop.wait(2)
    assert await kept(shop.store, id_) == [LINE + LINE]
    await shop.wait(4)
    call.say(LINE)
    with monkeypatch.context() as patch:
        Trouble(patch)
        await shop.wait(2)
        call.say(LINE)
        await shop.wait(2)
    await shop.wait(2)
    assert b"".join(await kept(shop.store, id_)) == LINE * 4
    call.say(LAST).end()
    await shop.becomes(id_, "succeeded")
    assert await kept(shop.store, id_) == []
    await shop.until(lambda: output.ended)
    assert shop.worker.output_of(id_) is None


@pytest_twisted.ensureDeferred
async def test_a_running_job_that_was_taken_away_is_broken_off_at_the_next_keeping(shop: Shop) -> None:
    shop.start()
    (id_,) = await shop.hand_over(new())
    call = (await shop.asked()).begin().say(LINE)
    await shop.database.write(
        lambda tx: tx.cursor.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (id_,)) and None
    )
    await shop.wait(2)
    assert call.aborted
    assert shop.inference.target.gate.running == []


# looking


@pytest_twisted.ensureDeferred
async def test_an_idle_worker_looks_only_when_it_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    first = SQLiteJobStore.peek

    async def counted(store: SQLiteJobStore, *arguments: Any) -> Any:
        looks.append(arguments)
        return await first(store, *arguments)

    monkeypatch.setattr(SQLiteJobStore, "peek", counted)
    shop.worker.start()
    await shop.wait(600, step=60)
    assert len(looks) == 2
    await shop.hand_over(new(model="gone"))
    await shop.wait(60)
    assert len(looks) <= 2 + 2 + 60 / RECHECK + 1


@pytest_twisted.ensureDeferred
async def test_a_head_that_cannot_be_claimed_is_no_reason_to_spin(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = []

    async def none(*_: Any) -> None:
        claims.append(1)

    await shop.hand_over(new())
    monkeypatch.setattr(SQLiteJobStore, "claim", none)
    shop.worker.start()
    await shop.turn()
    await shop.wait(10)
    assert len(claims) <= 12
    monkeypatch.undo()


@pytest_twisted.ensureDeferred
async def test_looking_that_fails_is_tried_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures
) -> None:
    await shop.hand_over(new())
    with monkeypatch.context() as patch:
        patch.setattr("foreman.worker.worker.Worker._bonuses", lambda *_: lambda _model: 1 / 0)
        shop.worker.start()
        await shop.turn()
        assert shop.inference.target.gate.running == []
    assert logged_failures.take(ZeroDivisionError)
    await shop.wait(STORE_PAUSE)
    await shop.asked()


@pytest_twisted.ensureDeferred
async def test_a_job_queued_while_the_worker_looks_is_not_overlooked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest = SQLiteJobStore.oldest_run_at

    async def late(store: SQLiteJobStore, *arguments: Any) -> Any:
        found = await oldest(store, *arguments)
        if arguments == ("gate",) and found is None and not shop.target.calls:
            await shop.hand_over(new())
        return found

    monkeypatch.setattr(SQLiteJobStore, "oldest_run_at", late)
    shop.worker.start()
    await shop.asked()


# all of it at once


class Storm:
    """Everything that may happen, in any order.

    :ivar ids: of the jobs that were handed over; :ivar people: who asked beside them.
    """

    ANSWERS = ((200, None, LAST), (200, None, LINE), (500, JSON, b"{}"), (503, JSON, b"{}"), (400, JSON, b"{}"))
    KINDS = "hand-over hand-over ask leave answer answer cancel break away wait turn turn".split()

    def __init__(self, shop: Shop, seed: int) -> None:
        self.shop, self.random = shop, Random(seed)
        self.ids: list[str] = []
        self.people: list[Any] = []

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.shop.target.calls if not call.is_over and not call.heard.called]

    def answer(self, call: Call, status: int, headers: Any, body: bytes) -> None:
        call.begin(status, headers)
        if call.reader is not None:  # else the load was all that was wanted
            call.say(body).end()

    async def blow(self, steps: int) -> None:
        for _ in range(steps):
            await self.act(self.random.choice(self.KINDS))
            assert len(self.shop.inference.target.gate.running) <= 1
            assert len(self.shop.inference.target.gate.waiting_jobs) <= 1

    async def act(self, what: str) -> None:
        shop, random = self.shop, self.random
        if what == "hand-over":
            model = random.choice(["llama3", "big:7b", "far", "gone"])
            lane, endpoint = random.choice([("gate", "/api/chat"), ("embedding", "/api/embed")])
            deadline = random.choice([None, None, None, shop.store.now() + 40_000])
            job = new(endpoint, model, lane=lane, deadline=deadline, priority=random.randrange(10))
            self.ids.extend(await shop.hand_over(job))
        elif what == "ask":
            self.people.append(shop.work.ask(model=random.choice(["llama3", "big:7b"])))
        elif what == "leave" and self.people:
            person = random.choice(self.people)
            if not person.results:
                person.leave()
        elif what == "answer" and self.open_calls:
            self.answer(random.choice(self.open_calls), *random.choice(self.ANSWERS))
        elif what == "cancel" and self.ids:
            id_ = random.choice(self.ids)
            with suppress(WrongState):
                await shop.store.cancel(id_)
                shop.worker.cancel(id_)
        elif what == "break" and self.open_calls:
            random.choice(self.open_calls).heard.errback(errors.ConnectionError("reset", "gone"))
        elif what == "away":
            shop.is_away(away=not shop.target.failures)
            await shop.inference.target.inventory.refresh()
        elif what == "wait":
            shop.clock.advance(random.choice([0.0, 1.0, 30.0]))
        elif what == "turn":
            await deferLater(reactor, random.choice([0.0, 0.002, 0.01]))
            shop.clock.advance(0)


@pytest.mark.parametrize("seed", range(8))
@pytest_twisted.ensureDeferred
async def test_whatever_happens_in_whatever_order_every_job_ends_and_no_turn_is_lost(shop: Shop, seed: int) -> None:
    shop.start()
    storm = Storm(shop, seed)
    await storm.blow(120)
    shop.is_away(away=False)
    shop.target.tags["models"].append({"name": "gone:latest"})
    await shop.inference.target.inventory.refresh()
    for _ in range(4000):
        for call in storm.open_calls:
            storm.answer(call, 200, None, LAST)
        jobs = [await shop.job(id_) for id_ in storm.ids]
        if all(job.ended for job in jobs) and all(person.results for person in storm.people):
            break
        shop.clock.advance(2.0)
        await deferLater(reactor, 0.002)
    assert [job.state for job in jobs if not job.ended] == []
    for job in jobs:
        kept = {info.name for info in job.artifacts}
        assert (RESPONSE in kept) is (job.state == "succeeded")


@pytest.mark.parametrize("seed", range(8))
@pytest_twisted.ensureDeferred
async def test_whenever_foreman_stops_no_job_is_left_as_running(
    shop: Shop, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start()
    storm = Storm(shop, seed)
    await storm.blow(40 + seed)
    monkeypatch.setattr(Storm, "KINDS", ["hand-over", "answer", "cancel", "wait", "turn"])
    shop.worker.close()
    shop.inference.close()
    asked = len(shop.target.calls)
    await storm.blow(seed)
    shop.inference.stop()
    await shop.until(lambda: shop.worker.when_idle().called)
    jobs = [await shop.job(id_) for id_ in storm.ids]
    assert "running" not in {job.state for job in jobs}
    assert all(job.attempt == 0 for job in jobs if job.state == "queued" and job.error is None)
    assert len(shop.target.calls) == asked
