"""The real client packages through a real foreman: what works with Ollama works the same, and nothing broken looks whole."""

from __future__ import annotations

import asyncio
import json
import os
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_ollama import OllamaEmbeddings, OllamaLLM

from support.client_libraries import LIBRARIES, MODEL, ClientLibrary, LangChain, user_message
from support.processes import (
    ENDLESS_MODEL,
    TIMEOUT,
    ForemanProcess,
    InThread,
    TargetProcess,
    endless_chat,
    run_foreman,
    run_target,
    until,
)

THINKING_MODEL, VISION_MODEL, EMBEDDING_MODEL = "qwen3:8b", "llava:7b", "nomic-embed-text"
TOKEN = "correct-horse-battery-staple"
#: More tokens than any test waits for.
MANY = 10_000_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PERSON = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}


@pytest.fixture(scope="module", autouse=True)
def _plain_environment() -> Iterator[None]:
    """No proxy, key or address of whoever runs the tests reaches the clients."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("OLLAMA_", "OPENAI_", "ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_")):
                patch.delenv(name)
            if name.lower().endswith("_proxy"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetProcess]:
    # It would answer several at once, so that nobody waits but for foreman.
    with run_target(tmp_path_factory.mktemp("target"), rate=400, parallel=8, max_loaded=20) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def daemon(simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanProcess]:
    with run_foreman(tmp_path_factory.mktemp("foreman"), simulator.url, poll_interval="1h") as daemon:
        yield daemon


@pytest.fixture(scope="module")
def locked(simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanProcess]:
    """A foreman that asks for a token."""
    with run_foreman(tmp_path_factory.mktemp("locked"), simulator.url, auth_token=TOKEN) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guessed_at(
    kind: type[ClientLibrary], simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForemanProcess]:
    """Likewise, one for each library: of one address only some unknown tokens are answered with 401."""
    with run_foreman(tmp_path_factory.mktemp("guessed"), simulator.url, auth_token=TOKEN) as daemon:
        yield daemon


# -- the clients, each asked in the ways that all of them have


@pytest.fixture(scope="module", params=LIBRARIES.values(), ids=list(LIBRARIES))
def kind(request: pytest.FixtureRequest) -> type[ClientLibrary]:
    """Each of the libraries in turn."""
    kind: type[ClientLibrary] = request.param
    return kind


@contextmanager
def at(kind: type[ClientLibrary], url: str, token: str | None = None) -> Iterator[ClientLibrary]:
    peer = kind(url, token)
    try:
        yield peer
    finally:
        peer.close()


@pytest.fixture(scope="module")
def peer(kind: type[ClientLibrary], daemon: ForemanProcess) -> Iterator[ClientLibrary]:
    """Each of the libraries in turn, in front of foreman."""
    with at(kind, daemon.url) as peer:
        yield peer


# -- what every library can do


def test_a_chat_says_the_same_as_without_foreman(
    kind: type[ClientLibrary], peer: ClientLibrary, simulator: TargetProcess
) -> None:
    with at(kind, simulator.url) as direct:
        told = direct.whole(MODEL, "hello there")
        assert "hello there" in told
        assert InThread(lambda: peer.whole(MODEL, "hello there")).result() == told


def test_a_streamed_chat_comes_in_the_same_pieces_as_without_foreman(
    kind: type[ClientLibrary], peer: ClientLibrary, simulator: TargetProcess
) -> None:
    with at(kind, simulator.url) as direct:
        told = list(direct.stream(MODEL, "hello there"))
        assert len(told) > 10
        assert InThread(lambda: list(peer.stream(MODEL, "hello there"))).result() == told


def status_of(problem: BaseException) -> int:
    assert isinstance(problem, ollama.ResponseError | openai.APIStatusError | anthropic.APIStatusError), problem
    return problem.status_code


TYPES: dict[int, tuple[type[Exception], ...]] = {
    401: (ollama.ResponseError, openai.AuthenticationError, anthropic.AuthenticationError),
    404: (ollama.ResponseError, openai.NotFoundError, anthropic.NotFoundError),
    502: (ollama.ResponseError, openai.InternalServerError, anthropic.InternalServerError),
}


@pytest.fixture(params=["whole", "stream"])
def ask(request: pytest.FixtureRequest) -> Callable[[ClientLibrary, str, str], str]:
    """A chat, in one piece or in many; what was said."""

    def whole(peer: ClientLibrary, model: str, text: str) -> str:
        return InThread(lambda: peer.whole(model, text)).result()

    def stream(peer: ClientLibrary, model: str, text: str) -> str:
        return InThread(lambda: "".join(peer.stream(model, text))).result()

    return whole if request.param == "whole" else stream


Ask = Callable[[ClientLibrary, str, str], str]


def test_a_missing_model_is_the_librarys_own_exception_with_ollamas_text(peer: ClientLibrary, ask: Ask) -> None:
    with pytest.raises(TYPES[404], match="model 'nobody-has-it' not found") as caught:
        ask(peer, "nobody-has-it", "hello")
    assert status_of(caught.value) == 404


@pytest.mark.parametrize("token", [None, "not-the-right-token"])
def test_without_the_right_token_there_is_the_librarys_own_exception(
    kind: type[ClientLibrary], guessed_at: ForemanProcess, simulator: TargetProcess, ask: Ask, token: str | None
) -> None:
    with at(kind, guessed_at.url, token) as peer, pytest.raises(TYPES[401], match="token") as caught:
        ask(peer, MODEL, "a stranger asks")
    assert status_of(caught.value) == 401
    assert not simulator.requests("a stranger asks")


def test_the_right_token_opens_and_does_not_reach_the_target(
    kind: type[ClientLibrary], locked: ForemanProcess, simulator: TargetProcess, ask: Ask
) -> None:
    with at(kind, locked.url, TOKEN) as peer:
        assert "a friend asks" in ask(peer, MODEL, "a friend asks")
    for asked in simulator.requests("a friend asks"):
        assert TOKEN not in json.dumps([asked.path, asked.headers])


# -- when the target is not well


@contextmanager
def killed(simulator: TargetProcess, daemon: ForemanProcess) -> Iterator[None]:
    """The target is dead meanwhile, and well known again afterwards."""
    simulator.kill()
    try:
        yield
    finally:
        simulator.start()
        daemon.ask("GET", "/api/version")
        until(lambda: daemon.get("/healthz") == {"status": "ok", "degraded": False}, "the target is back")


def test_a_target_that_is_down_is_told_clearly_and_at_once(
    peer: ClientLibrary, ask: Ask, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    with killed(simulator, daemon):
        with pytest.raises(TYPES[502], match="refuses connections") as caught:
            ask(peer, MODEL, "is anybody there?")
        assert status_of(caught.value) == 502


def collect(stream: Iterator[str], pieces: list[str]) -> None:
    """Read ``stream`` so that what came before an exception is known too."""
    for piece in stream:
        pieces.append(piece)  # noqa: PERF402 - extend() would lose them


BROKEN_OFF = (ollama.ResponseError, openai.APIError, anthropic.APIError)


@pytest.mark.parametrize("how", ["reset", "close", "cut-framing"])
def test_a_target_that_breaks_off_in_mid_stream_is_an_exception(
    peer: ClientLibrary, simulator: TargetProcess, how: str
) -> None:
    simulator.inject_fault(how, at_line=8)
    pieces: list[str] = []
    with pytest.raises(BROKEN_OFF, match="broke off"):
        InThread(lambda: collect(peer.stream(ENDLESS_MODEL, "until you die", MANY), pieces)).result()
    assert pieces


def test_a_target_that_is_killed_in_mid_stream_is_an_exception(
    peer: ClientLibrary, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    pieces: list[str] = []
    reading = InThread(lambda: collect(peer.stream(ENDLESS_MODEL, "until you die", MANY), pieces))
    until(lambda: len(pieces) > 3, "the answer begins")
    with killed(simulator, daemon), pytest.raises(BROKEN_OFF, match="broke off"):
        reading.result()


#: LangChain always streams, and so gets an error line.
TORN = (httpx.TransportError, openai.APIConnectionError, anthropic.APIConnectionError, ollama.ResponseError)


def test_a_target_that_breaks_off_in_the_middle_of_a_whole_answer_is_an_exception(
    peer: ClientLibrary, simulator: TargetProcess
) -> None:
    simulator.inject_fault("reset")
    with pytest.raises(TORN):
        InThread(lambda: peer.whole(MODEL, "half of it")).result()


def test_a_target_that_breaks_off_before_its_answer_is_an_exception(
    peer: ClientLibrary, ask: Ask, simulator: TargetProcess
) -> None:
    simulator.inject_fault("reset", at_byte=0)
    with pytest.raises(TYPES[502], match="the target") as caught:
        ask(peer, MODEL, "nothing of it")
    assert status_of(caught.value) == 502


# -- leaving


async def leave(asking: Any, when: Callable[[], object]) -> float:
    """Ask, and give up as soon as ``when`` is true; the moment of it, by ``time.monotonic``."""
    task = asyncio.create_task(asking)
    watching = asyncio.create_task(asyncio.to_thread(until, when, "the moment to leave"))
    await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
    await watching
    assert not task.done(), task
    left = time.monotonic()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return left


async def drain(stream: AsyncIterator[str], pieces: list[str]) -> None:
    async for piece in stream:
        pieces.append(piece)  # noqa: PERF401 - likewise


def test_who_leaves_the_line_is_forgotten_and_the_target_never_hears_of_it(
    peer: ClientLibrary, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    with daemon.call("/api/chat", endless_chat("in front")) as in_front:
        in_front.read_until(b'"content"')
        left = asyncio.run(
            leave(peer.whole_later(MODEL, "waited in vain"), lambda: len(daemon.get("/queue")["waiting"]) == 1)
        )
        daemon.wait_for_queue(0)
        assert time.monotonic() - left < 1
    assert "next" in InThread(lambda: peer.whole(MODEL, "the next one")).result()
    assert not simulator.requests("waited in vain")


def test_who_leaves_before_the_targets_headers_ends_its_work_at_once(
    peer: ClientLibrary, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    simulator.inject_fault("no-headers")
    text = f"left before headers {time.monotonic_ns()}"
    left = asyncio.run(
        leave(
            drain(peer.stream_later(MODEL, text), []),
            lambda: simulator.requests(text) and daemon.get("/queue")["running"],
        )
    )
    assert simulator.abandoned(text).ended_at - left < 1
    assert "next" in InThread(lambda: peer.whole(MODEL, "the next one")).result()


def test_who_leaves_in_mid_stream_ends_the_targets_work_at_once(peer: ClientLibrary, simulator: TargetProcess) -> None:
    text = f"left in mid-stream {time.monotonic_ns()}"
    pieces: list[str] = []
    left = asyncio.run(leave(drain(peer.stream_later(ENDLESS_MODEL, text, MANY), pieces), lambda: len(pieces) > 3))
    assert simulator.abandoned(text).ended_at - left < 1
    assert "next" in InThread(lambda: peer.whole(MODEL, "the next one")).result()


def test_who_stops_reading_a_stream_ends_the_targets_work_at_once(
    peer: ClientLibrary, simulator: TargetProcess
) -> None:
    text = f"read no further {time.monotonic_ns()}"

    def read_a_little() -> float:
        stream: Any = peer.stream(ENDLESS_MODEL, text, MANY)
        next(stream)
        stream.close()
        return time.monotonic()

    left = InThread(read_a_little).result()
    assert simulator.abandoned(text).ended_at - left < 1


def test_who_leaves_an_unstreamed_chat_ends_the_targets_work_at_once(
    peer: ClientLibrary, simulator: TargetProcess
) -> None:
    text = f"left unstreamed {time.monotonic_ns()}"
    left = asyncio.run(
        leave(peer.whole_later(ENDLESS_MODEL, text, MANY), lambda: simulator.requests(text) and simulator.running())
    )
    assert simulator.abandoned(text).ended_at - left < 1
    assert "next" in InThread(lambda: peer.whole(MODEL, "the next one")).result()


def test_who_leaves_an_embedding_ends_the_targets_work_at_once(
    daemon: ForemanProcess, simulator: TargetProcess
) -> None:
    text = f"left embedding {time.monotonic_ns()}"
    simulator.inject_fault("no-headers")

    async def embed() -> None:
        async with ollama.AsyncClient(daemon.url) as client:
            await client.embed(EMBEDDING_MODEL, text)

    left = asyncio.run(leave(embed(), lambda: bool(simulator.requests(text))))
    assert simulator.abandoned(text).ended_at - left < 1
    until(lambda: daemon.get("/queue")["embedding"]["running"] == 0, "its place is free")


# -- ollama


@pytest.fixture
def native(daemon: ForemanProcess) -> Iterator[ollama.Client]:
    with ollama.Client(daemon.url, timeout=TIMEOUT) as client:
        yield client


def test_ollama_lists_and_shows_models_and_tells_which_are_loaded(native: ollama.Client) -> None:
    models = {model.model: model for model in native.list().models}
    assert {MODEL, THINKING_MODEL, VISION_MODEL, f"{EMBEDDING_MODEL}:latest"} <= models.keys()
    listed = models[MODEL]
    assert listed.details is not None
    assert (listed.size or 0) > 1e9
    assert listed.details.parameter_size == "3.2B"
    shown = native.show(MODEL)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo
    native.generate(MODEL, keep_alive=60)
    loaded = until(lambda: {model.model: model for model in native.ps().models if model.model == MODEL}, "it is loaded")
    assert loaded[MODEL].expires_at is not None
    native.generate(MODEL, keep_alive=0)
    # The last known list may be up to a second old.
    until(lambda: MODEL not in {model.model for model in native.ps().models}, "the model is gone")


def test_ollama_copies_and_deletes_models_and_the_list_shows_it_at_once(native: ollama.Client) -> None:
    assert native.copy(MODEL, "mine").status == "success"
    assert "mine:latest" in {model.model for model in native.list().models}
    assert "hello" in (native.chat("mine", user_message("hello")).message.content or "")
    assert native.delete("mine").status == "success"
    assert "mine:latest" not in {model.model for model in native.list().models}
    with pytest.raises(ollama.ResponseError, match="not found"):
        native.chat("mine", user_message("hello"))


def test_ollama_generates_whole_and_streamed_with_the_same_counts(native: ollama.Client) -> None:
    whole = native.generate(MODEL, "once upon a time")
    parts = list(native.generate(MODEL, "once upon a time", stream=True))
    assert "".join(part.response or "" for part in parts) == whole.response
    assert "once upon a time" in whole.response
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count == len(parts)
    assert whole.done_reason == "stop"


def test_ollama_calls_tools_and_answers_with_their_results(native: ollama.Client) -> None:
    def get_weather(city: str) -> str:
        """The weather.

        Args:
            city: where

        """
        return f"sunny in {city}"

    messages: list[Any] = user_message("what is the weather?")
    message = native.chat(MODEL, messages, tools=[get_weather]).message
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.function.name == "get_weather"
    result = get_weather(**call.function.arguments)
    messages += [message, {"role": "tool", "tool_name": "get_weather", "content": result}]
    assert result in (native.chat(MODEL, messages, tools=[get_weather]).message.content or "")
    parts = list(native.chat(MODEL, messages[:1], tools=[get_weather], stream=True))
    assert [call.function.name for part in parts for call in part.message.tool_calls or []] == ["get_weather"]


def test_ollama_shows_thinking_apart_whole_and_streamed(native: ollama.Client) -> None:
    whole = native.chat(THINKING_MODEL, user_message("hm"), think=True).message
    assert whole.thinking
    assert whole.content
    parts = [part.message for part in native.chat(THINKING_MODEL, user_message("hm"), think=True, stream=True)]
    assert "".join(part.thinking or "" for part in parts) == whole.thinking
    assert "".join(part.content or "" for part in parts) == whole.content
    assert not native.chat(THINKING_MODEL, user_message("hm"), think=False).message.thinking
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        native.chat(MODEL, user_message("hm"), think=True)


def test_ollama_looks_at_images_small_and_large(native: ollama.Client, simulator: TargetProcess) -> None:
    for image in (PNG, PNG + os.urandom(3_000_000)):
        text = f"what is in {len(image)} bytes?"
        message = {"role": "user", "content": text, "images": [image]}
        assert "what is in" in (native.chat(VISION_MODEL, [message]).message.content or "")
        assert int(simulator.requests(text)[-1].headers["Content-Length"]) > len(image) * 4 / 3
        with pytest.raises(ollama.ResponseError, match="does not support multimodal") as caught:
            native.chat(MODEL, [message])
        assert caught.value.status_code == 400


def test_ollama_answers_in_the_form_that_was_asked_for(native: ollama.Client) -> None:
    answer = json.loads(native.chat(MODEL, user_message("who?"), format=PERSON).message.content or "")
    assert answer.keys() == {"name", "age"}


def test_ollama_embeds_one_and_many_by_the_new_route_and_the_old(native: ollama.Client) -> None:
    one = native.embed(EMBEDDING_MODEL, "a text").embeddings
    many = native.embed(EMBEDDING_MODEL, ["a text", "another"]).embeddings
    assert [len(vector) for vector in many] == [768, 768]
    assert many[0] == one[0]
    assert many[1] != one[0]
    assert len(native.embeddings(EMBEDDING_MODEL, "a text").embedding) == 768
    with pytest.raises(ollama.ResponseError, match="not found"):
        native.embed("nobody-has-it", "a text")


def test_ollama_with_the_token_in_its_address_is_let_in(locked: ForemanProcess, simulator: TargetProcess) -> None:
    with ollama.Client(f"{locked.url}/k/{TOKEN}", timeout=TIMEOUT) as client:
        assert client.list().models
        assert "by the path" in (client.chat(MODEL, user_message("by the path")).message.content or "")
    (asked,) = simulator.requests("by the path")
    assert asked.path == "/api/chat"


# -- openai


@pytest.fixture
def openai_client(daemon: ForemanProcess) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_openai_lists_models(openai_client: Any) -> None:
    assert MODEL in {model.id for model in openai_client.models.list()}
    assert openai_client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("nobody-has-it")


def test_openai_streams_with_usage_at_the_end(openai_client: Any) -> None:
    ask = {"model": MODEL, "messages": user_message("count")}
    whole = openai_client.chat.completions.create(**ask)
    parts = list(openai_client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    usage = parts[-1].usage
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1  # of the same prompt, asked before
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert parts[-1].usage.completion_tokens > 10
    assert [choice.finish_reason for part in parts for choice in part.choices][-1] == "stop"


def test_openai_calls_tools_whole_and_streamed(openai_client: Any) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    ask = {"model": MODEL, "messages": user_message("what is the weather?"), "tools": tools}
    (choice,) = openai_client.chat.completions.create(**ask).choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments).keys()) == ("get_weather", {"city"})
    parts = openai_client.chat.completions.create(**ask, stream=True)
    calls = [call for part in parts for choice in part.choices for call in choice.delta.tool_calls or []]
    assert [call.function.name for call in calls] == ["get_weather"]
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = openai_client.chat.completions.create(
        **ask | {"messages": [*user_message("what is the weather?"), choice.message, result]}
    )
    assert "sunny" in answer.choices[0].message.content


def test_openai_thinks_sees_and_answers_in_a_form(openai_client: Any) -> None:
    create = openai_client.chat.completions.create
    thought = create(model=THINKING_MODEL, messages=user_message("hm"), reasoning_effort="high").choices[0].message
    assert thought.reasoning
    assert thought.content
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(PNG).decode()}"}}
    content = [{"type": "text", "text": "what is it?"}, image]
    assert (
        "what is it?"
        in create(model=VISION_MODEL, messages=[{"role": "user", "content": content}]).choices[0].message.content
    )
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = create(model=MODEL, messages=user_message("who?"), response_format=form).choices[0].message.content
    assert json.loads(answer).keys() == {"name", "age"}


def test_openai_completes_text_whole_and_streamed(openai_client: Any) -> None:
    ask = {"model": MODEL, "prompt": "once upon a time", "max_tokens": 100}
    whole = openai_client.completions.create(**ask).choices[0].text
    parts = openai_client.completions.create(**ask, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole
    assert "once upon a time" in whole


def test_openai_responses_come_whole_and_as_events(openai_client: Any) -> None:
    tools = [{"type": "function", **WEATHER}]
    whole = openai_client.responses.create(model=MODEL, input="hello", instructions="be brief")
    assert whole.status == "completed"
    with openai_client.responses.stream(model=MODEL, input="hello", instructions="be brief") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == whole.output_text
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    called = openai_client.responses.create(model=MODEL, input="what is the weather?", tools=tools)
    assert [item.name for item in called.output if item.type == "function_call"] == ["get_weather"]


def test_openai_embeds_as_numbers_and_as_base64(openai_client: Any) -> None:
    texts = ["a text", "another"]
    plain = openai_client.embeddings.create(model=EMBEDDING_MODEL, input=texts, encoding_format="float")
    packed = openai_client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
    assert [len(item.embedding) for item in plain.data] == [768, 768]
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-6)


# -- anthropic


@pytest.fixture
def anthropic_client(daemon: ForemanProcess) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=daemon.url, api_key="any", max_retries=0, timeout=TIMEOUT) as client:
        yield client


def test_anthropic_messages_come_whole_and_as_events(anthropic_client: Any) -> None:
    ask = {"model": MODEL, "messages": user_message("hello"), "max_tokens": 100, "system": "be brief"}
    whole = anthropic_client.messages.create(**ask)
    assert whole.stop_reason == "end_turn"
    with anthropic_client.messages.stream(**ask) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens > 10


def test_anthropic_calls_tools_thinks_and_sees(anthropic_client: Any) -> None:
    create = anthropic_client.messages.create
    tool = {"name": "get_weather", "description": "The weather.", "input_schema": WEATHER["parameters"]}
    called = create(model=MODEL, messages=user_message("what is the weather?"), max_tokens=100, tools=[tool])
    assert called.stop_reason == "tool_use"
    assert [(block.name, block.input.keys()) for block in called.content if block.type == "tool_use"] == [
        ("get_weather", {"city"})
    ]
    thinking = {"type": "enabled", "budget_tokens": 1024}
    thought = create(model=THINKING_MODEL, messages=user_message("hm"), max_tokens=2000, thinking=thinking)
    assert [block.type for block in thought.content] == ["thinking", "text"]
    source = {"type": "base64", "media_type": "image/png", "data": b64encode(PNG).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "what is it?"}]
    seen = create(model=VISION_MODEL, messages=[{"role": "user", "content": content}], max_tokens=100)
    assert "what is it?" in seen.content[0].text


def test_anthropic_is_let_in_with_a_bearer_token_too(locked: ForemanProcess) -> None:
    with anthropic.Anthropic(base_url=locked.url, auth_token=TOKEN, max_retries=0, timeout=TIMEOUT) as client:
        (block,) = client.messages.create(
            model=MODEL, messages=[{"role": "user", "content": "hi"}], max_tokens=9
        ).content
    assert block.type == "text"


# -- langchain


def test_langchain_calls_tools_and_shows_how_it_thinks(daemon: ForemanProcess) -> None:
    with at(LangChain, daemon.url) as peer:
        assert isinstance(peer, LangChain)
        called = peer.model(MODEL).bind_tools([{"type": "function", "function": WEATHER}]).invoke("weather?")
        assert isinstance(called, AIMessage)
        assert [call["name"] for call in called.tool_calls] == ["get_weather"]
        thought = peer.model(THINKING_MODEL, reasoning=True).invoke([HumanMessage("hm")])
        assert thought.additional_kwargs["reasoning_content"]
        assert thought.text


def test_langchain_completes_and_embeds(daemon: ForemanProcess) -> None:
    language = OllamaLLM(model=MODEL, base_url=daemon.url, num_predict=100)
    assert "once upon a time" in language.invoke("once upon a time")
    assert "once upon a time" in "".join(language.stream("once upon a time"))
    embeddings = OllamaEmbeddings(model=EMBEDDING_MODEL, base_url=daemon.url)
    vectors = embeddings.embed_documents(["a text", "another"])
    assert [len(vector) for vector in vectors] == [768, 768]
    assert embeddings.embed_query("a text") == vectors[0]
    for made in (language, embeddings):
        assert made._client is not None
        made._client.close()
