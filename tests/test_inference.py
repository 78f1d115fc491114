"""One request from arrival to last line: who takes a turn, when it passes on, and what becomes of those who leave."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.web.client import ResponseFailed

from foreman import errors
from foreman.proxy.inference import RETRY_PAUSE
from foreman.proxy.request import ModelMissing
from foreman.scheduling.queue_status import QueuePosition
from foreman.simulator import Settings, Simulator
from foreman.target.inventory import Inventory
from support import raw_http, recordings
from support.fake_target import LAST, LINE, NDJSON
from support.inference_harness import InferenceHarness, RecordingResponder
from support.live_foreman import RunningForeman, listen, port_of, start_foreman

reactor: Any = installed_reactor


# turns


def test_a_chat_gets_its_answer_and_the_next_its_turn() -> None:
    work = InferenceHarness()
    first, second = work.ask(), work.ask("/v1/chat/completions")
    (call,) = work.target.calls
    assert call.head == b"POST /api/chat"
    work.clock.advance(2)
    call.begin()
    work.clock.advance(1)
    call.say(LINE, LAST).end()
    assert first.results == [None]
    assert (first.responder.status, first.responder.pieces, first.responder.transition) == (
        200,
        [LINE, LAST],
        "finished",
    )
    record = first.record
    assert (record.turn_at, record.head_at, record.first_byte_at, record.outcome) == (0.0, 2.0, 3.0, "complete")
    assert (record.tokens_in, record.tokens_out, record.eval_seconds) == (3, 2, 0.5)
    assert len(work.target.calls) == 1
    work.turn()
    assert len(work.target.calls) == 2
    work.target.calls[1].begin().say(LAST).end()
    assert second.results == [None]
    work.check_nothing_is_left()


def test_the_turn_passes_on_when_the_target_has_finished_though_the_reader_has_not() -> None:
    work = InferenceHarness()
    slow, _ = work.ask(), work.ask()
    slow.responder.pause_at = 1
    work.target.calls[0].begin().say(LINE, LINE, LAST).end()
    assert slow.results == []
    work.turn()
    assert len(work.target.calls) == 2
    slow.responder.producer.resumeProducing()
    assert (slow.results, slow.responder.transition) == ([None], "finished")
    work.target.calls[1].begin().say(LAST).end()
    work.check_nothing_is_left()


def test_several_turns_let_as_many_chats_run() -> None:
    work = InferenceHarness(turns=2)
    for _ in range(5):
        work.ask()
    assert len(work.target.calls) == 2
    for done in range(5):
        work.target.calls[done].begin().say(LAST).end()
        work.turn()
        assert len(work.target.calls) == min(5, done + 3)
        assert len(work.inference.target.gate.running) == min(2, 4 - done)
    work.check_nothing_is_left()


def test_embeddings_pass_beside_a_chat_and_have_a_cap_of_their_own() -> None:
    work = InferenceHarness()
    work.ask()
    routes = ["/api/embed", "/api/embeddings", "/v1/embeddings"]
    embeddings = [work.ask(routes[number % 3]) for number in range(10)]
    assert len(work.target.calls) == 1 + 8
    for call in work.target.calls[1:]:
        call.begin(headers=[(b"Content-Type", b"application/json")]).say(b'{"embeddings":[[1]]}').end()
    work.turn()
    for call in work.target.calls[9:]:
        call.begin(headers=[(b"Content-Type", b"application/json")]).say(b'{"embeddings":[[1]]}').end()
    assert [each.record.outcome for each in embeddings] == ["complete"] * 10
    assert len(work.inference.target.gate.running) == 1


def test_embeddings_are_told_where_they_stand() -> None:
    work = InferenceHarness()
    for _ in range(8):
        work.ask("/api/embed")
    waiting = [work.ask("/v1/embeddings"), work.ask("/api/embeddings")]
    for number, asking in enumerate([work.requests[0], *waiting]):
        assert asking.responder.place is not None
        assert asking.responder.place() == QueuePosition(number, None)


def test_who_waits_for_a_place_at_a_cloud_model_is_told_where_it_stands() -> None:
    work = InferenceHarness()
    cloud = work.inference.concurrency.cloud
    askings = [work.ask(model="x:cloud") for _ in range(cloud.per_caller + 2)]
    for asking, number in ((askings[0], 0), (askings[-2], 1), (askings[-1], 2)):
        assert asking.responder.place is not None
        assert asking.responder.place() == QueuePosition(number, None)
    work.target.calls[0].begin().say(LAST).end()
    work.turn()
    assert askings[-1].responder.place is not None
    assert askings[-1].responder.place() == QueuePosition(1, None)
    assert work.ask("/api/show").responder.place is None


def test_a_thousand_quick_chats_pass_in_order_without_deep_recursion() -> None:
    work = InferenceHarness()
    askings = [work.ask(messages=[{"role": "user", "content": str(number)}]) for number in range(1000)]
    for number in range(1000):
        (call,) = work.target.calls
        assert json.loads(call.body)["messages"][0]["content"] == str(number)
        work.target.calls.clear()
        call.begin().say(LAST).end()
        work.turn()
    assert all(each.results == [None] for each in askings)
    work.check_nothing_is_left()


def test_a_thousand_chats_that_fail_at_once_pass_in_order_without_deep_recursion() -> None:
    work = InferenceHarness()
    work.target.failures = [errors.ConnectionError("reset", "gone") for _ in range(1001)]
    askings = [work.ask() for _ in range(1000)]
    for _ in range(1000):
        work.turn()
    assert all(each.problem.why == "reset" for each in askings)
    work.check_nothing_is_left()


def test_a_full_room_refuses_and_touches_nothing() -> None:
    work = InferenceHarness(max_queue=1)
    work.ask()
    work.ask()
    assert isinstance(work.ask().problem, errors.QueueFull)
    assert len(work.target.calls) == 1


# who takes a turn


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/chat", {"keep_alive": 0, "messages": []}),
        ("/api/generate", {"keep_alive": "0s", "prompt": ""}),
        ("/api/chat", {"model": "x:cloud"}),
        ("/v1/chat/completions", {"model": "x:7b-cloud"}),
        ("/api/generate", {"model": "far"}),
        ("/v1/messages", {"model": "FAR:latest"}),
        ("/api/chat", {"model": ""}),
        ("/api/show", {}),
        ("/api/pull", {}),
    ],
)
def test_what_needs_no_turn_never_waits(path: str, more: dict[str, Any]) -> None:
    work = InferenceHarness()
    work.ask()
    passing = work.ask(path, **more)
    assert len(work.target.calls) == 2
    is_elsewhere = more.get("model", "llama3") not in {"llama3", ""}  # such a model may take its time
    assert (passing.responder.place is not None) == is_elsewhere
    assert passing.responder.place is None or passing.responder.place() == QueuePosition(0, None)
    work.target.calls[1].begin().say(LAST).end()
    assert passing.results == [None]
    assert passing.record.turn_at is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", b'{"model":"llama3"}'),
        ("/api/generate", b'{"model":"llama3","keep_alive":"5m"}'),
        ("/api/generate", b'{"model":"llama3","prompt":"x","keep_alive":0}'),
        ("/api/chat", b'{"model":7}'),
        ("/api/chat", b'{"model":"llama3" nonsense'),
        ("/v1/audio/transcriptions", b"no form at all"),
    ],
)
def test_a_load_and_what_cannot_be_read_take_a_turn(path: str, body: bytes) -> None:
    work = InferenceHarness()
    work.ask()
    with suppress(errors.BadBody):
        waiting = work.ask(path, body=body)
        assert len(work.target.calls) == 1
        assert waiting.responder.place is not None
        assert waiting.responder.place().position == 1
        work.target.calls[0].begin().say(LAST).end()
        work.turn()
        assert work.target.calls[1].body == body


def test_a_model_that_is_missing_is_looked_for_once_and_takes_no_turn() -> None:
    work = InferenceHarness()
    missing = work.ask(model="nope")
    assert isinstance(missing.problem, ModelMissing)
    assert str(missing.problem) == "model 'nope' not found"
    assert (work.target.polls, work.target.calls) == (2, [])
    work.check_nothing_is_left()


def test_a_model_that_has_come_since_the_last_poll_is_found() -> None:
    work = InferenceHarness()
    work.target.tags = {"models": [{"name": "new:latest"}]}
    work.ask(model="NEW")
    assert len(work.target.calls) == 1


def test_a_missing_model_is_tried_while_the_target_cannot_be_asked() -> None:
    work = InferenceHarness()
    work.target.problem = errors.ConnectionError("refused", "nobody there")
    work.ask(model="nope")
    assert len(work.target.calls) == 1


# leaving, in every phase


def test_whoever_leaves_the_line_is_never_heard_of_by_the_target() -> None:
    work = InferenceHarness()
    work.ask()
    leaver = work.ask()
    work.ask(model="far-behind:cloud")
    leaver.leave()
    work.target.calls[0].begin().say(LAST).end()
    work.turn()
    assert [call.head for call in work.target.calls] == [b"POST /api/chat"] * 2
    work.target.calls[1].begin().say(LAST).end()
    work.check_nothing_is_left()


def test_whoever_leaves_while_its_model_is_looked_for_takes_no_turn() -> None:
    work = InferenceHarness()
    work.target.slow = True
    work.ask(model="nope").leave()
    assert work.target.calls == []
    work.target.answer()
    work.target.answer()
    work.check_nothing_is_left()


def test_whoever_leaves_before_the_head_closes_the_connection_and_the_turn_passes_on() -> None:
    work = InferenceHarness()
    leaver, _ = work.ask(), work.ask()
    leaver.leave()
    assert work.target.calls[0].left
    work.turn()
    assert len(work.target.calls) == 2
    assert leaver.record.head_at is None


@pytest.mark.parametrize("said", [(), (LINE,), (LINE, LINE[:5])])
@pytest.mark.parametrize("headers", [NDJSON, [(b"Content-Type", b"application/json")]])
def test_whoever_leaves_during_the_answer_closes_the_connection_and_the_turn_passes_on(
    said: tuple[bytes, ...], headers: Any
) -> None:
    work = InferenceHarness()
    leaver, _ = work.ask(), work.ask()
    work.target.calls[0].begin(headers=headers).say(*said)
    leaver.leave()
    assert work.target.calls[0].aborted
    work.turn()
    assert len(work.target.calls) == 2
    assert leaver.responder.transition is None
    work.target.calls[1].begin().say(LAST).end()
    work.check_nothing_is_left()


def test_a_slow_reader_who_leaves_after_the_targets_end_has_no_turn_to_lose() -> None:
    work = InferenceHarness()
    slow, _, third = work.ask(), work.ask(), work.ask()
    slow.responder.pause_at = 1
    work.target.calls[0].begin().say(LINE, LINE, LAST).end()
    work.turn()
    slow.leave()
    work.turn()
    assert len(work.target.calls) == 2
    assert work.buffers.used == 0
    assert third.results == []


def test_whoever_leaves_while_foreman_waits_for_the_target_gives_its_turn_away() -> None:
    work = InferenceHarness(target_wait=60)
    work.target.failures = [errors.ConnectionError("refused", "nobody there")]
    leaver, _ = work.ask(), work.ask()
    assert work.target.calls == []
    leaver.leave()
    work.turn()
    assert len(work.target.calls) == 1


def test_an_embedding_that_leaves_frees_its_place() -> None:
    work = InferenceHarness()
    leaver = work.ask("/api/embed")
    leaver.leave()
    assert work.target.calls[0].left
    work.check_nothing_is_left()


# the target fails


@pytest.mark.parametrize("why", ["refused", "timeout", "dns"])
def test_a_target_that_cannot_be_reached_is_tried_again_while_it_may_be_waited_for(why: Any) -> None:
    work = InferenceHarness(target_wait=3)
    work.target.failures = [errors.ConnectionError(why, "it is away") for _ in range(3)]
    asking = work.ask()
    for _ in range(3):
        assert work.inference.target.inventory.degraded is not None
        assert work.target.calls == []
        work.clock.advance(RETRY_PAUSE)
    work.target.calls[0].begin().say(LAST).end()
    assert asking.results == [None]
    assert work.inference.target.inventory.degraded is None
    work.check_nothing_is_left()


def test_a_target_that_stays_away_is_given_up() -> None:
    work = InferenceHarness(target_wait=2)
    work.target.failures = [errors.ConnectionError("refused", "it is away") for _ in range(10)]
    asking = work.ask()
    work.clock.pump([RETRY_PAUSE] * 2)
    assert asking.problem.why == "refused"
    assert len(work.target.failures) == 10 - 3
    work.check_nothing_is_left()


@pytest.mark.parametrize("why", ["reset", "garbage", "tls"])
def test_what_the_target_may_have_heard_is_never_sent_again(why: Any) -> None:
    work = InferenceHarness(target_wait=60)
    work.target.failures = [errors.ConnectionError(why, "it broke")]
    asking = work.ask()
    assert asking.problem.why == why
    assert (work.target.calls, work.target.polls) == ([], 2)
    assert work.inference.target.inventory.degraded is None
    work.check_nothing_is_left()


def test_an_answer_that_breaks_off_is_broken_off_and_passes_the_turn_on() -> None:
    work = InferenceHarness()
    asking, _ = work.ask(), work.ask()
    work.target.calls[0].begin().say(LINE, LINE[:4]).end(ResponseFailed([]))
    assert asking.results == [None]
    assert isinstance(asking.responder.transition, errors.ConnectionError)
    assert (asking.record.outcome, asking.record.detail) == ("target failed", str(asking.responder.transition))
    work.turn()
    assert len(work.target.calls) == 2


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_a_stream_without_its_end_marker_is_broken_off(path: str) -> None:
    work = InferenceHarness()
    asking = work.ask(path)
    work.target.calls[0].begin().say(LINE).end()
    assert (asking.responder.pieces, str(asking.responder.transition)) == (
        [LINE],
        "the target's answer ended without its end marker",
    )
    assert asking.record.outcome == "target failed"


@pytest.mark.parametrize(
    ("path", "status", "headers"),
    [
        ("/api/pull", 200, NDJSON),
        ("/api/embed", 200, NDJSON),
        ("/v1/audio/transcriptions", 200, NDJSON),
        ("/api/chat", 400, NDJSON),
        ("/v1/chat/completions", 503, [(b"Content-Type", b"text/event-stream")]),
        ("/api/chat", 200, [(b"Content-Type", b"application/json")]),
        ("/api/chat", 200, [*NDJSON, (b"Content-Encoding", b"gzip")]),
    ],
)
def test_no_end_marker_is_expected_of_what_has_none(path: str, status: int, headers: Any) -> None:
    work = InferenceHarness()
    asking = work.ask(path)
    work.target.calls[0].begin(status, headers).say(LINE).end()
    assert (asking.responder.pieces, asking.responder.transition) == ([LINE], "finished")


@pytest.mark.parametrize(("status", "outcome"), [(400, "complete"), (404, "complete"), (500, "target failed")])
def test_a_refusal_of_the_target_is_passed_on_whole(status: int, outcome: str) -> None:
    work = InferenceHarness()
    asking = work.ask()
    work.target.calls[0].begin(status, [(b"Content-Type", b"application/json")]).say(b'{"error":"no"}').end()
    assert (asking.responder.status, asking.responder.pieces, asking.responder.transition) == (
        status,
        [b'{"error":"no"}'],
        "finished",
    )
    assert (asking.record.status, asking.record.outcome) == (status, outcome)


def test_an_error_of_a_proxy_in_between_does_not_mean_that_the_target_is_back() -> None:
    work = InferenceHarness()
    work.inference.target.inventory.target_failed(errors.ConnectionError("refused", "nobody there"))
    work.ask()
    work.ask("/api/show")
    work.target.calls[0].begin(502, []).end()
    assert work.inference.target.inventory.degraded is not None
    work.target.calls[1].begin(404, []).end()
    assert work.inference.target.inventory.degraded is None


def test_a_client_that_cannot_take_the_head_does_not_leave_the_target_running() -> None:
    class Failing(RecordingResponder):
        def begin(self, status: int, phrase: bytes, headers: Any, kind: str) -> None:
            raise ZeroDivisionError

    work = InferenceHarness()
    asking, _ = work.ask(responder=Failing()), work.ask()
    work.target.calls[0].begin()
    assert isinstance(asking.problem, ZeroDivisionError)
    assert work.target.calls[0].aborted
    work.turn()
    assert len(work.target.calls) == 2


def test_whatever_fails_between_an_answer_and_its_reader_does_not_leave_the_target_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Inventory) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Inventory, "target_answered", fail)
    work = InferenceHarness()
    asking, _ = work.ask(), work.ask()
    work.target.calls[0].begin()
    assert isinstance(asking.problem, ZeroDivisionError)
    assert work.target.calls[0].aborted
    work.turn()
    assert len(work.target.calls) == 2


def test_after_any_answer_the_lists_are_asked_for_anew() -> None:
    work = InferenceHarness()
    work.ask()
    work.target.calls[0].begin().say(LAST).end()
    Deferred.fromCoroutine(work.inference.target.inventory.until_fresh())
    assert work.target.polls == 2


# looking on, and stopping


def test_the_oldest_turn_without_a_first_byte_is_overdue_after_a_while() -> None:
    work = InferenceHarness(turns=3)
    work.clock.advance(5)
    work.ask()
    work.clock.advance(10)
    work.ask()
    assert work.inference.target.queue_status.overdue_since(10) is None
    work.clock.advance(1)
    assert work.inference.target.queue_status.overdue_since(10) == 5.0
    work.target.calls[0].begin()
    assert work.inference.target.queue_status.overdue_since(10) is None
    work.clock.advance(10)
    assert work.inference.target.queue_status.overdue_since(10) == 15.0


def test_a_closed_gate_sends_the_waiting_away_and_lets_the_running_finish() -> None:
    work = InferenceHarness()
    running, waiting, embedding = work.ask(), work.ask(), work.ask("/api/embed")
    work.inference.close()
    assert isinstance(waiting.problem, errors.Draining)
    assert isinstance(work.ask("/api/embed").problem, errors.Draining)
    idle = work.inference.when_idle()
    for call in work.target.calls:
        assert not idle.called
        call.begin().say(LAST).end()
    assert (running.results, embedding.results, idle.called) == ([None], [None], True)
    work.check_nothing_is_left()


def test_stopping_breaks_off_what_runs_in_whatever_phase_it_is() -> None:
    work = InferenceHarness(turns=5, target_wait=60)
    work.target.failures = [errors.ConnectionError("refused", "nobody there")]
    away = work.ask()
    connecting, streaming, slow = work.ask(), work.ask(), work.ask()
    slow.responder.pause_at = 1
    _, call, finished = work.target.calls
    call.begin().say(LINE)
    finished.begin().say(LINE, LAST).end()
    work.inference.close()
    work.inference.stop()
    for each in (away, connecting):
        assert isinstance(each.problem, errors.Draining)
    for each in (streaming, slow):
        assert isinstance(each.responder.transition, errors.Draining)
        assert each.record.outcome == "stopped"
    assert all(each.is_over for each in work.target.calls)
    work.check_nothing_is_left()


def test_a_request_can_be_cancelled_by_its_id_by_whoever_may() -> None:
    work = InferenceHarness()
    running, waiting = work.ask(), work.ask()
    assert not work.inference.cancel("1", lambda caller: caller == "somebody else")
    assert work.inference.cancel("1", lambda caller: caller == "someone")
    assert isinstance(waiting.problem, errors.Cancelled)
    work.target.calls[0].begin().say(LINE)
    assert work.inference.cancel("0", lambda _: True)
    assert isinstance(running.responder.transition, errors.Cancelled)
    assert not work.inference.cancel("0", lambda _: True)
    work.check_nothing_is_left()


def test_a_request_that_is_cancelled_or_stopped_while_its_model_is_looked_for_takes_no_turn() -> None:
    work = InferenceHarness()
    work.target.slow = True
    cancelled, stopped = work.ask(model="nope"), work.ask(model="gone")
    assert work.inference.cancel("0", lambda _: True)
    assert isinstance(cancelled.problem, errors.Cancelled)
    work.inference.stop()
    assert isinstance(stopped.problem, errors.Draining)
    work.target.answer()
    work.target.answer()
    assert work.target.calls == []
    work.check_nothing_is_left()


# over real sockets


MISSING = [
    name
    for name in recordings.names()
    if re.search("(chat|generate|completions|responses|messages)-missing-model", name)
]


@pytest.mark.parametrize("name", MISSING)
@pytest_twisted.ensureDeferred
async def test_a_missing_model_is_refused_in_the_words_of_each_route_without_asking_the_target(name: str) -> None:
    recording = recordings.load(name)
    target = recordings.ReplayTarget()
    listening: Any = listen(target)
    foreman = await start_foreman(port_of(listening))
    response = await raw_http.ask(foreman.port, recordings.request_bytes(recording))
    heard = recording["response"]
    assert (response.status, response.header("Content-Type")) == (
        heard["status"],
        dict(map(tuple, heard["headers"]))["Content-Type"],
    )
    without_id = re.sub(rb"req_[0-9a-f]{24}", b"", response.body)
    assert without_id == re.sub(rb"req_[0-9a-f]{24}", b"", recordings.as_bytes(heard["body"]))
    assert target.seen == []
    await foreman.stop()
    await maybeDeferred(listening.stopListening)


@define
class Real:
    """A foreman with one turn in front of a simulator."""

    foreman: RunningForeman
    simulator: Simulator

    async def begin(self, **more: Any) -> raw_http.RawClient:
        client = await raw_http.connect(self.foreman.port, "POST")
        client.send(chat(**more))
        return client


async def until(met: Callable[[], Any]) -> None:
    """Wait until something is so."""
    for _ in range(400):
        if met():
            return
        await deferLater(reactor, 0.005)
    raise AssertionError("waited in vain")


def chat(**more: Any) -> bytes:
    value = {
        "model": "tiny-slow",
        "messages": [{"role": "user", "content": "hi"}],
        "options": {"num_predict": 5},
        **more,
    }
    return raw_http.request("POST", "/api/chat", json.dumps(value).encode())


@pytest_twisted.async_yield_fixture
async def real() -> AsyncIterator[Real]:
    simulator = Simulator(reactor, Settings(rate=100))
    listening: Any = listen(simulator)
    foreman = await start_foreman(port_of(listening))
    await raw_http.ask(foreman.port, chat())  # a model that is loaded is not kept loading for the next in line
    await foreman.service.target.inventory.refresh()
    simulator.requests.clear()
    yield Real(foreman, simulator)
    await foreman.stop()
    await maybeDeferred(listening.stopListening)


@pytest.mark.parametrize(
    ("trouble", "stream"), [("no-headers", True), ("no-headers", False), ("stall", True), ("stall", False), ("", False)]
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_is_noticed_by_the_target_and_the_next_chat_runs(
    real: Real, trouble: Any, stream: bool
) -> None:
    if trouble:
        real.simulator.misbehave(trouble)
    leaver = await real.begin(stream=stream, options={"num_predict": 100_000})
    await until(lambda: real.simulator.requests_for("/api/chat"))
    following = await real.begin()
    await until(lambda: len(real.foreman.service.target.gate.waiting) == 1)
    if trouble == "stall" and stream:
        await until(lambda: b"content" in leaver.received)
    leaver.leave()
    response = await following.done
    assert (response.status, response.torn) == (200, False)
    assert [seen.outcome for seen in real.simulator.requests_for("/api/chat")] == ["left", "answered"]
    assert real.simulator.max_running <= 1
    following.leave()
    await following.gone


@pytest.mark.skipif(sys.platform != "linux", reason="how a full backlog behaves is the system's own")
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_foreman_connects_leaves_no_attempt_behind() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        with socket.create_connection(busy.getsockname()):
            foreman = await start_foreman(busy.getsockname()[1], connect_timeout="0.3s")
            gate = foreman.service.target.gate
            leaver = await raw_http.connect(foreman.port, "POST")
            leaver.send(chat())
            await until(lambda: gate.running)
            leaver.leave()
            await until(lambda: not gate.running)
            assert not leaver.received
            await leaver.gone
            await foreman.stop()


@pytest_twisted.ensureDeferred
async def test_stopping_in_the_middle_of_an_answer_says_so_in_its_last_line(real: Real) -> None:
    client = await real.begin(options={"num_predict": 100_000})
    await until(lambda: b"content" in client.received)
    await real.foreman.stop()
    response = await client.done
    assert json.loads(response.body.splitlines()[-1]) == {"error": "foreman is stopping; try again soon"}
    await until(lambda: not real.simulator.connections)
