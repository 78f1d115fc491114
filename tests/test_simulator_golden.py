"""The simulator answers every recorded question as the real server did, in all that does not vary from run to run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import define, evolve, field, frozen
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from foreman.simulator import RECORDED, Settings, Simulator
from foreman.simulator.engine.models import parse_name
from support import recordings

USER = [{"role": "user", "content": "hello"}]

#: Values that differ between two runs of the real server too, by the name of their field.
VARYING = {
    **dict.fromkeys(("created_at", "created", "completed_at", "expires_at", "modified_at"), "the time of day"),
    **dict.fromkeys(("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"), "how long it took"),
    **dict.fromkeys(("id", "item_id", "call_id", "request_id"), "made up for each answer"),
    **dict.fromkeys(("logprob", "top_logprobs"), "what the model's weights say"),
    **dict.fromkeys(("embedding", "embeddings", "context"), "what the model's weights or its tokenizer say"),
    **dict.fromkeys(("prompt_eval_cached_count", "cached_tokens"), "what was asked before"),
}

#: What a recording has that the simulator does not repeat: the last part of the place in the answer, and why.
EXCEPTIONS = {
    "chat-stream-unicode": (r"content|eval_count", "sampled at temperature 1.5"),
    "chat-nonstream-long": (r"content|token|bytes", "the choice between equal probabilities is one of rounding"),
    "crash-": (r"content|response|text|delta", "sampled"),
    "disconnect-": (r"content", "sampled"),
    "stop-": (r"content", "sampled"),
    "embed-batch": (r"prompt_eval_count", "the recorded tokenizer spells out a word that it does not know"),
    "show-": (
        r"modelfile|parameters|scores|tokens|token_type",
        "Go mixes the order of the parameters: compared as sets of lines; the word list is that of the recorded model",
    ),
    "v1-compact-": (r"(input|output|total)_tokens", "Ollama's own instruction to the model is not repeated"),
    "v1-responses-compaction-": (r"(input|output|total)_tokens", "Ollama's own words are not repeated"),
}


#: What of all recordings of a version is not repeated, and why.
OF_A_VERSION = {
    "0.34.4": ("digest|size", "the models were made anew"),
    "0.33.0-rc2": ("(?!)", "nothing: the models are those of its recordings"),
    "0.24.0": ("digest|size|content|text|response", "the models were made anew; the engine inside says other words"),
}

#: What the simulator does not imitate, by the beginning of ``version/name``, and why.
NOT_IMITATED = {
    **dict.fromkeys(
        (
            f"v0.34.4/codex-{what}"
            for what in (
                "bad-json", "bare", "chat-routed", "elsewhere-", "forwarded", "health", "private-host", "responses-", "slash",
                "status", "tags", "websocket",
            )
        ),
        "it has no proxy for Codex, which foreman lets nobody reach",
    ),
    **dict.fromkeys(
        ("v0.24.0/chat-image-no-vision", "v0.24.0/generate-image-no-vision", "v0.24.0/embed-chat-model",
         "v0.24.0/v1-transcriptions-no-audio-model"),
        "v0.24 tries what later ones refuse",
    ),
    **dict.fromkeys(
        ("v0.24.0/chat-format-schema", "v0.24.0/chat-prompt-too-long", "v0.24.0/v1-responses-stream"),
        "the engine inside v0.24 says and counts other words",
    ),
    **dict.fromkeys(
        (*(f"v0.24.0/crash-midstream-{what}-after" for what in
           ("chat", "generate", "messages", "v1-chat", "v1-completions", "v1-responses")),
         "v0.24.0/disconnect-midstream-after"),
        "the engine inside v0.24 measured a duration of zero, which Go leaves out",
    ),
    **dict.fromkeys(
        ("v0.24.0/disconnect-half-close", "v0.24.0/crash-nonstream-messages", "v0.24.0/crash-nonstream-v1-chat", "v0.24.0/load-failure-"),
        "the engine inside v0.24 fails in other words",
    ),
    **dict.fromkeys(
        ("v0.24.0/show-embedding", "v0.24.0/show-name-field", "v0.24.0/show-ok", "v0.24.0/show-thinking",
         "v0.24.0/show-tools", "v0.24.0/show-verbose"),
        "v0.24 names the file of the weights as the parent of a model",
    ),
    **dict.fromkeys(
        ("v0.24.0/show-missing-model", "v0.24.0/v1-model-get-missing", "v0.24.0/wire-length-and-chunked"),
        "v0.24 repeats the name of a missing model as it was typed",
    ),
    "v0.24.0/tags-get": "v0.24 lists no capabilities",
    "v0.24.0/v1-chat-bad-reasoning-effort": "v0.24 knows fewer efforts",
    **dict.fromkeys(
        (f"v0.24.0/v1-chat-{what}" for what in
         ("stream", "tools-stream")),
        "v0.24 says the role in every chunk",
    ),
    "v0.24.0/v1-images": "only v0.15 to v0.32 make images",
}  # fmt: skip


@define(eq=False)
class Client:
    """A connection in memory."""

    simulator: Simulator
    clock: Clock
    transport: StringTransport = field(factory=StringTransport)
    protocol: Any = None

    def __attrs_post_init__(self) -> None:
        self.protocol = self.simulator.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)
        self.clock.pump([0.0] * 50)

    def ask(self, method: str, path: str, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        self.send(head.encode() + data)


@frozen
class Answer:
    """An answer, taken apart as the recordings are; ``rest`` is what came after it."""

    status_line: str | None
    headers: list[list[str]]
    framing: str
    chunks: list[str]
    torn: bool = False
    rest: bytes = b""


def taken_apart(data: bytes, method: str) -> Answer:
    """The first answer in some bytes."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return Answer(None, [], "closed-without-response", [])
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = [line.split(": ", 1) for line in lines]
    low = {name.lower(): value for name, value in headers}
    if method == "HEAD" or status_line.split()[1] in {"204", "304"}:
        return Answer(status_line, headers, "none", [], rest=rest)
    if "content-length" in low:
        length = int(low["content-length"])
        chunks = [rest[:length].decode()] if length else []
        return Answer(status_line, headers, "content-length", chunks, len(rest) < length, rest[length:])
    if low.get("transfer-encoding") != "chunked":
        return Answer(status_line, headers, "close", rest.decode().splitlines(keepends=True))
    chunks = []
    while True:
        size, found, after = rest.partition(b"\r\n")
        if not found:
            return Answer(status_line, headers, "chunked", chunks, torn=True)
        if size == b"0":
            return Answer(status_line, headers, "chunked", chunks, rest=after[2:])
        chunks.append(after[: int(size, 16)].decode())
        rest = after[int(size, 16) + 2 :]


