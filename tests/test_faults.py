"""Every fault of a target, on every kind of response: a client of foreman never sees a better one than the target gave.

The oracle is a direct connection to the same simulator with the same fault.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, get_args

import pytest
import pytest_twisted
from attrs import asdict, define, frozen
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from foreman.simulator import Fault, Settings, Simulator
from foreman.simulator.engine.faults import FaultKind
from support.live_foreman import RunningForeman, port_of, start_foreman
from support.raw_http import Response, parse, request

reactor: Any = installed_reactor

#: Seconds that a target may keep silent.
SILENCE = 0.4
#: Looks, at least 10 ms apart, after which a listener that saw nothing new takes a connection for hung. All sides share one
#: reactor, so that a busy machine slows down the looks as it slows down the rest.
HUNG_TARGET, HUNG = 30, 120

WORDS = [{"role": "user", "content": "tell me of the sea"}]


@frozen
class Shape:
    """One kind of answer; ``mark`` is in whole ones only."""

    name: str
    path: str
    payload: dict[str, Any]
    kind: str
    family: str
    mark: bytes

    def request(self, fault: Fault | None = None) -> bytes:
        """The bytes of a request, which asks the simulator for a fault."""
        headers = [("Content-Type", "application/json")]
        if fault is not None:
            headers.append(("Simulator-Misbehave", json.dumps(asdict(fault))))
        return request("POST", self.path, json.dumps(self.payload).encode(), headers)

    def whole_pieces(self, body: bytes) -> bytes:
        if self.kind == "whole":
            return body
        ends = list(re.finditer(rb"\n" if self.kind == "ndjson" else rb"\n\r?\n", body))
        return body[: ends[-1].end()] if ends else b""


def _v1(**more: Any) -> dict[str, Any]:
    return {"model": "tiny-slow", "messages": WORDS, "max_tokens": 4, **more}


_NATIVE = {"model": "tiny-slow", "messages": WORDS, "options": {"num_predict": 4}}
_RESPONSES = {"model": "tiny-slow", "input": "the sea", "max_output_tokens": 4, "stream": True}
SHAPES = {
    shape.name: shape
    for shape in (
        Shape("chat", "/api/chat", _NATIVE, "ndjson", "ollama", b'"done":true'),
        Shape("openai", "/v1/chat/completions", _v1(stream=True), "sse", "openai", b"data: [DONE]\n\n"),
        Shape("anthropic", "/v1/messages", _v1(stream=True), "sse", "anthropic", b"event: message_stop"),
        Shape("responses", "/v1/responses", _RESPONSES, "sse", "openai", b"event: response.completed"),
        Shape("unstreamed", "/api/chat", _NATIVE | {"stream": False}, "whole", "ollama", b'"done":true'),
        Shape("openai-unstreamed", "/v1/chat/completions", _v1(), "whole", "openai", b'"usage"'),
        Shape("embed", "/api/embed", {"model": "tiny-embed", "input": "sea"}, "whole", "ollama", b'"embeddings"'),
    )
}
STREAMS = ("chat", "openai", "anthropic", "responses")


@define
class Heard:
    """What came over one connection; ``hung`` where it was neither whole nor closed in the end."""

    raw: bytes
    hung: bool

    @property
    def head(self) -> Response | None:
        """The answer as a client reads it; None without a whole head of HTTP."""
        if b"\r\n\r\n" not in self.raw or not self.raw.startswith(b"HTTP/1."):
            return None
        try:
            response = parse(self.raw, "POST", closed=True)
        except ValueError:
            response = parse(re.split(rb"zz\r\nthis is no chunk|\x16\x03\x01", self.raw)[0], "POST", closed=True)
        assert response is not None
        if not response.status:
            return None
        response.torn = response.torn or self.hung
        return response

    @property
    def body(self) -> bytes:
        """Every byte of the body that came, that of an unfinished chunk too."""
        assert self.head is not None
        rest = self.raw
        for _ in range(len(self.head.interim) + 1):
            rest = rest.partition(b"\r\n\r\n")[2]
        return b"".join(_chunks(rest)) if self.head.framing == "chunked" else rest


def _chunks(data: bytes) -> Iterator[bytes]:
    while b"\r\n" in data:
        size, _, data = data.partition(b"\r\n")
        if not re.fullmatch(rb"[0-9a-f]+", size) or size == b"0":
            return
        yield data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


class Listener(Protocol):
    """A client that takes whatever comes."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Any = Deferred()  # fires once the connection is gone

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


