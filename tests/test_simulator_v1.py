"""What OpenAI's and Anthropic's requests may hold, and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from foreman.simulator import Settings, main
from support.in_memory_simulator import CHAT, InMemorySimulator

PNG = "data:image/png;base64,aGVsbG8="
TOOL = {"name": "measure", "parameters": {"type": "object", "properties": {"n": {"type": "number"}}}}
ANTHROPIC_TOOL = {"name": "measure", "input_schema": TOOL["parameters"]}


def chat(path: str = "/v1/chat/completions", **body: Any) -> Any:
    """The answer to a chat that is sent at once."""
    messages = [{"role": "user", "content": "hello"}]
    return InMemorySimulator().answer(path, {"model": "llama3.2:3b", "messages": messages, "max_tokens": 100, **body})


def events(path: str, body: Any) -> list[Any]:
    """The JSON of all events of a stream."""
    state = InMemorySimulator()
    client = state.ask(path, {"model": "llama3.2:3b", "stream": True, **body})
    state.clock.pump([0.0] * 5)
    return [json.loads(line[6:]) for line in client.received.split(b"\n") if line.startswith(b"data: {")]


@pytest.mark.parametrize(
    ("model", "content", "error"),
    [
        ("llama3.2:3b", [{"type": "text", "text": "hello"}], None),
        ("llava:7b", [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": PNG}}], None),
        ("llava:7b", [{"type": "image_url", "image_url": PNG}, {"type": "text", "text": "hello"}], None),
        ("llava:7b", [{"type": "image_url", "image_url": "data:image/gif;base64,aaaa"}], "invalid image input"),
        ("llava:7b", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,@"}}], "invalid image input"),
        ("llama3.2:3b", [{"type": "input_audio", "input_audio": {}}], "Multimodal data provided"),
        ("llama3.2:3b", [{"type": "dance"}], "invalid message format"),
        ("llama3.2:3b", 5, "invalid message content type"),
    ],
)
def test_a_message_may_have_parts(model: str, content: Any, error: str | None) -> None:
    answer = chat(model=model, messages=[{"role": "user", "content": content}])
    if error is None:
        assert "hello" in answer["choices"][0]["message"]["content"]
    else:
        assert error in answer["error"]["message"]


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"answer": "a simulated answer"}),
        ({"type": "json_schema", "json_schema": {"schema": TOOL["parameters"]}}, {"n": 1.5}),
    ],
)
def test_the_answer_has_the_form_that_was_asked_for(form: Any, wanted: Any) -> None:
    content = chat(response_format=form)["choices"][0]["message"]["content"]
    assert content.startswith("You said") if wanted is None else json.loads(content) == wanted


def test_a_text_that_stops_is_not_said_to_its_end() -> None:
    for stop in (["only"], "only"):
        choice = chat(stop=stop)["choices"][0]
        assert choice["message"]["content"].endswith("I am ")
        assert choice["finish_reason"] == "stop"


def test_probabilities_come_with_each_token() -> None:
    content = chat(logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in content[:2]] == ["You", " said:"]
    streamed = events("/v1/chat/completions", {**CHAT, "model": "llama3.2:3b", "logprobs": True, "max_tokens": 2})
    assert streamed[1]["choices"][0]["logprobs"]["content"][0]["token"] == " said:"


def test_thinking_can_be_chosen() -> None:
    for effort, shown in (("none", False), ("low", True), ("xhigh", True)):
        message = chat(model="qwen3:8b", reasoning_effort=effort)["choices"][0]["message"]
        assert ("reasoning" in message) is shown
        assert "<think>" not in message["content"]


def test_a_bad_reasoning_or_embedding_request_is_refused() -> None:
    assert "invalid reasoning value" in chat(reasoning={"effort": "huge"})["error"]["message"]
    for body in ({"encoding_format": "hex"}, {"input": [1]}, {"model": ""}, {"model": "llama3.2:3b"}):
        answer = InMemorySimulator().answer("/v1/embeddings", {"model": "tiny-embed", "input": "x", **body})
        assert answer["error"]["message"]


def test_a_suffix_needs_a_model_that_inserts() -> None:
    for path in ("/v1/completions", "/api/generate"):
        answer = InMemorySimulator().answer(path, {"model": "tiny-chat", "prompt": "a", "suffix": "b"})
        assert "does not support insert" in json.dumps(answer)


def test_responses_take_a_list_of_items_and_instructions() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "function_call", "name": "measure", "arguments": "{}"},
        {"type": "function_call_output", "output": "21"},
    ]
    tools = [{"type": "function", **TOOL}]
    answer = InMemorySimulator().answer(
        "/v1/responses", {"model": "llama3.2:3b", "input": items, "instructions": "be brief", "tools": tools}
    )
    assert [item["type"] for item in answer["output"]] == ["message"]
    assert answer["instructions"] == "be brief"
    answer = InMemorySimulator().answer("/v1/responses", {"model": "llama3.2:3b", "input": "hello", "tools": tools})
    assert [(item["type"], item["arguments"]) for item in answer["output"]] == [("function_call", '{"n":1.5}')]
    answer = InMemorySimulator().answer("/v1/responses", {"model": "qwen3:8b", "input": "hello"})
    assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]


@pytest.mark.parametrize("value", [5, [5], None])
def test_responses_refuse_what_is_no_input(value: Any) -> None:
    assert (
        "input"
        in InMemorySimulator().answer("/v1/responses", {"model": "llama3.2:3b", "input": value})["error"]["message"]
    )


def test_messages_take_blocks_system_tools_and_their_results() -> None:
    asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    answer = chat("/v1/messages", messages=asked, system=[{"type": "text", "text": "be brief"}], tools=[ANTHROPIC_TOOL])
    assert answer["content"][0]["input"] == {"n": 1.5}
    asked.append({"role": "user", "content": [{"type": "tool_result", "content": "21"}]})
    answer = chat("/v1/messages", messages=asked, tools=[ANTHROPIC_TOOL])
    assert "21" in answer["content"][0]["text"]
    answer = chat("/v1/messages", model="qwen3:8b", thinking={"type": "enabled", "budget_tokens": 9})
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
    answer = chat("/v1/messages", model="qwen3:8b", thinking={"type": "disabled"})
    assert [block["type"] for block in answer["content"]] == ["text"]
    picture = [{"role": "user", "content": [{"type": "image"}]}]
    assert "Multimodal" in chat("/v1/messages", messages=picture)["error"]["message"]
    assert "unmarshal" in chat("/v1/messages", messages=["hello"])["error"]["message"]


def test_nothing_said_is_a_whole_answer_too() -> None:
    assert events("/v1/messages", {**CHAT, "model": "tiny-chat", "max_tokens": 1})[-1]["type"] == "message_stop"
    for path in ("/v1/chat/completions", "/v1/completions"):
        last = events(path, {"model": "tiny-chat", "prompt": "x", "messages": CHAT["messages"], "max_tokens": 0})[-1]
        assert last["choices"][0]["finish_reason"]


def test_a_form_without_its_parts_is_refused() -> None:
    state = InMemorySimulator()
    assert "isn't multipart" in state.answer("/v1/audio/transcriptions", {})["error"]["message"]
    for parts, missing in (({"file": "x"}, "model"), ({"model": "tiny-chat"}, "file")):
        body = "".join(f'--b\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in parts.items())
        client = InMemorySimulator().ask("/", None, "GET")
        client.transport.clear()
        head = (
            "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b"
        )
        client.protocol.dataReceived(f"{head}\r\nContent-Length: {len(body) + 5}\r\n\r\n{body}--b--".encode())
        assert client.lines[0]["error"]["message"] == f"{missing} is required"


COMPACTED = {
    "model": "llama3.2:3b",
    "input": [{"role": "user", "content": "hello"}, {"role": "user", "content": "and?"}],
}


def test_a_conversation_is_compacted_and_goes_on_from_there() -> None:
    state = InMemorySimulator()
    answer = state.answer("/v1/responses/compact", COMPACTED)
    assert answer["object"] == "response.compaction"
    (item,) = answer["output"]
    assert json.loads(item["encrypted_content"])["type"] == "ollama_compaction"
    going_on = {"model": "llama3.2:3b", "input": [item, {"role": "user", "content": "go on"}]}
    assert "go on" in state.answer("/v1/responses", going_on)["output"][0]["content"][0]["text"]


def test_a_compaction_says_nothing_before_it_is_done() -> None:
    state = InMemorySimulator(rate=2.0)
    body = {**COMPACTED, "input": [*COMPACTED["input"], {"type": "compaction_trigger"}], "stream": True}
    client = state.ask("/v1/responses", body)
    state.clock.pump([0.5] * 3)
    assert client.received == b""
    state.clock.pump([0.5] * 10)
    kinds = [line[7:].decode() for line in client.received.split(b"\n") if line.startswith(b"event: ")]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


@pytest.mark.parametrize("version", ["0.33.0", "0.33.0-rc2", "0.24.0", "0.9"])
def test_an_older_version_knows_nothing_of_what_came_later(version: str) -> None:
    state = InMemorySimulator(version=version)
    assert b"404 page not found" in state.ask("/v1/responses/compact", COMPACTED).received
    assert state.answer("/v1/responses", {"MODEL": "llama3.2:3b", "input": "hello"})["status"] == "completed"
    usage = state.answer(
        "/v1/chat/completions", {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "a"}]}
    )
    assert list(usage["usage"]) == ["prompt_tokens", "completion_tokens", "total_tokens"]
    assert state.answer("/api/version", method="GET") == {"version": version}


@pytest.mark.parametrize("version", ["0.34.0", "0.34.4", "0.100.1", "1.0"])
def test_a_newer_version_is_as_the_newest_that_was_recorded(version: str) -> None:
    state = InMemorySimulator(version=version)
    asked = {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "the same again"}], "max_tokens": 3}
    first, second = (state.answer("/v1/messages", asked)["usage"] for _ in range(2))
    assert first["cache_read_input_tokens"] == 0
    assert second["input_tokens"] == 1
    assert second["input_tokens"] + second["cache_read_input_tokens"] == first["input_tokens"]
    refused = state.answer("/v1/responses", {"MODEL": "llama3.2:3b", "input": "hello"})
    assert refused["error"]["message"] == "model is required"


def test_the_program_says_where_it_listens_or_why_it_cannot() -> None:
    said: list[str] = []
    assert (
        main.run(Settings(models=("a", "b")), MemoryReactorClock(), "tcp:11434:interface=127.0.0.1", said.append) == 0
    )
    assert said[0].startswith("the simulator listens on ")
    assert said[0].endswith(" with a:latest, b:latest")
    assert main.run(Settings(), MemoryReactorClock(), "nonsense:1", said.append) == 1
    assert said[1].startswith("the simulator cannot listen on nonsense:1: ")
    assert said[1].endswith("; --listen selects another address")