def as_recorded(recording: dict[str, Any]) -> Answer:
    """The real server's answer."""
    heard = recording["response"]
    whole = (
        heard["body"].splitlines(keepends=True)
        if heard["framing"] == "close"
        else [heard["body"]] * bool(heard["body"])
    )
    chunks = [text for _, text in heard["chunks"]] if heard["framing"] == "chunked" else whole
    if heard["status"] is None:
        return Answer(None, [], "closed-without-response", [])
    torn = bool(heard.get("torn") or heard.get("aborted_by_client"))
    return Answer(heard["status_line"], heard["headers"], heard["framing"], chunks, torn)


def _models(*names: str) -> Callable[[Simulator, Clock], None]:
    def prepare(simulator: Simulator, clock: Clock) -> None:
        for name in names:
            body = {"model": name, "from": "tiny-chat", "system": "be brief"}
            Client(simulator, clock).ask("POST", "/api/create", body)

    return prepare


def _blob(simulator: Simulator, clock: Clock) -> None:
    data = b"golden recording test blob\n"
    Client(simulator, clock).ask("POST", f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}", data)


def _one_loaded(simulator: Simulator, clock: Clock) -> None:
    Client(simulator, clock).ask("POST", "/api/generate", {"model": "tiny-chat"})


def _three_loaded(simulator: Simulator, clock: Clock) -> None:
    _one_loaded(simulator, clock)
    Client(simulator, clock).ask("POST", "/api/generate", {"model": "tiny-other", "keep_alive": -1})
    Client(simulator, clock).ask("POST", "/api/embed", {"model": "tiny-embed", "input": "x"})


def _one_works_and_two_wait(simulator: Simulator, clock: Clock) -> None:
    for model in ("tiny-slow", "tiny-chat", "tiny-other"):
        Client(simulator, clock).ask(
            "POST", "/api/chat", {"model": model, "messages": USER, "options": {"num_predict": -1}}
        )


def _named_oddly(simulator: Simulator, clock: Clock) -> None:
    for name in ("Golden/Case:Q4", "other/thing:Q8", "GOLDEN/CASE:q8"):
        Client(simulator, clock).ask("POST", "/api/copy", {"source": "tiny-chat", "destination": name})


def _slow_with_tools(simulator: Simulator, clock: Clock) -> None:
    del clock
    slow = simulator.state.inventory.find(parse_name("tiny-slow"))
    assert slow is not None
    simulator.state.inventory.copy(slow, parse_name("golden-slow"), capabilities=("completion", "tools"))


