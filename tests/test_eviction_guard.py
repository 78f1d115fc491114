"""Where the target holds one model only, embeddings wait a little for the chats, and then run together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from foreman import errors
from foreman.protocol import model_names
from foreman.proxy.eviction_guard import FOLLOW_TIME, MAX_FOLLOW_TIME, MAX_HOLD, RECHECK
from foreman.scheduling.policy import Ticket
from foreman.simulator import Settings, Simulator
from foreman.simulator.engine.scheduler import Scheduler
from foreman.target.listings import Running
from foreman.target.model_conflicts import LOAD_TIME, REMEMBERED, ModelConflicts
from foreman.util.clock import EpochSeconds
from support.fake_target import LAST
from support.inference_harness import InferenceHarness, RunningRequest
from support.live_foreman import listen, port_of, start_foreman, target_client

reactor: Any = installed_reactor

START = datetime(2026, 11, 28, tzinfo=UTC)
JSON = [(b"Content-Type", b"application/json")]
HELLO = [{"role": "user", "content": "hi"}]


# what the lists tell


class Lists:
    """Lists of what is loaded, one after another."""

    def __init__(self) -> None:
        self.conflicts = ModelConflicts()
        self.at = 0.0

    def saw(self, *loaded: str, after: float = 1.0, expires: float = 300.0, dated: bool = True) -> None:
        self.at += after
        now = START + timedelta(seconds=self.at)
        until = (now + timedelta(seconds=expires)).isoformat()
        headers = [(b"Date", format_datetime(now, usegmt=True).encode())] if dated else []
        self.conflicts.record_list([Running(name, expires_at=until) for name in loaded], headers, self.at, self.at)

    def are(self, one: str, other: str) -> bool:
        key = model_names.parse(other).key
        return key in self.conflicts.of(one, self.at)


def test_a_model_that_is_gone_too_early_made_room_for_the_one_that_came() -> None:
    lists = Lists()
    lists.saw("chat:latest")
    assert not lists.are("chat", "embed")
    lists.saw("embed:latest")
    assert lists.are("chat", "EMBED:latest")
    assert lists.are("library/embed", "chat")
    assert not lists.are("chat", "other")
    assert not lists.are("no good:", "chat")


def test_a_load_that_takes_its_time_is_the_reason_nevertheless() -> None:
    lists = Lists()
    lists.saw("chat")
    lists.saw()
    lists.saw("embed", after=60)
    assert lists.are("chat", "embed")
    lists.saw()
    lists.saw("third", after=LOAD_TIME + 1)
    assert not lists.are("embed", "third")


def test_a_model_that_has_expired_or_was_unloaded_made_no_room() -> None:
    lists = Lists()
    lists.saw("chat", expires=10)
    lists.saw("embed", after=20)
    assert not lists.are("chat", "embed")
    lists.conflicts.record_unload("embed:latest")
    lists.saw("chat")
    assert not lists.are("chat", "embed")


def test_a_model_that_has_answered_and_is_not_listed_had_to_make_room() -> None:
    """Where another waits for its load already, the one that has answered is never seen."""
    lists = Lists()
    lists.saw("chat")
    lists.conflicts.record_answer("embed", "e" * 64, lists.at)
    lists.saw("chat", after=0.0)
    assert lists.are("chat", "embed")


def test_a_list_that_was_asked_for_before_an_answer_says_nothing_of_it() -> None:
    lists = Lists()
    lists.saw("chat")
    lists.conflicts.record_answer("embed", "", lists.at + 2)
    lists.saw("chat", after=1)
    assert not lists.are("chat", "embed")
    lists.saw("chat", after=30)
    assert not lists.are("chat", "embed")


def test_a_model_that_is_loaded_by_another_name_is_there() -> None:
    lists = Lists()
    lists.conflicts.record_answer("other", "d" * 64, 0.0)
    running = [Running("chat", expires_at="2030-01-01T00:00:00Z"), Running("same", digest="d" * 64)]
    lists.conflicts.record_list(running, [(b"Date", b"Sat, 28 Nov 2026 00:00:00 GMT")], 0.0, 0.0)
    assert not lists.are("chat", "other")


def test_a_target_that_keeps_no_model_teaches_nothing() -> None:
    lists = Lists()
    lists.conflicts.record_answer("embed", "", 0.0)
    lists.saw("chat", after=0.0, expires=0.0)
    assert not lists.are("chat", "embed")


def test_models_that_are_loaded_together_fit_and_nothing_is_believed_for_ever() -> None:
    lists = Lists()
    lists.saw("chat")
    lists.saw("embed")
    lists.saw("embed", "chat")
    assert not lists.are("chat", "embed")
    lists.saw("chat")
    lists.saw("embed")
    assert lists.are("chat", "embed")
    lists.at += REMEMBERED + 1
    assert not lists.are("chat", "embed")


def test_lists_without_a_date_or_with_odd_times_teach_nothing() -> None:
    lists = Lists()
    lists.saw("chat")
    lists.saw("embed", dated=False)
    assert not lists.are("chat", "embed")
    for moment in (
        "",
        "soon",
        "9999-12-31T23:59:59-23:59",
        "2026-11-28",
        "0001-01-01T00:00:00Z",
        "\ud83d",
        "9" * 10_000,
    ):
        conflicts = ModelConflicts()
        date = [(b"Date", b"Sat, 28 Nov 2026 00:00:00 GMT")]
        conflicts.record_list([Running("chat", expires_at=moment)], date, 1.0, 1.0)
        conflicts.record_list([Running("embed")], date, 2.0, 2.0)
        assert not conflicts.of("chat", 2.0) or moment.startswith("9999")
    for value in (b"", b"never", b"Sat, 28 Nov 99999999999 00:00:00 GMT", b"\xff" * 10_000):
        conflicts.record_list([Running("chat")], [(b"Date", value)], 3.0, 3.0)


def test_what_is_kept_of_many_pairs_is_bounded() -> None:
    lists = Lists()
    for number in range(2000):
        lists.saw(f"m{number}", after=0.1)
    assert len(lists.conflicts._pairs) <= 256
    assert lists.are("m1999", "m1998")


# who waits for whom


@pytest.fixture
def work() -> InferenceHarness:
    """A target that was seen to hold either ``llama3`` or ``embed``."""
    made = InferenceHarness()
    conflicts = made.inference.target.inventory.conflicts
    date = [(b"Date", b"Sat, 28 Nov 2026 00:00:00 GMT")]
    conflicts.record_list([Running("llama3", expires_at="2026-11-28T00:05:00Z")], date, 0.0, 0.0)
    conflicts.record_list([Running("embed", expires_at="2026-11-28T00:05:00Z")], date, 0.0, 0.0)
    return made


def embedding(work: InferenceHarness) -> RunningRequest:
    return work.ask("/api/embed", model="embed")


def paths(work: InferenceHarness) -> list[bytes]:
    return [call.head for call in work.target.calls]


def wait(work: InferenceHarness, seconds: float) -> None:
    for _ in range(round(seconds / RECHECK)):
        work.clock.advance(RECHECK)


def test_embeddings_wait_while_a_chat_runs_and_go_together_when_it_is_over(work: InferenceHarness) -> None:
    work.ask()
    askings = [embedding(work) for _ in range(4)]
    assert paths(work) == [b"POST /api/chat"]
    wait(work, 3)
    work.target.calls[0].begin().say(LAST).end()
    wait(work, 1)
    assert paths(work)[1:] == [b"POST /api/embed"] * 4
    for call in work.target.calls[1:]:
        call.begin(headers=JSON).say(b"{}").end()
    assert [asking.results for asking in askings] == [[None]] * 4
    assert len(work.inference.target.embeddings.running) == 0


def test_no_embedding_waits_longer_than_the_bound_however_many_chats_there_are(work: InferenceHarness) -> None:
    chats = [work.ask() for _ in range(20)]
    first = embedding(work)
    wait(work, MAX_HOLD - 1)
    embedding(work)
    assert paths(work) == [b"POST /api/chat"]
    wait(work, 2)
    assert paths(work)[1:] == [b"POST /api/embed"] * 2  # together
    embedding(work)
    assert paths(work)[1:] == [b"POST /api/embed"] * 3
    work.target.calls[1].begin(headers=JSON).say(b"{}").end()
    assert first.results == [None]
    wait(work, FOLLOW_TIME - 1)
    embedding(work)
    assert len(paths(work)) == 5
    wait(work, 2)
    last = embedding(work)  # the chats have their turn again
    assert len(paths(work)) == 5
    last.leave()
    for chat in chats:
        chat.leave()


def test_those_that_go_together_keep_the_way_open_for_a_bounded_time(work: InferenceHarness) -> None:
    work.ask()
    embedding(work)
    wait(work, MAX_HOLD + 1)
    assert len(paths(work)) == 2  # and it is never answered
    wait(work, MAX_FOLLOW_TIME)
    embedding(work)
    assert len(paths(work)) == 2


@pytest.mark.parametrize("model", ["other", "embed"])
def test_where_both_fit_nobody_waits(work: InferenceHarness, model: str) -> None:
    if model == "embed":
        work.inference.target.inventory.conflicts.record_list([Running("embed"), Running("llama3")], [], 0.0, 0.0)
    work.ask()
    work.ask("/api/embed", model=model)
    assert paths(work) == [b"POST /api/chat", b"POST /api/embed"]


def test_without_a_chat_nobody_waits(work: InferenceHarness) -> None:
    embedding(work)
    assert paths(work) == [b"POST /api/embed"]
    assert not [call for call in work.clock.getDelayedCalls() if call.getTime() <= RECHECK]


def test_who_leaves_while_it_waits_is_never_asked_for(work: InferenceHarness) -> None:
    work.ask()
    asking = embedding(work)
    asking.leave()
    work.target.calls[0].begin().say(LAST).end()
    wait(work, MAX_HOLD + 1)
    assert paths(work) == [b"POST /api/chat"]


def test_how_many_wait_is_bounded() -> None:
    made = InferenceHarness(max_queue=3)
    date = [(b"Date", b"Sat, 28 Nov 2026 00:00:00 GMT")]
    made.inference.target.inventory.conflicts.record_list(
        [Running("llama3", expires_at="2026-11-28T00:05:00Z")], date, 0.0, 0.0
    )
    made.inference.target.inventory.conflicts.record_list([Running("embed")], date, 0.0, 0.0)
    made.ask()
    askings = [embedding(made) for _ in range(4)]
    assert isinstance(askings[3].problem, errors.QueueFull)
    made.inference.close()
    assert all(isinstance(asking.problem, errors.Draining) for asking in askings[:3])


def held(made: InferenceHarness, caller: str, model: str = "embed") -> list[Any]:
    """What comes of an embedding of ``caller``: a turn, or a failure."""
    results: list[Any] = []
    ticket = Ticket("an id", caller, model, "/api/embed", EpochSeconds(0.0))
    made.inference.enter(made.inference.target.embeddings, ticket).addBoth(results.append)
    return results


def test_of_those_that_wait_for_chats_one_caller_has_a_share(work: InferenceHarness) -> None:
    work.inference.target.embeddings.max_queue = 16
    work.ask()
    greedy = [held(work, "greedy") for _ in range(30)]
    refused = [one for one in greedy if one]
    assert all(one[0].check(errors.QueueFull) for one in refused)
    assert 0 < len(refused) < 30
    assert held(work, "other") == []


def test_those_that_wait_for_chats_and_those_that_wait_for_a_turn_share_one_bound(work: InferenceHarness) -> None:
    embeddings = work.inference.target.embeddings
    embeddings.max_queue = 16
    work.ask()
    running = [held(work, "someone", "other") for _ in range(8)]
    waiting = [held(work, f"{number}", "other") for number in range(8)]
    others = [held(work, f"{number + 8}") for number in range(9)]
    assert all(len(one) == 1 for one in running)
    assert [len(one) for one in waiting] == [0] * 8
    assert [len(one) for one in others] == [0] * 8 + [1]
    assert others[8][0].check(errors.QueueFull)
    work.target.calls[0].begin().say(LAST).end()
    wait(work, 1)  # nobody who has waited loses its place on the way to the turns
    assert [len(one) for one in others[:8]] == [0] * 8
    assert (len(embeddings.waiting), embeddings.held) == (16, {})
    for one in running:
        one[0].release()
    work.turn()
    assert [len(one) for one in waiting] == [1] * 8


def test_an_embedding_that_waits_for_chats_is_told_where_it_stands(work: InferenceHarness) -> None:
    work.ask()
    askings = [embedding(work) for _ in range(3)]
    for number, asking in enumerate(askings, 1):
        assert asking.responder.place is not None
        assert asking.responder.place().position == number
    askings[0].leave()
    work.clock.advance(1)
    assert askings[2].responder.place is not None
    assert askings[2].responder.place().position == 2
    work.target.calls[0].begin().say(LAST).end()
    wait(work, 2)
    assert askings[2].responder.place().position == 0
    assert work.inference.target.embeddings.held == {}


def test_a_model_that_was_loaded_for_a_request_makes_foreman_look_what_had_to_go(work: InferenceHarness) -> None:
    asked = work.target.polls
    work.ask("/api/embed", model="third")
    work.target.calls[-1].begin(headers=JSON)
    assert work.target.polls == asked + 1


# in front of a target that holds one model


@pytest_twisted.ensureDeferred
async def test_chats_and_embeddings_at_once_do_not_load_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    loaded = Scheduler._loaded

    def counted(scheduler: Scheduler, waiting: Any) -> None:
        loads.append(waiting.model.name)
        loaded(scheduler, waiting)

    monkeypatch.setattr(Scheduler, "_loaded", counted)
    simulator = Simulator(reactor, Settings(max_loaded=1, rate=100))
    listening = listen(simulator)
    foreman = await start_foreman(port_of(listening))
    client = target_client(foreman.port)

    async def chat() -> None:
        for _ in range(8):
            await client.chat({"model": "llama3.2:3b", "messages": HELLO, "options": {"num_predict": 5}})

    async def embed() -> None:
        for _ in range(8):
            await client.embed({"model": "tiny-embed", "input": "a"})

    try:
        everybody = [Deferred.fromCoroutine(work()) for work in (chat, chat, embed, embed)]
        await gatherResults(everybody)
    finally:
        await foreman.stop()
        await maybeDeferred(listening.stopListening)
    assert len(loads) <= 8  # of 32 requests; without foreman's waiting it is about one for each
