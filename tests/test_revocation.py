"""What is under way ends when its token is revoked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.logger import capturedLogs, formatEvent

from foreman import errors
from foreman.auth.tokens import Holder, Tokens, digest, format_file
from foreman.web.server.responses import failure_reply
from foreman.web.server.revocation import end_revoked
from support.in_memory_foreman import InMemoryClient, InMemoryForeman, in_memory_foreman
from support.jobs_api import ADMIN, ALICE, BOB, jobs_api_harness, until
from support.raw_http import connect, request

OLD, NEW, OTHERS, BOSS = "alices-old-token", "alices-new-token", "bobs-only-token", "the-bosss-token"
CHAT = b'{"model":"m","messages":[]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
LINE = b'{"message":{"content":"hi"},"done":false}\n'


def holders(*tokens: str, demoted: bool = False) -> str:
    names = {OLD: "alice", NEW: "alice.2", OTHERS: "bob", BOSS: "boss"}
    return format_file([Holder(names[token], digest(token), token == BOSS and not demoted) for token in tokens])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(holders(OLD, NEW, OTHERS, BOSS))
    return path


@pytest.fixture
def step(path: Path) -> Iterator[InMemoryForeman]:
    with in_memory_foreman(tokens_file=str(path)) as step:
        yield step


def call(step: InMemoryForeman, token: str, method: str, target: str, body: bytes = b"") -> InMemoryClient:
    caller = step.call()
    caller.send(request(method, target, body, [("Authorization", f"Bearer {token}")]))
    return caller


def revoke(step: InMemoryForeman, path: Path, *left: str) -> None:
    path.write_text(holders(*left))
    step.service.reload()
    step.turn()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def test_a_stream_ends_with_words_and_the_target_is_let_go(step: InMemoryForeman, path: Path) -> None:
    step.target.holds_responses = True
    alice = call(step, OLD, "POST", "/api/chat", CHAT)
    bob = call(step, OTHERS, "POST", "/api/embed", b'{"model":"m","input":"x"}')
    asked = step.target.request_connections[0]
    asked.transport.deliver(HEAD + chunk(LINE))
    step.turn()
    assert LINE in alice.received
    revoke(step, path, NEW, OTHERS, BOSS)
    (answer,) = alice.answers()
    assert json.loads(answer.body.split(b"\n")[1]) == {"error": "the token of this request was revoked"}
    assert asked.transport.disconnecting
    assert not step.target.request_connections[1].transport.disconnecting
    assert bob.received == b""
    bob.disconnect()


def test_who_waits_for_a_turn_is_sent_away_and_the_next_goes_on(step: InMemoryForeman, path: Path) -> None:
    step.target.holds_responses = True
    first = call(step, OTHERS, "POST", "/api/chat", CHAT)
    alice = call(step, OLD, "POST", "/api/chat", CHAT)
    third = call(step, NEW, "POST", "/api/chat", CHAT)
    with capturedLogs() as events:
        revoke(step, path, NEW, OTHERS, BOSS)
        step.turn()
    (answer,) = alice.answers()
    assert (answer.status, answer.header("WWW-Authenticate")) == (401, 'Bearer realm="foreman"')
    assert [one.caller for one in step.service.target.gate.waiting] == ["alice.2"]
    said = [formatEvent(event) for event in events]
    assert any("caller=alice status=401" in line and "'cancelled'" in line for line in said), said
    assert any("requests that were ended, since their token was revoked: 1" in line for line in said)
    first.disconnect()
    third.disconnect()


def test_of_two_tokens_of_a_name_only_the_revoked_one_ends(step: InMemoryForeman) -> None:
    step.target.holds_responses = True
    old, new = Holder("alice", digest(OLD)), Holder("alice", digest(NEW))
    step.service._replace_tokens(Tokens((old, new), required=True))
    before = [call(step, token, "POST", "/api/embed", b'{"model":"m","input":"x"}') for token in (OLD, NEW)]
    step.service._replace_tokens(Tokens((new,), required=True))
    step.turn()
    assert [len(caller.answers()) for caller in before] == [1, 0]
    before[1].disconnect()


def test_an_admin_who_is_one_no_more_loses_what_only_admins_may(step: InMemoryForeman, path: Path) -> None:
    step.target.holds_responses = True
    boss = call(step, BOSS, "POST", "/api/pull", b'{"model":"m"}')
    asked = step.target.request_connections[0]
    asked.transport.deliver(HEAD + chunk(b'{"status":"pulling"}\n'))
    step.turn()
    path.write_text(holders(OLD, NEW, OTHERS, BOSS, demoted=True))
    step.service.reload()
    step.turn()
    (answer,) = boss.answers()
    assert b"revoked" in answer.body
    assert asked.transport.disconnecting


@pytest.mark.parametrize("target", ["/api/chat", "/api/blobs/sha256:00"])
def test_a_body_that_still_comes_is_not_waited_for(step: InMemoryForeman, path: Path, target: str) -> None:
    alice = step.call()
    alice.send(
        f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {BOSS}\r\nContent-Length: 1000\r\n\r\nabc".encode()
    )
    revoke(step, path, OLD)
    (answer,) = alice.answers()
    assert answer.status == 401
    step.wait(60)
    assert alice.closed
    assert step.service.connections.bodies.used == 0
    assert all(one.transport.disconnecting or one.transport.lost for one in step.target.request_connections)


def test_an_answer_that_was_broken_off_is_not_logged_again_while_its_client_reads_the_rest(
    step: InMemoryForeman, path: Path
) -> None:
    step.target.holds_responses = True
    alice = step.call(reads=False)
    with capturedLogs() as events:
        alice.send(request("POST", "/api/embed", b'{"model":"m","input":"x"}', [("Authorization", f"Bearer {OLD}")]))
        asked = step.target.request_connections[0]
        asked.transport.deliver(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        step.turn()
        asked.transport.disconnect()
        step.turn()
        revoke(step, path, NEW, OTHERS, BOSS)
    assert not alice.closed
    lines = [formatEvent(event) for event in events if "caller=alice" in formatEvent(event)]
    assert len(lines) == 1, lines
    assert "outcome='target failed'" in lines[0]
    alice.disconnect()


def test_everybody_else_is_left_alone(step: InMemoryForeman, path: Path) -> None:
    idle = step.call()
    step.target.holds_responses = True
    running = call(step, OLD, "POST", "/api/chat", CHAT)
    revoke(step, path, OLD, OTHERS)
    assert (idle.closed, running.closed, running.received) == (False, False, b"")
    idle.send(request("GET", "/healthz"))
    assert [answer.status for answer in idle.answers()] == [200]
    running.disconnect()


# jobs


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("what", ["events", "stream"])
@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_who_follows_a_job_is_told_and_cut_off(tmp_path: Path, what: str, accept: str) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        clients = []
        for token in (ALICE, ADMIN):
            client = await connect(bench.port)
            client.send(bench.request("GET", f"/jobs/{id_}/{what}", b"", ("Accept", accept), token=token))
            await until(lambda client=client: b"\r\n\r\n" in client.received)  # type: ignore[misc]
            clients.append(client)
        kept = tuple(one for one in bench.connections.admission.tokens.holders if one.name != "alice")
        bench.connections.admission.auth.tokens = Tokens(kept, required=True)
        log = bench.connections.observer
        ended = end_revoked(bench.connections.open, bench.connections.admission.tokens, lambda _id, _why: False, log)
        assert ended == 1
        answer = await clients[0].done
        assert b"the token of this request was revoked" in answer.body
        assert not clients[1].received.endswith(b"0\r\n\r\n")
        for client in clients:
            client.leave()
            await client.gone


@pytest_twisted.ensureDeferred
async def test_who_waits_for_a_job_is_sent_away_and_the_job_stays(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        client = await connect(bench.port)
        client.send(bench.request("GET", f"/jobs/{id_}?wait=200"))
        await until(lambda: any(connection.requests for connection in bench.connections.open))
        admission = bench.connections.admission
        admission.auth.tokens = Tokens((Holder("root", digest(ADMIN), admin=True),), required=True)
        assert (
            end_revoked(bench.connections.open, admission.tokens, lambda _id, _why: False, bench.connections.observer)
            == 1
        )
        assert (await client.done).status == 401
        assert (await bench.ask("GET", f"/jobs/{id_}", token=ADMIN)).status == 200
        assert (await bench.ask("GET", f"/jobs/{id_}", token=BOB)).status == 401


def test_a_failure_of_this_kind_has_a_status() -> None:
    for family in ("ollama", "openai", "anthropic"):
        assert failure_reply(family, errors.Revoked("gone"), "0" * 24, 1).status == 401