#: What has to be there before a question is asked, by the beginning of the recording's name.
PREPARATIONS: dict[str, Callable[[Simulator, Clock], None]] = {
    "ps-loaded": _one_loaded,
    "ps-loaded-three": _three_loaded,
    "copy-": _models("golden-a"),
    "delete-ok": _models("golden-b", "golden-d"),
    "blob-head-exists": _blob,
    "blob-post-exists": _blob,
    "create-blob-not": _blob,
    "queue-full": _one_works_and_two_wait,
    "names-tags": _named_oddly,
    "names-chat": _named_oddly,
    "crash-nonstream-v1-compact": _slow_with_tools,
    "crash-stream-compaction": _slow_with_tools,
}
#: What happens while the answer is on its way.
INTERRUPTIONS: dict[str, Callable[[Simulator, Client], None]] = {
    "crash-": lambda simulator, _: simulator.crash_models(),
    "disconnect-half-close": lambda _, client: client.protocol.readConnectionLost(),
    "disconnect-nonstream": lambda _, client: client.transport.loseConnection(),
    "disconnect-midstream": lambda _, client: client.transport.loseConnection(),
    "stop-": lambda simulator, _: simulator.go_down(),
}


def settings_for(name: str, version: str) -> Settings:
    """How the server was set up for a recording."""
    # tiny-compact was made for the newest alone.
    models = RECORDED if version == "0.34.4" else tuple(name for name in RECORDED if name != "tiny-compact")
    usual = Settings(models=models, version=version)
    if name.startswith("empty-"):
        return evolve(usual, models=())
    if name.startswith("queue-full"):
        return evolve(usual, rate=1.0, max_queue=1, max_loaded=1)
    return evolve(usual, rate=1.0) if is_interrupted(name) else usual


def is_interrupted(name: str) -> bool:
    """Whether something happened while the answer was on its way."""
    return name.startswith(tuple(INTERRUPTIONS)) and not name.endswith("-after")


def target_request(recording: dict[str, Any]) -> bytes:
    """The bytes of what was asked."""
    name = recording["name"]
    if name.startswith("wire-pipelined"):
        return b"".join(recordings.request_bytes(recordings.load(f"wire-pipelined-{number}")) for number in (1, 2))
    return recordings.request_bytes(recording).replace(b"(1,100,000 times the letter a)", b"a" * 1_100_000)


def tokens_in(chunks: list[str]) -> int:
    """How many tokens had been said when an answer was interrupted."""
    openai = '"model":"tiny-slow".*"finish_reason":null|"finish_reason":null.*"model":"tiny-slow"'
    token = re.compile(rf'"done":false|^event: (content_block|response\.output_text)[._]delta|{openai}')
    return sum(1 for chunk in chunks if token.search(chunk))


def asked_again(recording: dict[str, Any]) -> Answer:
    """The simulator's answer to a recorded question."""
    name, settings = recording["name"], settings_for(recording["name"], recording["ollama"])
    clock = Clock()
    simulator = Simulator(clock, settings)
    for beginning, prepare in PREPARATIONS.items():
        if name.startswith(beginning):
            prepare(simulator, clock)
    client = Client(simulator, clock)
    data = target_request(recording)
    for _, interim in recording["response"].get("interim", ()):
        head, _, body = data.partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert client.transport.value() == interim.encode()
        client.transport.clear()
        data = body
    client.send(data)
    if is_interrupted(name):
        clock.pump([1.0] * (tokens_in(as_recorded(recording).chunks) - 1))
        for beginning, interrupt in INTERRUPTIONS.items():
            if name.startswith(beginning):
                interrupt(simulator, client)
    answer = taken_apart(client.transport.value(), recording["request"]["method"])
    simulator.stopFactory()
    return taken_apart(answer.rest, "GET") if name == "wire-pipelined-2" else answer


def values_in(chunk: str) -> Iterator[Any]:
    """What is in a chunk: JSON objects, and the text around them."""
    for line in chunk.splitlines(keepends=True):
        before, brace, rest = line.partition("{")
        inside, closing, after = rest.rpartition("}")
        yield from (before, json.loads(f"{{{inside}}}"), after) if brace and closing else (line,)


def apart(theirs: Any, ours: Any, where: str, excepted: re.Pattern[str]) -> Iterator[str]:
    """How two JSON values differ, the order of keys included."""
    field_ = where.rpartition(".")[2]
    if kind(theirs) != kind(ours):
        yield f"{where}: {theirs!r} is of another type than {ours!r}"
    elif field_ in {"modelfile", "parameters"} and isinstance(theirs, str):
        if sorted(theirs.splitlines()) != sorted(ours.splitlines()):
            yield f"{where}: {theirs!r} is not {ours!r}"
    elif field_ in VARYING or excepted.fullmatch(field_):
        return
    elif isinstance(theirs, dict) and "cache_read_input_tokens" in theirs:
        # How much of the prompt came from the cache depends on what was asked before; all of it is the two together.
        yield from apart(counted_whole(theirs), counted_whole(ours), where, excepted)
    elif isinstance(theirs, dict):
        if list(theirs) != list(ours):
            yield f"{where}: {list(theirs)} are not {list(ours)}"
        for key in theirs.keys() & ours.keys():
            yield from apart(theirs[key], ours[key], f"{where}.{key}", excepted)
    elif isinstance(theirs, list):
        if field_ in {"models", "data"} and excepted.fullmatch("digest"):  # made anew: others within one second
            theirs, ours = (
                sorted(some, key=lambda one: str(one.get("name", one.get("id")))) for some in (theirs, ours)
            )
        if len(theirs) != len(ours):
            yield f"{where}: {len(theirs)} items are not {len(ours)}"
        for at, (their, our) in enumerate(zip(theirs, ours, strict=False)):
            yield from apart(their, our, f"{where}.{at}", excepted)
    elif theirs != ours:
        yield f"{where}: {theirs!r} is not {ours!r}"


