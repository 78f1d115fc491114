"""Asking the target: every question, and plain words when it cannot answer."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from foreman import errors
from foreman.config.target_address import TargetAddress
from foreman.simulator import Fault, Settings, Simulator
from foreman.target import client as client_module
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for
from support.live_foreman import listen, port_of, target_client

reactor: Any = installed_reactor

CHAT = {"model": "tiny-slow", "messages": [{"role": "user", "content": "hello"}], "options": {"num_predict": 3}}


class Scripted(Factory):
    """Says the same to every request, once it is whole.

    :ivar ending: ``open``, ``close`` or ``reset`` the connection then; :ivar heard: what was asked.
    """

    noisy = False

    def __init__(self, answer: bytes, ending: str = "open") -> None:
        self.answer = answer
        self.ending = ending
        self.heard: list[bytes] = []
        self.open = 0

    def buildProtocol(self, addr: object) -> Protocol:
        return _Saying(self)


class _Saying(Protocol):
    transport: Any

    def __init__(self, script: Scripted) -> None:
        self._script = script
        self._heard = b""

    def connectionMade(self) -> None:
        self._script.open += 1

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        head, found, body = self._heard.partition(b"\r\n\r\n")
        length = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), 0)
        if not found or len(body) < length:
            return
        self._script.heard.append(self._heard)
        self._heard = b""
        self.transport.write(self._script.answer)
        if self._script.ending == "close":
            self.transport.loseConnection()
        elif self._script.ending == "reset":
            self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        self._script.open -= 1


@pytest_twisted.async_yield_fixture
async def simulator() -> AsyncIterator[Simulator]:
    simulator = Simulator(reactor, Settings(keep_alive=-1))
    listening: Any = listen(simulator)
    simulator.port = port_of(listening)  # type: ignore[attr-defined]
    yield simulator
    await listening.stopListening()


@pytest.fixture
def ollama(simulator: Any) -> TargetClient:
    return target_client(simulator.port)


async def ask_scripted(script: Scripted, path: str = "/api/show", **choices: Any) -> dict[str, Any]:
    """Ask a scripted target one question."""
    listening: Any = listen(script)
    try:
        return await target_client(port_of(listening), **choices)._json(b"POST", path, {"model": "m"})
    finally:
        while script.open:
            await deferLater(reactor, 0.001)
        await listening.stopListening()


def reply(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


# each question


@pytest_twisted.ensureDeferred
async def test_every_question_of_ollamas_api_has_its_answer(ollama: TargetClient) -> None:
    assert await ollama.version() == "0.34.4"
    assert (await ollama.show("tiny-slow"))["details"]["format"] == "gguf"
    chat = await ollama.chat({**CHAT, "keep_alive": -1})
    assert (chat["done"], chat["message"]["role"]) == (True, "assistant")
    generated = await ollama.generate({"model": "tiny-slow", "prompt": "hello", "options": {"num_predict": 3}})
    assert (generated["done"], generated["eval_count"]) == (True, 3)
    assert len((await ollama.embed({"model": "tiny-embed", "input": ["a", "b"]}))["embeddings"]) == 2
    assert (await ollama.embeddings({"model": "tiny-embed", "prompt": "a"}))["embedding"]
    for path, name in (("/api/tags", "tiny-tools:latest"), ("/api/ps", "tiny-slow:latest")):
        answer, body = await ollama.fetch(b"GET", path)
        assert answer.code == 200
        assert name in [model["name"] for model in json.loads(body)["models"]]


@pytest_twisted.ensureDeferred
async def test_a_stream_comes_line_by_line(ollama: TargetClient) -> None:
    lines: list[dict[str, Any]] = []
    await ollama.stream("/api/chat", CHAT, lines.append)
    assert [line["done"] for line in lines] == [False, False, False, True]
    progress: list[dict[str, Any]] = []
    await ollama.stream("/api/create", {"model": "mine", "from": "tiny-slow"}, progress.append)
    assert progress[-1] == {"status": "success"}


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_passed_on_arrives_byte_by_byte(simulator: Any, ollama: TargetClient) -> None:
    body = b' {"MODEL" : "tiny-slow","messages":[],"keep_alive":1.50,\n"x":{"b":1,"a":[null]} } and more'
    headers = [
        (b"content-TYPE", b"text/odd"),
        (b"X-A", b"1"),
        (b"X-A", b"2"),
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
    ]
    head = ollama.head(b"POST", b"/api/chat?a=%5B1%5D&b=[2]", headers, len(body))
    answer = await ollama.send(b"POST", head, body)
    answer.abort()
    (seen,) = simulator.requests
    assert (seen.method, seen.path, seen.version, seen.body) == ("POST", "/api/chat?a=%5B1%5D&b=[2]", "HTTP/1.1", body)
    assert seen.headers == [
        ("Host", f"127.0.0.1:{simulator.port}"),
        ("content-TYPE", "text/odd"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("Via", "1.1 foreman"),
        ("Accept-Encoding", "identity"),
        ("Content-Length", str(len(body))),
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "think": st.sampled_from([True, False, "low", "max", "bogus", None]),
            "keep_alive": st.sampled_from([0, -1, 1.5, "5m", "0", "-1m", "10", True, None]),
            "format": st.sampled_from(["json", "", None, {"type": "object", "properties": {"z": {}, "a": {}}}]),
            "options": st.dictionaries(st.text(), json_values, max_size=3) | st.none(),
            "tools": st.lists(json_values, max_size=2),
            "what nobody knows yet": json_values,
        },
    )
)
def test_foremans_own_questions_keep_the_meaning_and_the_order_of_every_field(payload: dict[str, Any]) -> None:
    sent: list[bytes] = []

    class Overheard(TargetClient):
        async def send(self, method: bytes, head: bytes, body: Any = b"") -> Any:
            sent.append(body)
            return await Deferred()

    address = TargetAddress("http", "127.0.0.1", 1)
    Deferred.fromCoroutine(
        Overheard(reactor, endpoint_for(reactor, address, 1), address).chat({"model": "m", **payload})
    )
    assert list(json.loads(sent[0]).items()) == [("model", "m"), *payload.items(), ("stream", False)]


# what goes with it


@pytest_twisted.ensureDeferred
async def test_the_targets_token_goes_along_and_the_clients_credentials_do_not(simulator: Any) -> None:
    client = target_client(simulator.port, token="of-the-target")
    client_says = [(b"Authorization", b"Bearer of-the-client"), (b"X-API-Key", b"k"), (b"Cookie", b"a=b")]
    (await client.send(b"GET", client.head(b"GET", b"/api/version", client_says, None))).abort()
    await client.version()
    for seen in simulator.requests:
        assert [value for name, value in seen.headers if name == "Authorization"] == ["Bearer of-the-target"]
        assert not {"x-api-key", "cookie", "content-length"} & {name.lower() for name, _ in seen.headers}


@pytest_twisted.ensureDeferred
async def test_without_a_token_no_authorization_is_sent(simulator: Any, ollama: TargetClient) -> None:
    await ollama.version()
    assert simulator.requests[0].header("Authorization") is None


@pytest_twisted.ensureDeferred
async def test_the_path_of_the_target_stands_in_front_of_every_path() -> None:
    script = Scripted(reply(b"{}"))
    await ask_scripted(script, url="http://127.0.0.1/behind/a%20proxy")
    assert script.heard[0].startswith(b"POST /behind/a%20proxy/api/show HTTP/1.1\r\n")


@pytest_twisted.ensureDeferred
async def test_a_cookie_of_the_target_is_not_kept_for_the_next_caller() -> None:
    script = Scripted(reply(b"{}", headers=b"Set-Cookie: who=alice\r\n"))
    for _ in range(2):
        await ask_scripted(script)
    assert b"alice" not in script.heard[1]


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_not_followed() -> None:
    script = Scripted(reply(b"", b"307 Temporary Redirect", b"Location: /api/elsewhere\r\n"))
    with pytest.raises(errors.HTTPError) as caught:
        await ask_scripted(script)
    assert (caught.value.status, len(script.heard)) == (307, 1)


# the target refuses


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":"model \'x\' not found"}', "model 'x' not found"),
        (b'{"error":{"message":"model \'x\' not found","type":"api_error"}}', "model 'x' not found"),
        (b'{"error":{"code":400,"message":"Multimodal data provided"}}', "Multimodal data provided"),
        (b'{"type":"error","error":{"type":"api_error","message":"no"}}', "no"),
        (b'{"message":"what a proxy says"}', "what a proxy says"),
        (b"404 page not found", "404 page not found"),
        (b"<html>\xff</html>\n", "<html>\ufffd</html>"),
        (b'"text"', "text"),
        (b"[1]", "[1]"),
        (b"[" * 100_000, "[" * 500),
        (b"", ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_refusal_has_its_status_and_ollamas_own_words(body: bytes, text: str) -> None:
    for status in (b"404 Not Found", b"503 Service Unavailable"):
        with pytest.raises(errors.HTTPError) as caught:
            await ask_scripted(Scripted(reply(body, status)))
        assert (caught.value.status, caught.value.text) == (int(status[:3]), text)


@pytest_twisted.ensureDeferred
async def test_a_missing_model_is_said_as_ollama_says_it(ollama: TargetClient) -> None:
    for asking, text in (
        (ollama.chat({"model": "nope", "messages": CHAT["messages"]}), "model 'nope' not found"),
        (ollama.embed({"model": "nope", "input": "x"}), 'model "nope" not found, try pulling it first'),
        (ollama.show("nope"), "model 'nope:latest' not found"),
        (ollama.stream("/api/chat", {"model": "nope", "messages": CHAT["messages"]}, print), "model 'nope' not found"),
    ):
        with pytest.raises(errors.HTTPError) as caught:
            await asking
        assert (caught.value.status, caught.value.text) == (404, text)


# the target cannot answer


@contextmanager
def nobody() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


@pytest_twisted.ensureDeferred
async def test_nobody_there_is_refused() -> None:
    with nobody() as port, pytest.raises(errors.ConnectionError) as caught:
        await target_client(port).version()
    assert caught.value.why == "refused"


@pytest_twisted.ensureDeferred
async def test_a_name_that_nobody_has_is_dns() -> None:
    with pytest.raises(errors.ConnectionError) as caught:
        await target_client(11434, "http://nowhere.invalid").version()
    assert caught.value.why == "dns"


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_connection_that_ends_without_an_answer_is_reset(ending: str) -> None:
    for said in (b"", b"HTTP/1.1 200 OK\r\nContent-"):
        with pytest.raises(errors.ConnectionError) as caught:
            await ask_scripted(Scripted(said, ending))
        assert caught.value.why == "reset"


@pytest_twisted.ensureDeferred
async def test_tls_with_a_target_that_has_none_is_tls() -> None:
    # What speaks plainly answers a TLS hello with an error of its own, or closes.
    class Plain(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> Protocol:
            return Answering()

    class Answering(Protocol):
        transport: Any

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    listening: Any = listen(Plain())
    with pytest.raises(errors.ConnectionError) as caught:
        await target_client(port_of(listening), "https://127.0.0.1").version()
    assert caught.value.why == "tls"
    await listening.stopListening()


@pytest.mark.parametrize(
    "answer",
    [
        reply(b"<html>"),
        reply(b"[]"),
        reply(b"null"),
        reply(b'{"cut":'),
        reply(b"\xff"),
        reply(b""),
        reply(b"[" * 100_000),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=lambda answer: str(answer[:60]),
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_is_garbage(answer: bytes) -> None:
    with pytest.raises(errors.ConnectionError) as caught:
        await ask_scripted(Scripted(answer))
    assert caught.value.why == "garbage"


@pytest_twisted.ensureDeferred
async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_COLLECTED", 1000)
    with pytest.raises(errors.ConnectionError, match="exceeds 1000 bytes") as caught:
        await ask_scripted(Scripted(reply(b'"' + b"x" * 2000)))
    assert caught.value.why == "garbage"


@pytest_twisted.ensureDeferred
async def test_of_a_refusal_without_end_the_beginning_is_told() -> None:
    script = Scripted(reply(b"<html>" + b"x" * 10_000_000, b"502 Bad Gateway"))
    with pytest.raises(errors.HTTPError) as caught:
        await ask_scripted(script)
    assert caught.value.text == "<html>" + "x" * (client_module.MAX_ERROR_TEXT - 6)
    long = json.dumps({"error": "y" * 60_000}).encode()
    with pytest.raises(errors.HTTPError) as caught:
        await ask_scripted(Scripted(reply(long, b"500 No")))
    assert caught.value.text == "y" * client_module.MAX_ERROR_TEXT


@pytest_twisted.ensureDeferred
async def test_a_redirect_is_told_with_where_it_leads() -> None:
    answer = b"HTTP/1.1 308 X\r\nLocation: https://elsewhere/api\r\nContent-Length: 5\r\n\r\nmoved"
    with pytest.raises(errors.HTTPError, match="308: a redirect to https://elsewhere/api"):
        await ask_scripted(Scripted(answer))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ],
)
@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_breaks_off_is_not_taken_for_whole(answer: bytes, ending: str) -> None:
    with pytest.raises(errors.ConnectionError) as caught:
        await ask_scripted(Scripted(answer, ending))
    assert caught.value.why == "reset"


@pytest_twisted.ensureDeferred
async def test_an_answer_that_ends_with_its_connection_is_whole_where_it_is_one_json_object() -> None:
    assert await ask_scripted(Scripted(b'HTTP/1.0 200 OK\r\n\r\n{"a":1}', "close")) == {"a": 1}
    with pytest.raises(errors.ConnectionError):
        await ask_scripted(Scripted(b'HTTP/1.0 200 OK\r\n\r\n{"a":', "close"))


# streams that do not end well


def ndjson(*lines: bytes, ended: bool = True) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + (b"0\r\n\r\n" if ended else b"")


LINE, LAST = b'{"done":false}\n', b'{"done":true}\n'


async def stream_scripted(script: Scripted, on_line: Any) -> None:
    listening: Any = listen(script)
    try:
        await target_client(port_of(listening)).stream("/api/chat", CHAT, on_line)
    finally:
        while script.open:
            await deferLater(reactor, 0.001)
        await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_lines_may_come_in_any_pieces_and_the_last_without_its_newline() -> None:
    lines: list[Any] = []
    await stream_scripted(Scripted(ndjson(LINE[:4], LINE[4:] + LINE, LAST.strip())), lines.append)
    assert [line["done"] for line in lines] == [False, False, True]


@pytest.mark.parametrize(
    ("answer", "ending", "why"),
    [
        (ndjson(LINE), "open", "reset"),
        (ndjson(LAST, LINE), "open", "reset"),
        (ndjson(), "open", "reset"),
        (ndjson(LINE, ended=False), "close", "reset"),
        (ndjson(LINE, LAST, ended=False), "reset", "reset"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + LINE, "close", "reset"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + LINE + LAST[:5], "close", "garbage"),
        (ndjson(LINE, b"\n"), "open", "garbage"),
        (ndjson(LINE, b"7\n"), "open", "garbage"),
        (ndjson(LINE, b"<html>\n"), "open", "garbage"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_stream_without_its_end_is_a_failure(answer: bytes, ending: str, why: str) -> None:
    with pytest.raises(errors.ConnectionError) as caught:
        await stream_scripted(Scripted(answer, ending), lambda _: None)
    assert caught.value.why == why


@pytest_twisted.ensureDeferred
async def test_an_error_line_is_the_targets_refusal() -> None:
    lines: list[Any] = []
    with pytest.raises(errors.HTTPError) as caught:
        await stream_scripted(Scripted(ndjson(LINE, b'{"error":"unexpected EOF"}\n')), lines.append)
    assert (caught.value.status, caught.value.text, len(lines)) == (200, "unexpected EOF", 1)


@pytest_twisted.ensureDeferred
async def test_what_the_reader_of_lines_throws_ends_the_stream() -> None:
    def on_line(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await stream_scripted(Scripted(ndjson(LINE, LINE, ended=False)), on_line)


# leaving


@pytest.mark.parametrize("plan", [Fault("no-headers"), Fault("stall", at_line=2)], ids=lambda plan: plan.what)
@pytest_twisted.ensureDeferred
async def test_whoever_cancels_a_question_closes_its_connection(
    simulator: Any, ollama: TargetClient, plan: Fault
) -> None:
    for ask in (ollama.chat(CHAT), ollama.stream("/api/chat", CHAT, lambda _: None)):
        simulator.misbehave(plan)
        asking = Deferred.fromCoroutine(ask)
        await deferLater(reactor, 0.05)
        assert len(simulator.connections) == 1
        asking.cancel()
        with pytest.raises(CancelledError):
            await asking
        while simulator.connections:
            await deferLater(reactor, 0.001)
        assert simulator.requests[-1].outcome == "left"
        assert simulator.running == 0
