"""Models that load, wait, answer, unload and crash, as a clock is moved by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from support.in_memory_simulator import CHAT, InMemorySimulator


def test_tokens_come_at_their_pace() -> None:
    state = InMemorySimulator(rate=10, prompt_time=1)
    client = state.chat(5)
    state.clock.advance(0.99)
    assert client.received == b""
    for moment, lines in ((0.02, 1), (0.2, 3), (0.2, 5), (0.1, 6)):
        state.clock.advance(moment)
        assert len(client.lines) == lines
    assert client.lines[-1]["done_reason"] == "length"
    assert client.lines[-1]["eval_count"] == 5
    assert client.lines[-1]["prompt_eval_duration"] == 1_000_000_000


def test_each_line_is_one_chunk() -> None:
    client = InMemorySimulator().chat(2)
    chunks = client.received.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert [len(chunk) for chunk in chunks[1::2]] == [int(size, 16) for size in chunks[0:-1:2]]
    assert all(chunk.endswith(b"}\n") for chunk in chunks[1:6:2])
    assert chunks[6:] == [b"0", b"", b""]


def test_a_model_answers_one_after_the_other_in_the_order_they_came() -> None:
    state = InMemorySimulator(rate=10)
    clients = [state.chat() for _ in range(3)]
    state.clock.advance(0.05)
    assert [client.status for client in clients] == [200, 0, 0]
    state.clock.pump([0.1] * 3)
    assert [client.status for client in clients] == [200, 200, 0]
    state.clock.pump([0.1] * 10)
    assert [seen.outcome for seen in state.simulator.requests] == ["answered"] * 3
    assert (state.simulator.running, state.simulator.max_running) == (0, 1)


def test_two_answer_at_once_where_that_is_allowed() -> None:
    state = InMemorySimulator(rate=10, parallel=2)
    clients = [state.chat() for _ in range(3)]
    assert [client.status for client in clients] == [200, 200, 0]
    assert state.simulator.max_running == 2


def test_who_leaves_the_line_of_a_loaded_model_is_forgotten() -> None:
    state = InMemorySimulator(rate=10)
    first, second, third = (state.chat() for _ in range(3))
    second.leave()
    state.clock.pump([0.1] * 4)
    assert (first.status, second.received, third.status) == (200, b"", 200)
    assert [seen.outcome for seen in state.simulator.requests] == ["answered", "left", "open"]


def test_who_leaves_in_the_middle_stops_the_model_at_once() -> None:
    state = InMemorySimulator(rate=10)
    first, second = state.chat(100), state.chat(1)
    state.clock.advance(0.5)
    first.leave()
    assert second.status == 200
    assert state.simulator.running == 1
    lost = state.simulator.lost_connections[0]
    assert (lost.lost_at, lost.request) == (0.5, state.simulator.requests[0])


def test_who_leaves_while_the_model_thinks_about_the_prompt_stops_it_too() -> None:
    state = InMemorySimulator(prompt_time=10)
    first, second = state.chat(), state.chat()
    state.clock.advance(5)
    first.leave()
    state.clock.advance(10)
    assert (first.received, second.status) == (b"", 200)


def test_leaving_gives_a_load_up() -> None:
    state = InMemorySimulator(load_time=5)
    first = state.chat()
    state.clock.advance(4)
    first.leave()
    state.clock.advance(2)
    assert state.simulator.loaded == []
    second = state.chat()
    state.clock.advance(4)
    assert second.received == b""
    state.clock.advance(1)
    assert second.status == 200


def test_a_load_takes_its_time_and_is_seen_only_when_done() -> None:
    state = InMemorySimulator(load_time=2)
    client = state.chat(1)
    assert state.answer("/api/ps", method="GET") == {"models": []}
    state.clock.advance(2)
    assert client.lines[-1]["load_duration"] == 2_000_000_000
    assert [model["name"] for model in state.answer("/api/ps", method="GET")["models"]] == ["tiny-slow:latest"]


def test_a_model_nobody_uses_goes_after_its_time() -> None:
    state = InMemorySimulator(keep_alive=60)
    state.chat(1)
    state.clock.advance(59)
    assert state.simulator.loaded == ["tiny-slow:latest"]
    state.chat(1)
    state.clock.advance(59)
    assert state.simulator.loaded == ["tiny-slow:latest"]
    state.clock.advance(1)
    assert state.simulator.loaded == []


@pytest.mark.parametrize(
    ("keep_alive", "stays"), [("1h", 3600), (90, 90), (1.5, 1.5), ("-1m", math.inf), (-1, math.inf), (0, 0)]
)
def test_the_last_word_about_keep_alive_counts(keep_alive: Any, stays: float) -> None:
    state = InMemorySimulator()
    state.chat(1, keep_alive=keep_alive)
    state.chat(1) if stays else None
    state.clock.advance(min(stays, 1e9) - 0.01 if stays else 0)
    assert state.simulator.loaded == (["tiny-slow:latest"] if stays else [])
    state.clock.advance(0.02)
    assert state.simulator.loaded == (["tiny-slow:latest"] if stays == math.inf else [])


def test_unloading_needs_no_turn_and_disturbs_nobody() -> None:
    state = InMemorySimulator(rate=10)
    client = state.chat(5)
    assert state.answer("/api/generate", {"model": "tiny-slow", "keep_alive": 0})["done_reason"] == "unload"
    assert state.simulator.loaded == ["tiny-slow:latest"]
    state.clock.pump([0.1] * 6)
    assert client.lines[-1]["done"] is True
    assert state.simulator.loaded == []


def test_copies_share_what_is_loaded() -> None:
    state = InMemorySimulator()
    assert state.answer("/api/generate", {"model": "tiny-chat"})["done_reason"] == "load"
    state.ask("/api/chat", {**CHAT, "model": "tiny-chat2"})
    assert state.simulator.loaded == ["tiny-chat:latest"]


def test_another_context_size_loads_anew() -> None:
    state = InMemorySimulator(load_time=1)
    state.chat(1)
    state.clock.advance(1)
    client = state.ask("/api/chat", {**CHAT, "options": {"num_predict": 1, "num_ctx": 8192}})
    assert client.received == b""
    state.clock.advance(1)
    assert client.status == 200
    assert state.answer("/api/ps", method="GET")["models"][0]["context_length"] == 8192


def test_an_idle_model_makes_room_and_a_busy_one_is_waited_for() -> None:
    state = InMemorySimulator(rate=10, max_loaded=1)
    busy = state.chat(5)
    waiting = state.ask("/api/chat", {**CHAT, "model": "tiny-other"})
    state.clock.advance(0.1)
    assert waiting.received == b""
    state.clock.pump([0.1] * 6)
    assert busy.lines[-1]["done"] is True
    assert waiting.status == 200
    assert state.simulator.loaded == ["tiny-other:latest"]


def test_only_waiting_for_a_load_has_an_end_and_who_left_still_counts() -> None:
    state = InMemorySimulator(rate=10, max_loaded=1, max_queue=1)
    state.chat(100)
    waiting = [state.ask("/api/chat", {**CHAT, "model": model}) for model in ("tiny-chat", "tiny-other")]
    for client in waiting:
        client.leave()
    assert state.ask("/api/chat", {**CHAT, "model": "tiny-think"}).status == 503
    assert state.chat(1).received == b""


def test_many_quick_waiters_do_not_pile_up_on_the_stack() -> None:
    state = InMemorySimulator(load_time=1, models=("tiny-chat",))
    clients = [state.ask("/api/chat", {**CHAT, "model": "tiny-chat", "stream": False}) for _ in range(400)]
    state.clock.advance(1)
    assert {client.status for client in clients} == {200}
    state = InMemorySimulator(rate=10)
    first = state.chat(2)
    later = [
        state.ask("/api/generate", {"model": "tiny-slow", "prompt": "x", "options": {"num_predict": 0}})
        for _ in range(400)
    ]
    state.clock.pump([0.1, 0.1, 0.1])
    assert first.lines[-1]["done"] is True
    assert {client.status for client in later} == {200}


def test_a_slow_reader_slows_the_model() -> None:
    state = InMemorySimulator(rate=10)
    client = state.chat(100)
    state.clock.advance(0.25)
    client.transport.producer.pauseProducing()  # type: ignore[union-attr]
    lines = len(client.lines)
    state.clock.advance(60)
    assert len(client.lines) == lines
    client.transport.producer.resumeProducing()  # type: ignore[union-attr]
    state.clock.pump([0.1] * 3)
    assert lines + 2 <= len(client.lines) <= lines + 4


def test_a_crash_ends_every_answer_of_the_model() -> None:
    state = InMemorySimulator(rate=10)
    running, waiting = state.chat(100), state.chat(1)
    state.clock.advance(0.1)
    state.simulator.crash_models()
    assert running.lines[-1] == {"error": "an error was encountered while running the model: unexpected EOF"}
    assert waiting.status == 500
    assert state.simulator.loaded == []
    assert state.chat(1).status == 200


def test_a_server_that_is_down_takes_nobody() -> None:
    state = InMemorySimulator(rate=10)
    client = state.chat(100)
    state.simulator.go_down()
    assert client.transport.disconnecting
    assert state.simulator.buildProtocol(None) is None
    state.simulator.come_back()
    assert state.ask("/", method="GET").received.endswith(b"Ollama is running")


def test_models_come_and_go_by_order() -> None:
    state = InMemorySimulator(models=())
    state.simulator.install("some/thing:1b", "nomic-embed-text")
    assert state.simulator.installed == ["some/thing:1b", "nomic-embed-text:latest"]
    assert state.ask("/api/chat", {**CHAT, "model": "SOME/Thing:1B"}).status == 200
    state.simulator.uninstall("some/thing:1b")
    assert state.ask("/api/chat", {**CHAT, "model": "some/thing:1b"}).status == 404


def test_equal_questions_get_equal_answers_and_others_do_not() -> None:
    def said(**options: Any) -> str:
        answer = InMemorySimulator().answer(
            "/api/chat", {**CHAT, "stream": False, "options": {"num_predict": 8, **options}}
        )
        return str(answer["message"]["content"])

    assert said() == said()
    assert said(seed=5) != said(seed=6)


def test_the_friendly_model_says_what_it_was_asked() -> None:
    answer = InMemorySimulator().answer("/api/chat", {**CHAT, "model": "llama3.2:3b", "stream": False})
    assert "hello" in answer["message"]["content"]
    assert answer["done_reason"] == "stop"


def test_the_friendly_model_uses_the_tool_it_is_given_and_then_answers() -> None:
    properties = {
        "n": {"type": "integer"},
        "unit": {"enum": ["c", "f"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    }
    parameters = {"type": "object", "properties": properties}
    tools = [{"type": "function", "function": {"name": "measure", "parameters": parameters}}]
    target_request = {**CHAT, "model": "llama3.2:3b", "stream": False, "tools": tools}
    call = InMemorySimulator().answer("/api/chat", target_request)["message"]["tool_calls"][0]["function"]
    assert (call["name"], call["arguments"]) == ("measure", {"n": 1, "unit": "c", "tags": ["Paris"]})
    told = [*CHAT["messages"], {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "21"}]
    message = InMemorySimulator().answer("/api/chat", {**target_request, "messages": told})["message"]
    assert "tool_calls" not in message
    assert message["content"]


def test_a_schema_is_followed() -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}, "why": {"anyOf": [{"type": "null"}]}}}
    for form, wanted in (("json", {"answer": "a simulated answer"}), (schema, {"ok": True, "why": None})):
        answer = InMemorySimulator().answer(
            "/api/chat", {**CHAT, "model": "llama3.2:3b", "stream": False, "format": form}
        )
        assert json.loads(answer["message"]["content"]) == wanted


def test_an_image_is_taken_by_a_model_that_sees() -> None:
    messages = [{"role": "user", "content": "what?", "images": ["aGVsbG8="]}]
    assert InMemorySimulator().ask("/api/chat", {"model": "llava:7b", "messages": messages}).status == 200
    assert InMemorySimulator().ask("/api/chat", {"model": "llama3.2:3b", "messages": messages}).status == 400


def test_vectors_have_length_one_and_follow_the_words() -> None:
    texts = ["a red house", "a red boat", "cheese"]
    house, boat, cheese = InMemorySimulator().answer("/api/embed", {"model": "nomic-embed-text", "input": texts})[
        "embeddings"
    ]
    again = InMemorySimulator().answer("/api/embed", {"model": "nomic-embed-text", "input": texts[0]})["embeddings"]

    def product(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert again == [house]
    assert len(house) == 768
    assert product(house, house) == pytest.approx(1, abs=1e-5)
    assert product(house, boat) > 0.4 > product(house, cheese)


def test_requests_are_remembered_as_they_came() -> None:
    state = InMemorySimulator()
    body = {**CHAT, "options": {"num_predict": 1}}
    state.ask("/api/%63hat?x=%20y", body, headers="X-Odd: Case \r\nx-odd: again\r\n")
    seen = state.simulator.requests[0]
    assert (seen.method, seen.path, seen.status, seen.outcome) == ("POST", "/api/%63hat?x=%20y", 200, "answered")
    assert seen.headers[:3] == [("Host", "localhost"), ("X-Odd", "Case"), ("x-odd", "again")]
    assert json.loads(seen.body) == body
    assert state.simulator.requests_for("/api/chat") == []


def test_pulling_shows_progress_installs_and_stops_when_nobody_waits() -> None:
    state = InMemorySimulator(models=(), load_time=10)
    client = state.ask("/api/pull", {"model": "new:1b"})
    state.clock.pump([0.5] * 25)
    assert [line["status"] for line in client.lines[:2]] == [
        "pulling manifest",
        f"pulling {client.lines[1]['digest'][7:19]}",
    ]
    assert client.lines[-1] == {"status": "success"}
    assert client.lines[11]["completed"] == client.lines[11]["total"]
    assert state.simulator.installed == ["new:1b"]
    other = state.ask("/api/pull", {"model": "other"})
    state.clock.advance(3)
    other.leave()
    state.clock.advance(60)
    assert state.simulator.installed == ["new:1b"]
    assert state.ask("/api/pull", {"model": "nope", "stream": False}).status == 500