def counted_whole(usage: dict[str, Any]) -> dict[str, Any]:
    """The usage of Anthropic's shape, with the whole prompt in one number."""
    whole = {**usage, "input_tokens": usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)}
    return {
        ("from_the_cache" if name == "cache_read_input_tokens" else name): value for name, value in whole.items()
    } | {"from_the_cache": 0}


def kind(value: Any) -> str:
    """What JSON calls the type of a value."""
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def differences(recording: dict[str, Any], ours: Answer) -> Iterator[str]:
    """How an answer differs from the recorded one in what does not vary."""
    theirs = as_recorded(recording)
    yield from (
        f"{what}: {their!r} is not {our!r}"
        for what, their, our in (
            ("status", theirs.status_line, ours.status_line),
            ("framing", theirs.framing, ours.framing),
            ("torn", theirs.torn, ours.torn),
            ("header names", [name for name, _ in theirs.headers], [name for name, _ in ours.headers]),
        )
        if their != our
    )
    for (name, their), (_, our) in zip(theirs.headers, ours.headers, strict=False):
        varies = name == "Date" or (name == "Content-Length" and ours.chunks != theirs.chunks)
        if their != our and not varies:
            yield f"header {name}: {their} is not {our}"
    if ours.framing == "content-length":
        told = next(value for name, value in ours.headers if name == "Content-Length")
        if int(told) != sum(len(chunk.encode()) for chunk in ours.chunks):
            yield "the length is wrong"
    patterns = [what for name, (what, _) in EXCEPTIONS.items() if recording["name"].startswith(name)]
    patterns.append(OF_A_VERSION[recording["ollama"]][0])
    excepted = re.compile("|".join(patterns) or "(?!)")
    chunks, own = theirs.chunks, ours.chunks
    if recording["name"] == "v1-responses-compaction-trigger-stream":  # cut in the middle of events
        assert len(chunks[0]) == len(own[0]) == 2048
        assert len(chunks) == len(own)
        chunks, own = ["".join(chunks)], ["".join(own)]
    if recording["name"] == "chat-stream-unicode":
        chunks, own = [chunks[0], chunks[-1]], [own[0], own[-1]]
    if len(chunks) != len(own):
        yield f"{len(chunks)} chunks are not {len(own)}: {own}"
    for number, (their, our) in enumerate(zip(chunks, own, strict=False)):
        yield from apart(list(values_in(their)), list(values_in(our)), f"chunk {number}", excepted)


def is_imitated(name: str) -> bool:
    """Whether the simulator answers as in the recording ``version/name``."""
    return not name.startswith(tuple(NOT_IMITATED))


@pytest.mark.parametrize("name", [name for name in recordings.everything() if is_imitated(name)])
def test_the_simulator_answers_as_the_real_server_did(name: str) -> None:
    recording = recordings.load(name)
    assert list(differences(recording, asked_again(recording))) == []


@pytest.mark.parametrize("name", [name for name in recordings.everything() if not is_imitated(name)])
def test_what_is_said_not_to_be_imitated_is_not(name: str) -> None:
    recording = recordings.load(name)
    assert list(differences(recording, asked_again(recording))) != []


@pytest.mark.parametrize("beginning", NOT_IMITATED)
def test_nothing_is_left_out_that_is_not_there(beginning: str) -> None:
    assert any(name.startswith(beginning) for name in recordings.everything())


@pytest.mark.parametrize("beginning", [*EXCEPTIONS, *PREPARATIONS, *INTERRUPTIONS])
def test_nothing_is_excepted_or_prepared_for_a_recording_that_is_not_there(beginning: str) -> None:
    assert any(name.startswith(beginning) for name in recordings.names())


def test_a_difference_is_found() -> None:
    recording = recordings.load("chat-stream")
    recording["response"]["chunks"][0][1] = recording["response"]["chunks"][0][1].replace(" jobs", " bells")
    recording["response"]["headers"][0][1] = "application/json"
    assert len(list(differences(recording, asked_again(recording)))) == 2
