"""The routes that foreman answers itself, and how all other requests go to the target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
import zstandard
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger, LogLevel, capturedLogs, formatEvent

from conftest import LoggedFailures
from foreman.system.logs import observer
from support import recordings
from support.in_memory_foreman import (
    InMemoryClient,
    InMemoryForeman,
    ReceivedRequest,
    in_memory_foreman,
    response_with_length,
)
from support.raw_http import Response, request

CHAT = request("POST", "/api/chat", b'{"model":"m","messages":[{"role":"user","content":"a secret prompt"}]}')


@pytest.fixture
def step() -> Iterator[InMemoryForeman]:
    with in_memory_foreman(poll_interval="30s") as step:
        yield step


def ask(step: InMemoryForeman, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> Response:
    return step.ask_once(request(method, path, body, list(headers)), method)


def value_of(answer: Response) -> Any:
    assert answer.header("Content-Type") == "application/json; charset=utf-8"
    return json.loads(answer.body)


def chatting(step: InMemoryForeman, peer: str = "127.0.0.1") -> InMemoryClient:
    """A chat that the target does not answer yet."""
    step.target.holds_responses = True
    caller = step.call(peer)
    caller.send(CHAT)
    return caller


def log_lines(step: InMemoryForeman, *asking: bytes) -> list[str]:
    with capturedLogs() as events:
        for one in asking:
            step.ask(one)
        step.wait(1)
    return [formatEvent(event) for event in events if "status=" in formatEvent(event)]


# the root


def test_the_root_says_what_ollamas_says(step: InMemoryForeman) -> None:
    answer = ask(step, "GET", "/")
    assert (answer.status, answer.body) == (200, b"Ollama is running")
    assert (answer.header("Content-Type"), answer.header("Content-Length")) == ("text/plain; charset=utf-8", "17")
    head = ask(step, "HEAD", "/")
    assert (head.status, head.body, head.header("Content-Length")) == (200, b"", "17")


# /healthz


@pytest.mark.parametrize(
    ("path", "level"), [("/healthz", LogLevel.debug), ("/queue", LogLevel.info), ("/", LogLevel.info)]
)
def test_probes_of_healthz_are_logged_at_debug_and_all_else_at_info(
    step: InMemoryForeman, path: str, level: Any
) -> None:
    with capturedLogs() as events:
        ask(step, "GET", path)
        step.turn()
    assert [event["log_level"] for event in events if event.get("route") == path] == [level]


def test_what_is_logged_at_debug_is_shown_to_who_asks_for_it() -> None:
    for level, shown in (("info", 1), ("debug", 2)):
        for kind in ("text", "json"):
            stream = StringIO()
            log = Logger(observer=observer(kind, stream, level))
            log.debug("a probe")
            log.info("an answer")
            assert len(stream.getvalue().splitlines()) == shown


def test_healthz_reports_ok_while_all_is_well(step: InMemoryForeman) -> None:
    answer = ask(step, "GET", "/healthz")
    assert (answer.status, answer.body) == (200, b'{"status":"ok","degraded":false}')
    assert ask(step, "HEAD", "/healthz").header("Content-Length") == str(len(answer.body))


def test_a_target_that_is_away_is_told_with_a_reason_and_since_when(step: InMemoryForeman) -> None:
    before = step.clock.seconds()
    step.target.refuses_connections = True
    step.wait(100, 1)
    answer = ask(step, "GET", "/healthz")
    health = value_of(answer)
    assert (answer.status, list(health)) == (200, ["status", "degraded", "reason", "since"])
    assert (health["status"], health["degraded"], health["reason"]) == ("ok", True, "refused")
    assert health["since"] == rfc3339(before + 30)
    step.target.refuses_connections = False
    step.wait(31, 1)
    assert ask(step, "GET", "/healthz").body == b'{"status":"ok","degraded":false}'


def rfc3339(clock_seconds: float) -> str:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(1_800_000_000 + clock_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"nonsense\r\n\r\n", "garbage"),
        (response_with_length(b"[]"), "garbage"),
        (response_with_length(b'{"error":"x"}', "500 Internal Server Error"), "status"),
    ],
)
def test_the_reason_is_one_word(step: InMemoryForeman, answer: bytes, reason: str) -> None:
    step.target.answer = lambda _: answer
    step.wait(31)
    assert value_of(ask(step, "GET", "/healthz"))["reason"] == reason


def test_a_chat_that_gets_no_first_byte_for_a_quarter_of_an_hour_is_told(step: InMemoryForeman) -> None:
    caller = chatting(step)
    since = step.clock.seconds()
    step.wait(15 * 60 - 5, 5)
    assert ask(step, "GET", "/healthz").body == b'{"status":"ok","degraded":false}'
    step.wait(10, 5)
    health = value_of(ask(step, "GET", "/healthz"))
    assert health == {"status": "ok", "degraded": False, "reason": "slow", "since": rfc3339(since)}
    caller.disconnect()
    assert ask(step, "GET", "/healthz").body == b'{"status":"ok","degraded":false}'


def test_while_foreman_stops_health_is_a_503(step: InMemoryForeman) -> None:
    step.service.api.draining = True
    answer = ask(step, "GET", "/healthz")
    assert (answer.status, value_of(answer)) == (503, {"status": "draining", "degraded": False})


# /queue


def test_the_queue_shows_who_runs_and_who_waits_and_never_what_they_ask(step: InMemoryForeman) -> None:
    callers = [chatting(step, f"192.0.2.{number}") for number in (1, 2, 3)]
    step.wait(2)
    answer = ask(step, "GET", "/queue")
    assert b"secret" not in answer.body
    queue = value_of(answer)
    assert queue["turns"] == 1
    assert [(one["caller"], one["model"], one["route"], one["seconds"]) for one in queue["running"]] == [
        ("192.0.2.1", "m", "/api/chat", 2.0)
    ]
    assert [(one["caller"], one["position"]) for one in queue["waiting"]] == [("192.0.2.2", 1), ("192.0.2.3", 2)]
    assert queue["running"][0]["state"] in ("loading", "reading")
    assert queue["running"][0]["since"] == rfc3339(step.clock.seconds() - 2)
    assert queue["embedding"] == {"running": 0, "cap": 8}
    for caller in reversed(callers):  # a load whose next in line wants the same model goes on
        caller.disconnect()
    assert value_of(ask(step, "GET", "/queue"))["running"] == []


def test_a_chat_that_is_answered_shows_as_answering(step: InMemoryForeman) -> None:
    caller = chatting(step)
    step.target.request_connections[0].transport.deliver(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    step.turn()
    assert value_of(ask(step, "GET", "/queue"))["running"][0]["state"] == "answering"
    caller.disconnect()


def test_embeddings_pass_beside_the_queue_and_are_counted(step: InMemoryForeman) -> None:
    chat = chatting(step)
    embedding = step.call()
    embedding.send(request("POST", "/api/embed", b'{"model":"m","input":"x"}'))
    queue = value_of(ask(step, "GET", "/queue"))
    assert (len(queue["running"]), queue["waiting"], queue["embedding"]["running"]) == (1, [], 1)
    chat.disconnect()
    embedding.disconnect()


def test_ones_own_request_can_be_cancelled_by_its_id(step: InMemoryForeman) -> None:
    running, waiting = chatting(step), chatting(step)
    queue = value_of(ask(step, "GET", "/queue"))
    assert ask(step, "DELETE", f"/queue/{queue['waiting'][0]['id']}").status == 204
    assert [answer.status for answer in waiting.answers()] == [410]
    assert ask(step, "DELETE", f"/queue/{queue['running'][0]['id']}").status == 204
    assert [answer.status for answer in running.answers()] == [410]
    assert step.target.request_connections[0].transport.ended == "reset"
    again = ask(step, "DELETE", f"/queue/{queue['running'][0]['id']}")
    assert (again.status, "you have no queued or running request" in value_of(again)["error"]) == (404, True)


def test_a_strangers_request_cannot(step: InMemoryForeman) -> None:
    caller = chatting(step, "192.0.2.1")
    (one,) = value_of(ask(step, "GET", "/queue"))["running"]
    assert ask(step, "DELETE", f"/queue/{one['id']}").status == 404
    assert caller.answers() == []
    caller.disconnect()


# from the inventory


def tags(step: InMemoryForeman) -> list[str]:
    return [model["name"] for model in json.loads(ask(step, "GET", "/api/tags").body)["models"]]


def installed(step: InMemoryForeman, *names: str) -> None:
    """From now on the target lists these."""
    listing = json.dumps({"models": [{"name": name, "model": name, "x-future": 1} for name in names]}).encode()
    step.target.answer = lambda heard: response_with_length(
        listing if heard.target == "/api/tags" else b'{"models":[]}'
    )


def polls(step: InMemoryForeman) -> int:
    return len(step.target.connections) - len(step.target.request_connections)


def test_a_list_younger_than_a_second_is_served_as_it_is(step: InMemoryForeman) -> None:
    installed(step, "a:latest")
    before = polls(step)
    assert tags(step) == ["m:latest"]
    step.wait(0.9)
    assert tags(step) == ["m:latest"]
    assert polls(step) == before


def test_an_older_list_is_refreshed_once_for_all_who_ask(step: InMemoryForeman) -> None:
    installed(step, "a:latest")
    step.wait(1.5)
    before = polls(step)
    callers = [step.call() for _ in range(5)]
    for caller in callers:
        caller.transport.deliver(request("GET", "/api/tags"))
    step.turn()
    assert {caller.answers()[0].body for caller in callers} == {
        b'{"models": [{"name": "a:latest", "model": "a:latest", "x-future": 1}]}'
    }
    assert polls(step) == before + 2  # one of each list


def test_a_target_that_takes_longer_than_a_quarter_of_a_second_is_not_waited_for(step: InMemoryForeman) -> None:
    step.wait(1.5)
    step.target.holds_polls = True
    caller = step.call()
    caller.send(request("GET", "/api/tags"))
    step.clock.advance(0.2)
    assert caller.answers() == []
    step.clock.advance(0.06)
    step.turn()
    assert [answer.status for answer in caller.answers()] == [200]


def test_the_last_list_is_kept_while_the_target_is_away(step: InMemoryForeman) -> None:
    step.target.refuses_connections = True
    step.wait(3600, 10)
    assert tags(step) == ["m:latest"]
    assert ask(step, "GET", "/api/ps").body == b'{"models":[]}'


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps"])
def test_before_any_list_there_is_none_rather_than_an_empty_one(path: str) -> None:
    with in_memory_foreman() as step:
        step.service.target.inventory.tags = step.service.target.inventory.ps = None
        step.target.refuses_connections = True
        answer = ask(step, "GET", path)
        assert (answer.status, answer.header("Retry-After")) == (503, "3600")
        assert "not reached its target yet" in value_of(answer)["error"]


def test_what_the_target_says_instead_of_a_list_is_passed_on(step: InMemoryForeman) -> None:
    ordinary = step.target.answer
    page = b"no such thing here\n"

    def answer(heard: ReceivedRequest) -> bytes:
        return (
            response_with_length(page, "404 Not Found", "text/plain") if heard.target == "/api/ps" else ordinary(heard)
        )

    step.target.answer = answer
    step.wait(3600, 100)
    assert step.service.target.inventory.degraded is None
    assert tags(step) == ["m:latest"]
    told = ask(step, "GET", "/api/ps")
    assert (told.status, told.body) == (404, page)
    assert value_of(ask(step, "GET", "/healthz")) == {"status": "ok", "degraded": False}


def test_health_tells_that_jobs_are_held(step: InMemoryForeman) -> None:
    step.service.target.inventory.hold("gate", "for a reason that may repeat what somebody asked")
    answer = value_of(ask(step, "GET", "/healthz"))
    assert (answer["status"], answer["degraded"], answer["reason"]) == ("ok", False, "jobs_held")
    assert "since" in answer
    assert len(answer) == 4


def test_lists_have_heads(step: InMemoryForeman) -> None:
    answer = ask(step, "HEAD", "/api/tags")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("Content-Length") == str(len(ask(step, "GET", "/api/tags").body))
    assert step.target.request_connections == []


def test_what_ollama_has_not_on_a_list_is_the_targets_to_refuse(step: InMemoryForeman) -> None:
    step.target.answer = lambda _: (
        b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 22\r\n\r\n405 method not allowed"
    )
    for method, path in [
        ("HEAD", "/api/ps"),
        ("POST", "/api/tags"),
        ("PUT", "/api/ps"),
        ("get", "/api/tags"),
        ("POST", "/"),
    ]:
        answer = ask(step, method, path)
        assert (answer.status, answer.header("Allow")) == (405, "GET")
    assert len(step.target.request_connections) == 5


# to the target


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize(
    "target",
    ["/nope", "/api/version?a=1&a=%20", "/v1/models/x%3Ay", "/api/chat2/%C3%A9;v=1", "/metrics", "/v1/batches/1"],
)
def test_unknown_paths_are_relayed_unchanged(step: InMemoryForeman, method: str, target: str) -> None:
    said = [("X-A", "b"), ("X-A", "c"), ("x-lower", "D")]
    answer = ask(step, method, target, b"" if method in ("GET", "OPTIONS") else b"body", *said)
    assert answer.status == 200
    (heard,) = step.target.requests
    assert (heard.method, heard.target) == (method, target)
    assert heard.body == (b"" if method in ("GET", "OPTIONS") else b"body")
    assert (heard.named("x-a"), heard.named("x-lower")) == (["b", "c"], ["D"])
    assert bytes(step.target.request_connections[0].transport.sent).startswith(
        f"{method} {target} HTTP/1.1\r\n".encode()
    )


def test_options_for_the_whole_server_are_foremans_to_answer(step: InMemoryForeman) -> None:
    answer = ask(step, "OPTIONS", "*")
    assert (answer.status, answer.body, answer.header("Content-Length")) == (200, b"", "0")
    assert step.target.request_connections == []


def test_a_body_of_delete_goes_along(step: InMemoryForeman) -> None:
    assert ask(step, "DELETE", "/api/delete", b'{"model":"m"}').status == 200
    assert step.target.requests[0].body == b'{"model":"m"}'


@pytest.mark.parametrize("framing", ["sized", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 1024 * 1024, 1024 * 1024 + 1, 5_000_000])
def test_a_body_of_any_size_goes_along_with_its_length(step: InMemoryForeman, framing: str, size: int) -> None:
    body = (b'{"model":"m"}'.ljust(size) if size > 12 else b"x" * size) or b""
    caller = step.call()
    if framing == "sized":
        caller.send(request("POST", "/api/show", body))
    else:
        caller.send(b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, size, 70_000):
            piece = body[start : start + 70_000]
            caller.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        caller.send(b"0\r\n\r\n")
    step.turn(100)
    assert [answer.status for answer in caller.answers()] == [200]
    sent = bytes(step.target.request_connections[0].transport.sent)
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert f"Content-Length: {size}".encode() in head
    assert b"Transfer-Encoding" not in head
    assert rest == body


def test_a_large_chat_is_read_where_it_lies(step: InMemoryForeman) -> None:
    body = b'{"model":"m","images":["' + b"A" * 3_000_000 + b'"],"messages":[{"role":"user","content":"x"}]}'
    assert step.ask_once(request("POST", "/api/chat", body)).status == 200
    missing = step.ask_once(request("POST", "/api/chat", body.replace(b'"m"', b'"gone"')))
    assert (missing.status, json.loads(missing.body)) == (404, {"error": "model 'gone' not found"})


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/v1/completions"])
def test_a_target_that_cannot_be_reached_is_a_502_that_says_when_to_come_again(
    step: InMemoryForeman, path: str
) -> None:
    step.target.refuses_connections = True
    answer = ask(step, "POST", path, b'{"model":"m"}')
    assert (answer.status, answer.header("Retry-After")) == (502, "30")
    assert b"target" in answer.body


def test_a_change_of_models_is_seen_at_once(step: InMemoryForeman) -> None:
    installed(step, "new:latest")
    assert ask(step, "POST", "/api/copy", b'{"source":"m","destination":"new"}').status == 200
    step.turn()
    assert tags(step) == ["new:latest"]


def test_a_change_that_failed_is_no_reason_to_look(step: InMemoryForeman) -> None:
    step.target.answer = lambda _: response_with_length(b'{"error":"no"}', "400 Bad Request")
    before = polls(step)
    ask(step, "POST", "/api/copy", b"{}")
    assert polls(step) == before


# failures


def test_an_unexpected_failure_is_logged_and_answered_without_details(
    step: InMemoryForeman, logged_failures: LoggedFailures
) -> None:
    with patch("foreman.web.api.routes.target_request", side_effect=ZeroDivisionError("an inner secret")):
        for path in ("/api/chat", "/v1/messages", "/api/version"):
            answer = ask(step, "POST", path, b'{"model":"m"}')
            assert (answer.status, b"the log has" in answer.body, b"secret" in answer.body) == (500, True, False)
    assert len(logged_failures.take(ZeroDivisionError)) == 3


def test_every_request_has_one_line_in_the_log(step: InMemoryForeman) -> None:
    step.target.answer = lambda heard: response_with_length(b'{"models":[]}')
    lines = log_lines(
        step,
        CHAT,
        request("GET", "/healthz"),
        request("GET", "/api/tags"),
        request("GET", "/nope"),
        request("POST", "/api/chat", b"{"),
        request("POST", "/api/chat", b'{"model":"gone"}'),
        request("GET", "/api/%zz"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"nonsense\r\n",
    )
    assert [line.partition("status=")[2][:3] for line in lines] == [
        "200",
        "200",
        "200",
        "200",
        "400",
        "404",
        "400",
        "400",
        "400",
    ]
    assert not [line for line in lines if "secret" in line]
    assert len({line.rpartition(" id=")[2] for line in lines}) == len(lines)


def test_a_client_that_leaves_has_a_line_that_says_so(step: InMemoryForeman) -> None:
    with capturedLogs() as events:
        for reason in (None, ConnectionLost()):
            caller = chatting(step)
            caller.transport.disconnect(reason)
            step.turn()
        step.wait(1)
    lines = [formatEvent(event) for event in events if "status=" in formatEvent(event)]
    assert len(lines) == 2
    assert all("client left" in line for line in lines)


def test_an_upload_that_is_refused_on_its_way_has_one_line(step: InMemoryForeman) -> None:
    upload = b"POST /api/blobs/sha256:00 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n"
    (line,) = log_lines(step, upload)
    assert "status=400" in line
    assert "refused" in line


# routes of newer and older Ollamas


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/v1/images/generations", "/v1/images/edits"])
def test_what_only_some_ollamas_infer_takes_its_turn(step: InMemoryForeman, path: str) -> None:
    chatting(step)
    body = b'{"model":"m","input":"hello"}'
    plain, packed = step.call(), step.call()
    plain.send(request("POST", path, body))
    packed.send(request("POST", path, zstandard.compress(body), [("Content-Encoding", "zstd")]))
    (waiting, another) = value_of(ask(step, "GET", "/queue"))["waiting"]
    assert (waiting["model"], another["model"]) == ("m", "m")
    assert len(step.target.requests) == 1
    plain.disconnect()
    assert len(value_of(ask(step, "GET", "/queue"))["waiting"]) == 1


def test_a_compaction_for_a_model_that_is_missing_is_refused_as_by_ollama(step: InMemoryForeman) -> None:
    answer = ask(step, "POST", "/v1/responses/compact", b'{"model":"nope","input":"hello"}')
    assert answer.status == 404
    error = {"message": "model 'nope' not found", "type": "not_found_error", "param": None, "code": None}
    assert json.loads(answer.body) == {"error": error}


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/edits"])
def test_whether_there_are_images_to_be_made_is_for_the_target_to_say(step: InMemoryForeman, path: str) -> None:
    step.target.answer = lambda heard: response_with_length(b"404 page not found", "404 Not Found", "text/plain")
    answer = ask(step, "POST", path, b'{"model":"nope","prompt":"a cat"}')
    assert (answer.status, answer.body) == (404, b"404 page not found")


@pytest.mark.parametrize("body", [b"", b" "])
def test_an_empty_body_of_responses_is_refused_by_the_target_while_a_chat_runs(
    step: InMemoryForeman, body: bytes
) -> None:
    chatting(step)
    step.target.holds_responses = False
    step.target.answer = lambda heard: response_with_length(b'{"error":"in its own words"}', "400 Bad Request")
    answer = ask(step, "POST", "/v1/responses", body)
    assert (answer.status, answer.body) == (400, b'{"error":"in its own words"}')


def test_a_compaction_says_nothing_for_hours_and_is_not_taken_for_dead(step: InMemoryForeman) -> None:
    body = b'{"model":"m","stream":true,"input":[{"type":"message","role":"user","content":"a"},{"type":"compaction_trigger"}]}'
    step.target.holds_responses = True
    caller = step.call()
    caller.send(request("POST", "/v1/responses", body))
    step.wait(3 * 3600, 10)
    assert not caller.closed
    (conversation,) = step.target.request_connections
    events = recordings.load("v1-responses-compaction-trigger-stream")
    conversation.transport.deliver(recordings.response_bytes(events))
    step.turn()
    (answer,) = caller.answers("POST")
    assert answer.body.endswith(recordings.as_bytes(events["response"]["body"]))
    assert not answer.torn