async def hear(port: int, shape: Shape, fault: Fault | None, patience: int) -> Heard:
    """Ask, and listen until the answer is whole, or the connection closed, or nothing new has come in ``patience`` looks."""
    client = Listener()
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
    transport: Any = client.transport
    transport.write(shape.request(fault))
    seen, looks, ended = 0, 0, False
    while not ended and not client.lost.called and looks < patience:
        await deferLater(reactor, 0.01)
        looks += 1
        if len(client.received) != seen:
            seen, looks = len(client.received), 0
            with suppress(ValueError, IndexError):  # no HTTP at all is what some tests look for
                ended = parse(client.received, "POST", closed=False) is not None
    hung = not ended and not client.lost.called
    transport.abortConnection()
    await client.lost
    return Heard(client.received, hung)


class Faulty:
    """A foreman in front of a simulator to which things are to happen."""

    def __init__(self, foreman: RunningForeman, simulator: Simulator, port: int) -> None:
        self.foreman = foreman
        self.simulator = simulator
        self.port = port

    async def settled(self) -> None:
        """Nothing is held any more, here or at the target, and the next one has its turn."""
        service = self.foreman.service
        inference = service.inference
        for _ in range(200):
            if not self.simulator.connections and not len(service.connections.open):
                break
            await deferLater(reactor, 0.01)
        assert self.simulator.connections == []
        assert len(service.connections.open) == 0
        assert (inference.target.gate.running, inference.target.gate.waiting, inference.target.embeddings.running) == (
            [],
            [],
            [],
        )
        assert inference.when_idle().called
        assert (inference._buffers.used, service.connections.bodies.used) == (0, 0)
        for shape in SHAPES.values():
            assert looks_whole(shape, await hear(self.foreman.port, shape, None, HUNG))
        assert service.target.inventory.degraded is None


@pytest_twisted.async_yield_fixture(params=[0.0, 300.0], ids=["in-one-go", "word-by-word"])
async def faulty(request: pytest.FixtureRequest) -> AsyncIterator[Faulty]:
    simulator = Simulator(reactor, Settings(rate=float(request.param), keep_alive=-1, parallel=200))
    listening = reactor.listenTCP(0, simulator, backlog=500, interface="127.0.0.1")
    settings = {"silence_timeout": f"{SILENCE}s", "turns": "200", "embed_cap": "200"}
    foreman = await start_foreman(port_of(listening), **settings)
    yield Faulty(foreman, simulator, port_of(listening))
    await foreman.stop()
    await listening.stopListening()


# the oracle


def plain(body: bytes) -> bytes:
    """Without what differs from one answer to the next."""
    if body.startswith(b"\x1f\x8b"):
        body = gzip.decompress(body)
    body = re.sub(rb'"created_at":"[^"]*"', b'"created_at":""', body)
    body = re.sub(rb'"(created|created_at|completed_at)":\d+', rb'"\1":0', body)
    body = re.sub(rb'_duration":\d+', b'_duration":0', body)
    return re.sub(rb'"(resp|msg|chatcmpl|call|rs|fc|req)[_-][0-9a-z_]+"', rb'"\1"', body)


def same_beginning(one: bytes, other: bytes) -> bool:
    """Whether two parts of an answer are equal, but for where times and ids of different lengths have moved the cut."""
    one, other = (re.split(rb"zz\r\nthis|\x16\x03\x01", part)[0] for part in (one, other))
    most = min(len(one), len(other))
    return abs(len(one) - len(other)) < 40 and one[:most] == other[:most]


