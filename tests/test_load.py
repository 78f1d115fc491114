"""Many callers at once, readers that stop reading, and a target that dies at any moment, with real processes."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.processes import (
    ENDLESS_MODEL,
    ForemanProcess,
    TargetProcess,
    chat,
    endless_chat,
    is_complete,
    run_foreman,
    run_target,
)
from support.raw_http import Response

ROUTES = ("/api/chat", "/v1/chat/completions", "/v1/messages")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetProcess]:
    # It would answer several at once, so that foreman alone keeps them apart.
    with run_target(tmp_path_factory.mktemp("target"), rate=1000, parallel=8) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def daemon(simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanProcess]:
    with run_foreman(tmp_path_factory.mktemp("foreman"), simulator.url, poll_interval="1h") as daemon:
        yield daemon


def test_a_hundred_chats_take_turns_in_the_order_they_came_and_nothing_else_waits_for_them(
    simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    texts = [f"chat-{number:03}" for number in range(100)]
    with daemon.call("/api/chat", endless_chat("the first")) as first:
        first.read_until(b'"content"')
        calls = []
        for number, text in enumerate(texts):
            # Only one that is known to wait has surely come before the next.
            calls.append(daemon.call(ROUTES[number % 3], chat(text, tokens=6, stream=number % 2 == 0)))
            daemon.wait_for_queue(number + 1)
        embeddings = [
            daemon.call("/api/embed", {"model": "nomic-embed-text", "input": f"embedding {number}"})
            for number in range(50)
        ]
        for answer in [call.rest() for call in embeddings]:
            assert answer.status == 200
            assert len(json.loads(answer.body)["embeddings"][0]) == 768
        assert len(json.loads(daemon.ask("GET", "/api/tags").body)["models"]) > 10
        assert simulator.requests("the first")[0].outcome == "open"
        assert len(daemon.get("/queue")["waiting"]) == 100
    answers = [call.rest() for call in calls]
    for text, answer in zip(texts, answers, strict=True):
        assert answer.status == 200
        assert not answer.torn
        assert text.encode() in answer.body
    chats = [each for each in simulator.requests() if each.path in ROUTES]
    assert [json.loads(each.body)["messages"][0]["content"] for each in chats] == ["the first", *texts]
    for one, following in pairwise(chats):
        assert one.ended_at <= following.received_at, f"{following.body} came while {one.body} was being answered"


def test_a_hundred_who_wait_may_leave_at_once_and_the_target_never_hears_of_them(
    simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    with daemon.call("/api/chat", endless_chat("in front of leavers")) as in_front:
        in_front.read_until(b'"content"')
        leavers = [daemon.call(ROUTES[number % 3], chat("leaver")) for number in range(100)]
        patient = daemon.call("/api/chat", chat("patient", stream=True))
        daemon.wait_for_queue(101)
        for leaver in leavers:
            leaver.leave()
        daemon.wait_for_queue(1)
    assert is_complete(patient.rest())
    assert not simulator.requests('"leaver"')


def test_a_reader_that_stops_reading_an_ordinary_answer_does_not_hold_the_turn(
    simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    simulator.inject_fault("long-line", size=4_000_000)
    with daemon.open("POST", "/api/chat", chat("unread", stream=True), receive_buffer=4096) as unread:
        following = daemon.ask("POST", "/api/chat", chat("the next", stream=True))
        assert is_complete(following)
        assert simulator.requests("unread")[0].outcome == "answered"
        assert len(unread.received) == 0
        answer = unread.rest()
    assert len(answer.body) > 4_000_000
    assert is_complete(answer)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
@pytest.mark.parametrize(
    ("method", "path", "payload"),
    [
        ("POST", "/api/chat", endless_chat("too much", logprobs=True, top_logprobs=20)),
        ("GET", "/simulator/bytes/200000000", None),
    ],
    ids=["chat", "bytes"],
)
def test_a_reader_that_stops_reading_an_endless_answer_costs_its_buffer_and_the_stall_limit(
    method: str, path: str, payload: Any, tmp_path: Path
) -> None:
    settings = {"buffer": "8MiB", "stall_timeout": "2s"}
    with run_target(tmp_path, parallel=8) as simulator, run_foreman(tmp_path, simulator.url, **settings) as daemon:
        daemon.ask("POST", "/api/chat", chat("warm"))
        before = daemon.memory()
        daemon.reset_peak_memory()
        with daemon.open(method, path, payload, receive_buffer=4096) as unread:
            if path == "/api/chat":
                assert len(daemon.get("/queue")["running"]) == 1
            following = daemon.ask("POST", "/api/chat", chat("the next", stream=True))
            assert is_complete(following)
            simulator.abandoned(path)
            assert daemon.memory("VmHWM") - before < 40 * MIB
            answer = unread.rest()
            assert 0 < len(unread.received) < 40 * MIB
        assert answer.torn
        assert not is_complete(answer)
        assert daemon.log_lines(path, "took nothing for 2 s")


STREAMS = (
    ("/api/chat", endless_chat("native")),
    ("/v1/chat/completions", endless_chat("openai")),
    ("/v1/responses", {"model": ENDLESS_MODEL, "input": "responses", "stream": True, "max_output_tokens": 10_000_000}),
    ("/v1/messages", endless_chat("anthropic")),
    ("/api/chat", endless_chat("unstreamed") | {"stream": False}),
)
#: One that may be whole before the target dies.
SHORT = ("/api/chat", chat("short", tokens=15, stream=True))


def visibly_broken(path: str, response: Response) -> bool:
    """Whether any client of the route sees that the answer is not whole."""
    if response.status != 200:
        error = json.loads(response.body)["error"]
        text = error if path.startswith("/api") else error["message"]
        return response.status == 502 and bool(text) and not response.torn
    if is_complete(response):
        return False
    if path.startswith("/api"):
        lines = response.body.splitlines(keepends=True)
        return response.torn or "error" in json.loads(lines[-1])
    last = response.body.rpartition(b"data: ")[2]
    return response.torn or (last.endswith(b"\n\n") and "error" in json.loads(last))


def text_of(response: Response) -> str:
    """What a streamed native chat says."""
    return "".join(json.loads(line)["message"]["content"] for line in response.body.splitlines())


def test_a_target_killed_at_thirty_random_moments_never_leaves_an_answer_that_looks_complete(tmp_path: Path) -> None:
    moments = random.Random(1)
    begun, whole = 0, 0
    with (
        run_target(tmp_path, rate=300, parallel=8) as simulator,
        run_foreman(tmp_path, simulator.url, turns="6") as daemon,
    ):
        said = text_of(daemon.ask("POST", *SHORT))
        for number in range(30):
            calls = [(path, daemon.call(path, payload)) for path, payload in STREAMS]
            short = daemon.call(*SHORT)
            if number == 0:
                short.read_until(b'"done":true')  # on a slow machine no other may get so far
            time.sleep(moments.uniform(0, 0.1))
            simulator.kill()
            for path, call in calls:
                answer = call.rest()
                begun += answer.status == 200 and len(answer.body) > 0
                assert visibly_broken(path, answer), answer
            answer = short.rest()
            whole += is_complete(answer)
            assert visibly_broken("/api/chat", answer) or text_of(answer) == said, answer
            simulator.start()
        assert is_complete(daemon.ask("POST", "/api/chat", chat("after all", stream=True)))
    assert begun > 30
    assert 0 < whole < 30
