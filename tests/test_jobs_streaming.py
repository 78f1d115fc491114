"""Following a job: live and resumed, as NDJSON and as SSE, with no line lost and none sent twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from foreman.jobs.retry_policy import AttemptError
from support import raw_http
from support.jobs_api import LARGE, LIMITS, JobsApiHarness, events, jobs_api_harness, line, problem, until, values
from support.live_foreman import reactor

SSE = ("Accept", "text/event-stream, */*;q=0.1")
BROKEN = AttemptError("truncated", "the answer ended without its end")


@pytest.fixture
def _quick() -> Iterator[None]:
    """Signs of life come quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foreman.web.jobs.streaming.HEARTBEAT_INTERVAL", 0.05)
        yield


async def follow(bench: JobsApiHarness, path: str, *headers: tuple[str, str]) -> raw_http.RawClient:
    """A client that follows, and has had the head of its answer."""
    client = await raw_http.connect(bench.port)
    client.send(bench.request("GET", path, b"", *headers))
    await until(lambda: b"\r\n\r\n" in client.received)
    return client


async def heard(client: raw_http.RawClient, data: bytes) -> None:
    """Wait until the client has had ``data``."""
    await until(lambda: data in client.received)


# events


@pytest_twisted.ensureDeferred
async def test_events_are_sent_from_the_first_to_the_last(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        client = await follow(bench, f"/jobs/{id_}/events")
        claim, output = await bench.run(id_)
        await bench.try_again(claim, output)
        await bench.succeed(*await bench.run(id_))
        answer = await client.done
        assert answer.header("Content-Type") == "application/x-ndjson"
        told = values(answer.body)
        assert [event["type"] for event in told] == ["queued", "running", "queued", "running", "succeeded"]
        assert [event["attempt"] for event in told] == [0, 1, 1, 2, 2]
        assert list(told[0]) == ["id", "at", "type", "attempt", "error"]
        assert told[2]["error"] == "truncated: it broke off"
        for behind in range(5):
            path = f"/jobs/{id_}/events?after={told[behind]['id']}"
            assert values((await bench.ask("GET", path)).body) == told[behind + 1 :]
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_sse_events_resume_after_the_last_that_was_received(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        await bench.ask("POST", f"/jobs/{id_}/cancel")
        answer = await bench.ask("GET", f"/jobs/{id_}/events", b"", SSE)
        assert answer.header("Content-Type") == "text/event-stream"
        told = events(answer.body)
        assert [(kind, data["type"]) for kind, _, data in told] == [("message", "queued"), ("message", "cancelled")]
        assert [id_ for _, id_, _ in told] == [str(data["id"]) for _, _, data in told]
        # What a browser heard last counts for more than the query that it repeats.
        rest = await bench.ask("GET", f"/jobs/{id_}/events?after=0", b"", SSE, ("Last-Event-ID", told[0][1]))
        assert events(rest.body) == told[1:]
        over = await bench.ask("GET", f"/jobs/{id_}/events", b"", SSE, ("Last-Event-ID", told[1][1]))
        assert (over.status, over.body) == (204, b"")
        for bad in ("x", "-1", "1-2", "9" * 19, "%D9%A1"):
            assert problem(await bench.ask("GET", f"/jobs/{id_}/events?after={bad}"))["status"] == 400


@pytest_twisted.ensureDeferred
async def test_without_follow_the_events_so_far_are_sent_at_once(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        told = values((await bench.ask("GET", f"/jobs/{id_}/events?follow=0")).body)
        assert [event["type"] for event in told] == ["queued"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("foreman.web.jobs.streaming.EVENTS_PER_READ", 2)
            for _ in range(2):
                await bench.ask("POST", f"/jobs/{id_}/cancel")
                await bench.ask("POST", f"/jobs/{id_}/retry")
            told = values((await bench.ask("GET", f"/jobs/{id_}/events?follow=0")).body)
        assert [event["type"] for event in told] == ["queued", "cancelled", "queued", "cancelled", "queued"]
        none = await bench.ask("GET", f"/jobs/{id_}/events?follow=0&after={told[-1]['id']}")
        assert (none.status, none.body) == (200, b"")
        for bad in ("", "2", "no"):
            assert problem(await bench.ask("GET", f"/jobs/{id_}/events?follow={bad}"))["status"] == 400


@pytest_twisted.ensureDeferred
async def test_many_events_are_sent_in_order(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("foreman.web.jobs.streaming.EVENTS_PER_READ", 2)
            for _ in range(3):
                await bench.ask("POST", f"/jobs/{id_}/cancel")
                await bench.ask("POST", f"/jobs/{id_}/retry")
            await bench.ask("POST", f"/jobs/{id_}/cancel")
            told = values((await bench.ask("GET", f"/jobs/{id_}/events")).body)
        assert [event["type"] for event in told] == ["queued", "cancelled"] * 4


@pytest.mark.usefixtures("_quick")
@pytest_twisted.ensureDeferred
async def test_while_nothing_happens_heartbeats_are_sent(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        clients = [
            await follow(bench, f"/jobs/{id_}/{what}", *how) for what in ("events", "stream") for how in ([], [SSE])
        ]
        await deferLater(reactor, 0.3)
        plain, sse, lines, line_events = [client.received.partition(b"\r\n\r\n")[2] for client in clients]
        assert plain.endswith(b"1\r\n \r\n1\r\n \r\n")
        assert lines.startswith(b"1\r\n \r\n1\r\n \r\n")
        assert sse.endswith(b"\r\n:\n\n\r\n")
        assert line_events.startswith(b"3\r\n:\n\n\r\n")
        claim, output = await bench.run(id_)
        output.add(line(1))
        await bench.succeed(claim, output)
        answers = [await client.done for client in clients]
        assert [event["type"] for event in values(answers[0].body)] == ["queued", "running", "succeeded"]
        assert values(answers[2].body) == [json.loads(line(1))]
        assert events(answers[3].body) == [("message", "1-1", json.loads(line(1)))]
        for client in clients:
            client.leave()
            await client.gone


@pytest_twisted.ensureDeferred
async def test_a_follower_that_disconnects_leaves_nothing_behind(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        _claim, output = await bench.run(id_)
        clients = [await follow(bench, f"/jobs/{id_}/{what}") for what in ("events", "stream")]
        await until(lambda: bench.store.notifications._changed and output._changed)
        for client in clients:
            client.leave()
            await client.gone
        await until(lambda: not (bench.store.notifications._changed or output._changed or bench.api._wakeups._closing))


@pytest_twisted.ensureDeferred
async def test_when_foreman_stops_the_answer_is_cut_so_that_nobody_takes_it_for_complete(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        _claim, output = await bench.run(id_)
        output.add(line(1))
        clients = [await follow(bench, f"/jobs/{id_}/{what}") for what in ("events", "stream")]
        waiting = Deferred.fromCoroutine(bench.ask("GET", f"/jobs/{id_}?wait=300"))
        await until(lambda: len(bench.api._wakeups._closing) == 3)
        bench.api.close()
        for client in clients:
            answer = await client.done
            await client.gone
            assert (answer.status, answer.torn) == (200, True)
            assert values(answer.body)
        assert json.loads((await waiting).body)["state"] == "running"


@pytest.mark.parametrize("sse", [False, True])
@pytest_twisted.ensureDeferred
async def test_when_foreman_stops_a_client_of_http_1_0_gets_an_error_as_its_last_line(
    tmp_path: Path, sse: bool
) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        client = await raw_http.connect(bench.port)
        accept = (SSE,) if sse else ()
        client.send(bench.request("GET", f"/jobs/{id_}/events", b"", *accept).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await heard(client, b'"queued"')
        await until(lambda: len(bench.api._wakeups._closing) == 1)
        bench.api.close()
        answer = await client.done
        last = b'{"error":"foreman is stopping; reconnect with the last id that you received"}'
        assert answer.framing == "close"
        assert answer.body.endswith(b"event: error\ndata: " + last + b"\n\n" if sse else last + b"\n")
        assert b'"queued"' in answer.body


# the stream


@pytest_twisted.ensureDeferred
async def test_lines_come_one_by_one_while_the_job_runs_and_from_the_store_afterwards(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        client = await follow(bench, f"/jobs/{id_}/stream")
        claim, output = await bench.run(id_)
        for number in range(3):
            output.add(line(number))
            await heard(client, line(number))
        await bench.succeed(claim, output)
        answer = await client.done
        expected = b"".join(map(line, range(3)))
        assert (answer.body, answer.chunks) == (expected, [line(number) for number in range(3)])
        assert (answer.header("X-Foreman-Attempt"), answer.header("Cache-Control")) == ("1", "no-cache")
        later = await bench.ask("GET", f"/jobs/{id_}/stream")
        assert (later.body, later.header("X-Foreman-Attempt")) == (expected, "1")
        rest = await bench.ask("GET", f"/jobs/{id_}/stream?after=1-2")
        assert rest.body == line(2)
        sse = await bench.ask("GET", f"/jobs/{id_}/stream", b"", SSE, ("Last-Event-ID", "1-1"))
        assert [id_ for _, id_, _ in events(sse.body)] == ["1-2", "1-3"]
        assert (await bench.ask("GET", f"/jobs/{id_}/stream", b"", SSE, ("Last-Event-ID", "1-3"))).status == 204
        head = await bench.ask("HEAD", f"/jobs/{id_}/stream")
        assert (head.status, head.body) == (200, b"")
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_a_second_attempt_says_that_the_lines_so_far_are_void(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        first, output = await bench.run(id_)
        clients = [await follow(bench, f"/jobs/{id_}/stream", *how) for how in ([], [SSE])]
        output.add(line(1))
        output.add(line(2))
        await until(lambda: all(line(2).strip() in client.received for client in clients))
        await bench.try_again(first, output)
        second, output = await bench.run(id_)
        output.add(line(7))
        await bench.succeed(second, output)
        plain, sse = [await client.done for client in clients]
        assert values(plain.body) == [json.loads(line(1)), json.loads(line(2)), {"attempt": 2}, json.loads(line(7))]
        assert [(kind, id_) for kind, id_, _ in events(sse.body)] == [
            ("message", "1-1"), ("message", "1-2"), ("attempt", "2-0"), ("message", "2-1"),
        ]  # fmt: skip
        resumed = await bench.ask("GET", f"/jobs/{id_}/stream?after=1-2")
        assert values(resumed.body) == [{"attempt": 2}, json.loads(line(7))]
        assert values((await bench.ask("GET", f"/jobs/{id_}/stream?after=2-0")).body) == [json.loads(line(7))]
        fresh = await bench.ask("GET", f"/jobs/{id_}/stream")
        assert (values(fresh.body), fresh.header("X-Foreman-Attempt")) == ([json.loads(line(7))], "2")
        for client in clients:
            client.leave()
            await client.gone


@pytest_twisted.ensureDeferred
async def test_the_stream_of_a_job_without_success_ends_with_an_error(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit(max_attempts=1)
        claim, output = await bench.run(id_)
        clients = [await follow(bench, f"/jobs/{id_}/stream", *how) for how in ([], [SSE])]
        output.add(line(1))
        output.add(line(2))
        assert (await bench.fail(claim, output, BROKEN)).state == "discarded"
        plain, sse = [await client.done for client in clients]
        error = {"error": BROKEN.message}
        assert values(plain.body) == [json.loads(line(1)), json.loads(line(2)), error]
        assert events(sse.body)[-1] == ("error", "1-end", error)
        assert values((await bench.ask("GET", f"/jobs/{id_}/stream?after=1-1")).body) == [json.loads(line(2)), error]
        assert values((await bench.ask("GET", f"/jobs/{id_}/stream?after=1-2")).body) == [error]
        over = await bench.ask("GET", f"/jobs/{id_}/stream", b"", SSE, ("Last-Event-ID", "1-end"))
        assert over.status == 204
        await bench.ask("POST", f"/jobs/{id_}/retry")
        claim, output = await bench.run(id_)
        output.add(line(3))
        await bench.succeed(claim, output)
        again = await bench.ask("GET", f"/jobs/{id_}/stream", b"", SSE, ("Last-Event-ID", "1-end"))
        assert [(kind, id_) for kind, id_, _ in events(again.body)] == [("attempt", "2-0"), ("message", "2-1")]
        for client in clients:
            client.leave()
            await client.gone


@pytest_twisted.ensureDeferred
async def test_no_reader_is_sent_back_to_an_earlier_attempt(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        claim, output = await bench.run(id_)
        output.add(line(1))
        await bench.try_again(claim, output)
        await bench.fail(*await bench.run(id_), AttemptError("refused", "no"), partial=False)
        for after in ("", "?after=1-1", "?after=2-0"):
            assert values((await bench.ask("GET", f"/jobs/{id_}/stream{after}")).body)[-1] == {"error": "no"}
        assert values((await bench.ask("GET", f"/jobs/{id_}/stream?after=2-0")).body) == [{"error": "no"}]
        assert values((await bench.ask("GET", f"/jobs/{id_}/stream")).body) == [{"error": "no"}]


@pytest_twisted.ensureDeferred
async def test_a_job_that_is_cancelled_while_it_waits_ends_its_followers(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        client = await follow(bench, f"/jobs/{id_}/stream")
        await bench.ask("POST", f"/jobs/{id_}/cancel")
        assert values((await client.done).body) == [{"error": "cancelled"}]
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_a_reader_may_come_back_before_the_first_line(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        first = await follow(bench, f"/jobs/{id_}/stream")
        assert b"X-Foreman-Attempt: 1\r\n" in first.received
        first.leave()
        await first.gone
        second = await follow(bench, f"/jobs/{id_}/stream?after=1-0")
        claim, output = await bench.run(id_)
        output.add(line(1))
        await bench.succeed(claim, output)
        assert (await second.done).body == line(1)
        second.leave()
        await second.gone


@pytest_twisted.ensureDeferred
async def test_jobs_without_a_stream_and_invalid_line_ids_are_refused(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        embedding = await bench.submit(endpoint="/v1/embeddings", payload={"model": "m", "input": "x"})
        assert problem(await bench.ask("GET", f"/jobs/{embedding}/stream"))["status"] == 404
        assert problem(await bench.ask("GET", f"/jobs/{embedding}/stream", b"", SSE))["status"] == 404
        id_ = await bench.submit()
        for bad in ("x", "1", "1-", "1-x", "0-99999999999999999999", "2-0", "99-0"):
            assert problem(await bench.ask("GET", f"/jobs/{id_}/stream?after={bad}"))["status"] == 400, bad


@pytest_twisted.ensureDeferred
async def test_strange_lines_break_neither_shape(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        claim, output = await bench.run(id_)
        for text in (b'{"a":\r1}\r\n', b"\n", b'  {"b":"\xe2\x80\xa8"}\n', b'{"c":2}'):
            output.add(text)
        await bench.succeed(claim, output)
        expected = [{"a": 1}, {"b": "\u2028"}, {"c": 2}]
        assert values((await bench.ask("GET", f"/jobs/{id_}/stream")).body) == expected
        sse = await bench.ask("GET", f"/jobs/{id_}/stream", b"", SSE)
        assert [data for _, _, data in events(sse.body)] == expected


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_holds_nothing_up_and_gets_everything(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        id_ = await bench.submit()
        claim, output = await bench.run(id_)
        client = await raw_http.connect(bench.port)
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(bench.request("GET", f"/jobs/{id_}/stream"))
        big = b'{"x":"%b"}\n' % (b"x" * 100_000)
        lines = [big] * (LARGE // len(big))
        for text in lines:
            output.add(text)
        await deferLater(reactor, 0.2)
        await bench.succeed(claim, output)
        pieces: list[bytes] = []
        client.dataReceived = pieces.append  # type: ignore[assignment,method-assign]
        client.transport.resumeProducing()  # type: ignore[union-attr]
        await until(lambda: b"".join(pieces[-5:]).endswith(b"\r\n0\r\n\r\n"))
        answer = raw_http.parse(b"".join(pieces), "GET", closed=True)
        assert answer is not None
        assert answer.body == b"".join(lines)
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_a_reader_that_reads_nothing_is_cut_off(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, limits=evolve(LIMITS, stall_timeout=0.2)) as bench:
        id_ = await bench.submit()
        _claim, output = await bench.run(id_)
        client = await raw_http.connect(bench.port)
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(bench.request("GET", f"/jobs/{id_}/stream"))
        for _ in range(200):
            output.add(b'{"x":"%b"}\n' % (b"x" * 100_000))
        await until(lambda: not bench.api._wakeups._closing)
        await deferLater(reactor, 0.5)
        client.transport.resumeProducing()  # type: ignore[union-attr]
        assert (await client.done).torn
        await client.gone