def error_form(shape: Shape, body: bytes) -> bytes:
    """The error with which ``body`` ends, in the shape of its family; nothing where it does not."""
    if shape.kind == "whole":
        return b""
    if shape.kind == "ndjson":
        last = body[body.rfind(b"\n", 0, -1) + 1 :]
        return last if is_error(shape, last) else b""
    beginning = b"event: error\ndata: " if shape.family == "anthropic" else b"data: "
    last = body[body.rfind(beginning) :]
    return last if is_error(shape, last.removeprefix(beginning)) else b""


def is_error(shape: Shape, text: bytes) -> bool:
    """Whether ``text`` is an error in the shape of the family (contract 1.5)."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if shape.family == "ollama":
        return set(value) == {"error"} and bool(value["error"])
    if shape.family == "openai":
        error = value.get("error")
        return isinstance(error, dict) and set(error) == {"message", "type", "param", "code"} and bool(error["message"])
    return value.get("type") == "error" and set(value["error"]) == {"type", "message"} and "request_id" in value


def looks_whole(shape: Shape, heard: Heard) -> bool:
    """Whether any client could take what it heard for a whole answer."""
    response = heard.head
    if response is None or response.status != 200 or response.torn or shape.mark not in heard.body:
        return False
    if shape.kind != "whole":
        return not re.search(rb'"error":(?!null)', heard.body[heard.body.rfind(shape.mark) :])
    try:
        return "error" not in json.loads(heard.body)
    except ValueError:
        return False


def is_unmarked(shape: Shape, truth: Response, direct: Heard) -> bool:
    """Whether a stream ended properly, but neither with its end marker nor with an error."""
    if shape.kind == "whole" or truth.status != 200 or truth.header("Content-Encoding"):
        return False
    return shape.mark not in direct.body and b'\n{"error":' not in direct.body and b'data: {"error":' not in direct.body


def check_refused(shape: Shape, behind: Heard) -> None:
    """The target gave no answer: 502 in the family's shape."""
    response = behind.head
    assert response is not None, "a client of foreman got no answer"
    assert (response.status, response.torn) == (502, False)
    assert response.header("Retry-After") == "3600"
    assert is_error(shape, response.body)


def check(shape: Shape, fault: Fault, direct: Heard, behind: Heard) -> None:
    """Hold what came through foreman against what came directly."""
    reset = fault.what == "reset"  # may take with it what was not yet read
    truth, response = direct.head, behind.head
    if truth is None and direct.hung:
        assert (behind.raw, behind.hung) == (b"", True), "before the head foreman waits, as a direct client does"
        return
    assert not behind.hung
    if truth is None and reset and response is not None and response.status == 200:
        assert not looks_whole(shape, behind)  # what of it came before the reset was chance
        return
    if truth is None or b"this is not HTTP" in direct.raw.partition(b"\r\n\r\n")[0]:
        check_refused(shape, behind)
        return
    assert response is not None
    if reset and response.status == 502:
        check_refused(shape, behind)
        return
    assert response.status == truth.status
    assert response.header("Content-Type") == truth.header("Content-Type")
    assert looks_whole(shape, behind) is looks_whole(shape, direct)
    if not truth.torn and (truth.framing != "close" or looks_whole(shape, direct)):
        assert not response.torn
        unmarked = is_unmarked(shape, truth, direct)
        added = error_form(shape, behind.body) if unmarked else b""
        assert bool(added) is unmarked, "a stream without its end marker ends in silence"
        assert plain(behind.body.removesuffix(added)) == plain(direct.body)
        return
    said = error_form(shape, behind.body)
    assert said or response.torn, "a broken answer looks whole"
    came = behind.body.removesuffix(said)
    if shape.kind == "whole":
        assert reset or same_beginning(plain(came), plain(direct.body))
        return
    assert said, "the family has a form for errors, which tells more than a cut"
    came, whole = plain(came), plain(shape.whole_pieces(direct.body))
    assert came == whole or (reset and whole.startswith(came)) or (fault.at_byte and same_beginning(came, whole))


# the faults


def faults(what: str, **choices: Any) -> list[Fault]:
    """One fault for each value of the one choice; without a choice one fault."""
    if not choices:
        return [Fault(what)]  # type: ignore[arg-type]
    ((name, values),) = choices.items()
    return [Fault(what, **{name: value}) for value in values]  # type: ignore[arg-type]


