"""What a client sees while it waits, on a clock."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from foreman import errors
from foreman.protocol.endpoints import Family, Lane
from foreman.protocol.request_body import RequestBody
from foreman.protocol.routes import Route
from foreman.proxy.access_record import RequestRecord
from foreman.scheduling.estimates import Range
from foreman.scheduling.queue_status import QueuePosition
from foreman.web.api.responder import ClientResponder
from foreman.web.server.heartbeat import GRACE_AFTER_PAUSE, HeartbeatPolicy, QueueHeartbeat
from foreman.web.server.request import ClientRequest
from foreman.web.server.responses import Reply
from support.in_memory_foreman import in_memory_foreman, response_with_length
from support.raw_http import request


@define
class Told:
    """A request that remembers what its client was told."""

    route: Route
    received_at: float = 0.0
    request_id: str = "0" * 24
    startedWriting: bool = False
    status: int = 0
    headers: dict[str, str] = field(factory=dict)
    kind: str = ""
    body: bytes = b""
    ending: str | errors.ForemanError = ""
    raw_headers: list[tuple[bytes, bytes]] = field(factory=list)

    @property
    def family(self) -> Family:
        return self.route.family

    @property
    def code(self) -> int:
        return self.status

    def http_date(self) -> bytes:
        return b"today"

    def begin(self, status: int, phrase: bytes, headers: list[tuple[bytes, bytes]], kind: str) -> None:
        assert not self.startedWriting
        self.startedWriting, self.status, self.kind = True, status, kind
        self.headers = {name.decode(): value.decode() for name, value in headers}

    def write(self, data: bytes) -> None:
        self.body += data

    def finish(self) -> None:
        self.ending = "finished"

    def break_off(self, problem: errors.ForemanError, *, between_pieces: bool) -> None:
        assert between_pieces
        self.ending = problem

    def answer(self, reply: Reply) -> None:
        self.begin(reply.status, b"", reply.headers, "other")
        self.write(reply.body)
        self.finish()


class Waiting:
    """One client that waits."""

    def __init__(
        self,
        path: str = "/api/chat",
        family: Family = "ollama",
        *,
        stream: bool = True,
        agent: bytes = b"",
        **notices: Any,
    ) -> None:
        self.clock = Clock()
        self.told = Told(Route(Lane.GATE, family, path), raw_headers=[(b"User-Agent", agent)] if agent else [])
        self.place = QueuePosition(3, Range(20.0, 42.0))
        request = cast("ClientRequest", self.told)
        settings = HeartbeatPolicy(**{"after": 5.0, "after_unary": 240.0, **notices})
        view = QueueHeartbeat(self.clock, self.clock.seconds, request, RequestBody("m", stream), settings)
        self.client = ClientResponder(request, RequestRecord("id", "someone", path, "gate", 0.0), view)
        self.client.queued(lambda: self.place)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2))

    def hear(self, *pieces: bytes, status: int = 200) -> None:
        self.client.begin(status, b"", [(b"Content-Type", b"application/x-ndjson")], "ndjson")
        for piece in pieces:
            self.client.write(piece)
        self.client.finish()


def test_within_the_grace_time_nothing_is_sent_and_the_answer_is_as_ollama_gives_it() -> None:
    waiting = Waiting()
    waiting.pass_time(4.5)
    assert not waiting.told.startedWriting
    waiting.hear(b'{"error":"no"}', status=404)
    assert (waiting.told.status, waiting.told.body, waiting.told.ending) == (404, b'{"error":"no"}', "finished")
    assert waiting.clock.getDelayedCalls() == []


def test_after_it_a_stream_begins_with_the_place_and_one_space_every_ten_seconds() -> None:
    waiting = Waiting()
    waiting.pass_time(5)
    assert waiting.told.status == 200
    assert waiting.told.headers == {
        "Content-Type": "application/x-ndjson",
        "Date": "today",
        "X-Accel-Buffering": "no",
        "Cache-Control": "no-cache",
        "X-Foreman-Position": "3",
        "X-Foreman-Wait": "42",
    }
    assert waiting.told.body == b" "
    waiting.pass_time(20)
    assert waiting.told.body == b"   "
    waiting.hear(b'{"done":true}\n')
    assert waiting.told.body == b'   {"done":true}\n'
    assert waiting.told.ending == "finished"
    assert waiting.clock.getDelayedCalls() == []


def test_nothing_is_said_of_a_wait_that_nobody_knows() -> None:
    waiting = Waiting()
    waiting.place = QueuePosition(1, None)
    waiting.pass_time(5)
    assert "X-Foreman-Wait" not in waiting.told.headers


@pytest.mark.parametrize(("family", "path"), [("openai", "/v1/chat/completions"), ("anthropic", "/v1/messages")])
def test_an_event_stream_gets_comments_that_say_where_it_stands(family: Family, path: str) -> None:
    waiting = Waiting(path, family)
    waiting.pass_time(5)
    assert waiting.told.headers["Content-Type"] == "text/event-stream"
    waiting.place = QueuePosition(1, None)
    waiting.pass_time(10)
    assert waiting.told.body == b": position=3 wait=42\n\n: position=1\n\n"


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_for_clients_that_parse_chunk_by_chunk_a_filler_is_a_whole_empty_object(path: str) -> None:
    waiting = Waiting(path, objects=True)
    waiting.pass_time(5)
    filler = json.loads(waiting.told.body)
    assert waiting.told.body.endswith(b"}\n")
    assert filler["model"] == "m"
    assert filler["done"] is False
    assert (filler["message"]["content"] if path == "/api/chat" else filler["response"]) == ""


def scanned(received: bytes) -> list[Any]:
    """What Ollama's client in Go makes of what it received when it is interrupted (contract 6).

    Its scanner hands over each line and, when nothing more comes, what stands behind the last of them.
    """
    *lines, rest = received.split(b"\n")
    return [json.loads(line) for line in [*lines, *([rest] if rest else [])]]


@pytest.mark.parametrize(
    "agent", [b"ollama/0.34.4 (amd64 linux) Go/go1.26.0", b"Ollama/0.0.0 (arm64 darwin) Go/go1.27"]
)
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_ollamas_own_client_can_be_interrupted_while_it_waits(path: str, agent: bytes) -> None:
    with in_memory_foreman() as step:
        step.target.holds_responses = True
        running, waiting = step.call(), step.call()
        body = b'{"model":"m","messages":[{"role":"user","content":"a"}],"prompt":"a"}'
        running.send(request("POST", path, body))
        waiting.send(request("POST", path, body, [("User-Agent", agent.decode())]))
        step.wait(6)
        for fillers in (1, 2, 3):
            chunks = [chunk for chunk in waiting.received.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2] if chunk]
            assert len(chunks) == fillers
            for value in scanned(b"".join(chunks)):
                assert (value["model"], value["done"]) == ("m", False)
                assert (value["message"]["content"] if path == "/api/chat" else value["response"]) == ""
            step.wait(10)
        waiting.disconnect()
        assert step.service.target.gate.waiting == []
        assert b"\r\n \r\n" in b"\r\n" + running.received.partition(b"\r\n\r\n")[2]


def test_other_clients_of_the_same_words_get_spaces() -> None:
    for agent in (b"ollama-python/0.6.1", b"my ollama/1", b""):
        waiting = Waiting(agent=agent)
        waiting.pass_time(5)
        assert waiting.told.body == b" "


def test_an_unstreamed_answer_gets_spaces_much_later() -> None:
    waiting = Waiting("/v1/chat/completions", "openai", stream=False)
    waiting.pass_time(239)
    assert not waiting.told.startedWriting
    waiting.pass_time(11)
    assert waiting.told.headers["Content-Type"] == "application/json"
    assert "X-Accel-Buffering" not in waiting.told.headers
    waiting.hear(b'{"choices":[]}')
    assert json.loads(waiting.told.body) == {"choices": []}
    assert waiting.told.body.startswith(b"  ")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/api/embed", "application/json; charset=utf-8"),
        ("/api/embeddings", "application/json; charset=utf-8"),
        ("/v1/embeddings", "application/json"),
        ("/api/chat", "application/json; charset=utf-8"),
    ],
)
def test_whatever_is_answered_in_one_piece_shows_life_in_line_and_at_the_target(path: str, content_type: str) -> None:
    with in_memory_foreman(embed_cap="1", wait_notice_unary="30s") as step:
        step.target.holds_responses = True
        body = b'{"model":"m","input":"a","prompt":"a","messages":[{}],"stream":false}'
        running, waiting = step.call(), step.call()
        for caller in (running, waiting):
            caller.send(request("POST", path, body))
        step.wait(29)
        assert running.received + waiting.received == b""
        step.wait(12)
        for caller, place in ((running, b"0"), (waiting, b"1")):
            head, _, rest = caller.received.partition(b"\r\n\r\n")
            assert b"X-Foreman-Position: " + place in head
            assert b"Content-Type: " + content_type.encode() in head
            assert rest == b"1\r\n \r\n" * 2
        step.target.request_connections[0].transport.deliver(response_with_length(b'{"embeddings":[]}'))
        step.turn()
        (answer,) = running.answers("POST")
        assert json.loads(answer.body) == {"embeddings": []}


@pytest.mark.parametrize(
    ("stream", "notices"),
    [(True, {"after": 0.0}), (False, {"after": 0.0}), (False, {"after_unary": 0.0})],
    ids=["a stream", "one piece", "one piece alone"],
)
def test_zero_turns_the_notice_off_and_for_streams_it_turns_all_off(stream: bool, notices: dict[str, Any]) -> None:
    waiting = Waiting(stream=stream, **notices)
    waiting.pass_time(1000)
    assert not waiting.told.startedWriting


def test_a_refusal_of_the_target_behind_a_notice_keeps_its_own_words() -> None:
    waiting = Waiting()
    waiting.pass_time(5)
    waiting.hear(b'{"error":"model ', b"'m' not found\"}", status=404)
    assert isinstance(waiting.told.ending, errors.HTTPError)
    assert (waiting.told.ending.status, waiting.told.ending.text) == (404, "model 'm' not found")
    assert waiting.told.body == b" "


def test_a_refusal_in_the_shape_of_openai_is_read_too() -> None:
    waiting = Waiting("/v1/chat/completions", "openai")
    waiting.pass_time(5)
    waiting.hear(b'{"error":{"message":"too long","type":"invalid_request_error"}}\n', status=400)
    assert isinstance(waiting.told.ending, errors.HTTPError)
    assert waiting.told.ending.text == "too long"


def test_a_failure_before_the_notice_has_a_status_and_behind_it_the_error_form() -> None:
    early, late = Waiting(), Waiting()
    late.pass_time(5)
    problem = errors.ConnectionError("refused", "the target refuses connections")
    assert early.client.fail(problem, retry_after=30) == 502
    assert early.told.headers["Retry-After"] == "30"
    assert late.client.fail(problem, retry_after=30) == 200
    assert late.told.ending is problem


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_that_came_during_a_pause_of_foreman_keeps_its_status(stream: bool) -> None:
    waiting = Waiting(stream=stream)
    waiting.pass_time(3)
    waiting.clock.advance(3600)
    assert not waiting.told.startedWriting  # what has arrived is read after this
    waiting.hear(b'{"error":"no"}', status=500)
    assert waiting.told.status == 500


def test_after_a_pause_of_foreman_the_first_sign_of_life_comes_soon() -> None:
    waiting = Waiting()
    waiting.clock.advance(3600)
    waiting.clock.advance(GRACE_AFTER_PAUSE)
    assert waiting.told.body == b" "
    waiting.client.stop_waiting()
    assert waiting.clock.getDelayedCalls() == []


def test_time_that_passed_before_the_request_stood_in_line_counts() -> None:
    waiting = Waiting()
    waiting.client.stop_waiting()
    waiting.clock.advance(4)
    waiting.client.queued(lambda: waiting.place)
    waiting.clock.advance(1)
    assert waiting.told.startedWriting


def test_a_shorter_grace_time_makes_the_fillers_come_sooner() -> None:
    waiting = Waiting(after=0.5)
    waiting.pass_time(3.5)
    assert waiting.told.body == b"    "