#: Within the status line, the headers, the first piece, the second, and beyond the end.
BYTES = (0, 5, 60, 140, 300, 420, 1_000_000)
LINES = (0, 2, 3, 9)
BREAKING = ("reset", "close", "stall", "cut-framing", "garbage")
FAULTS = {
    **{what: [*faults(what), *faults(what, at_byte=BYTES), *faults(what, at_line=LINES)] for what in BREAKING},
    "no-done": [*faults("no-done"), *faults("no-done", at_line=(0, 2))],
    "error-line": [*faults("error-line"), *faults("error-line", at_line=(2, 9))],
    "close-delimited": [
        *faults("close-delimited"),
        *faults("close-delimited", at_line=(0, 1, 3, 9)),
        *faults("close-delimited", at_byte=(140, 300, 420)),
    ],
    "5xx": [*faults("5xx", status=(500, 502, 503)), *faults("5xx", text=("<html>what a proxy says</html>",))],
    "redirect": [
        *faults("redirect", status=(301, 302, 303, 307, 308)),
        *faults("redirect", text=("http://127.0.0.1:1/elsewhere",)),
    ],
    "gzip-unasked": faults("gzip-unasked"),
    "slow-headers": [Fault("slow-headers", pace=0.0005)],
    "no-headers": faults("no-headers"),
    "early-hints": faults("early-hints", size=(3, 1000)),
    "long-line": faults("long-line", size=(1_000_000,)),
}
NOT_HTTP = {
    "bad-status": faults("bad-status", status=(0, 99, 600, 999, 1000)),
    "two-lengths": faults("two-lengths"),
    "endless-headers": [Fault("endless-headers", pace=0.001)],
    "early-hints": faults("early-hints", size=(10_000,)),
}


def test_every_fault_of_the_simulator_is_tried() -> None:
    assert FAULTS.keys() | NOT_HTTP.keys() == set(get_args(FaultKind))


def is_content(shape: Shape, fault: Fault) -> bool:
    """Whether it would stand within a Content-Length, where nobody can tell it from an answer."""
    if shape.kind != "whole" or fault.what not in ("error-line", "garbage"):
        return False
    return fault.what == "error-line" or fault.at_line is not None or (fault.at_byte or 0) >= 300


async def at_once(port: int, cases: list[tuple[Shape, Fault]], patience: int) -> list[Heard]:
    """What is heard when everything happens at the same time."""
    hearing = [Deferred.fromCoroutine(hear(port, shape, fault, patience)) for shape, fault in cases]
    heard: list[Heard] = await gatherResults(hearing, consumeErrors=True)
    return heard


@pytest.mark.parametrize("what", FAULTS)
@pytest_twisted.ensureDeferred
async def test_an_answer_is_never_better_than_the_target_gave_it(faulty: Faulty, what: str) -> None:
    cases = [(shape, fault) for shape in SHAPES.values() for fault in FAULTS[what] if not is_content(shape, fault)]
    direct = await at_once(faulty.port, cases, HUNG_TARGET)
    behind = await at_once(faulty.foreman.port, cases, HUNG)
    problems = []
    for (shape, fault), truth, heard in zip(cases, direct, behind, strict=True):
        try:
            check(shape, fault, truth, heard)
        except AssertionError as problem:
            problems.append(f"{shape.name} {fault}: {problem}\n{truth}\n{heard}")
    assert not problems, "\n\n".join(problems)
    assert faulty.simulator.requests_for("/api/elsewhere") == []
    await faulty.settled()


@pytest.mark.parametrize("what", NOT_HTTP)
@pytest_twisted.ensureDeferred
async def test_what_is_no_answer_of_http_is_a_bad_gateway(faulty: Faulty, what: str) -> None:
    cases = [(shape, fault) for shape in SHAPES.values() for fault in NOT_HTTP[what]]
    for (shape, _), heard in zip(cases, await at_once(faulty.foreman.port, cases, HUNG), strict=True):
        check_refused(shape, heard)
    await faulty.settled()
