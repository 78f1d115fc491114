"""Jobs over HTTP: handed over, looked at, waited for, changed, and never shown to others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from foreman.jobs.artifacts import Artifact
from foreman.jobs.job import Job
from foreman.jobs.retry_policy import AttemptError, Transition
from foreman.store.errors import ReadTimedOut
from foreman.store.sqlite.database import Database
from foreman.store.sqlite.store import SQLiteJobStore
from foreman.web.jobs import serialization
from foreman.web.jobs.serialization import job_value
from support import raw_http
from support.jobs_api import (
    ADMIN,
    BOB,
    CHAT,
    JOB_MEMBERS,
    LIMITS,
    JobsApiHarness,
    jobs_api_harness,
    json_of,
    pointers,
    problem,
    until,
    with_jobs_api,
)
from support.live_foreman import reactor


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


# handing over


@with_jobs_api
async def test_a_job_is_answered_with_all_its_fields_in_order(bench: JobsApiHarness) -> None:
    answer = await bench.ask(
        "POST", "/jobs", {**CHAT, "priority": 2, "metadata": {"night": "17"}, "idempotency_key": "k"}
    )
    job = json_of(answer)
    assert (answer.status, answer.header("Location")) == (201, f"/jobs/{job['id']}")
    assert list(job) == JOB_MEMBERS
    assert (job["state"], job["position"], job["owner"], job["model"]) == ("queued", 1, "alice", "m")
    assert (job["priority"], job["metadata"], job["idempotency_key"]) == (2, {"night": "17"}, "k")
    assert (job["attempt"], job["max_attempts"], job["deadline"], job["error"]) == (0, 5, None, None)
    assert job["run_at"] == job["created_at"]
    assert job["created_at"].endswith("Z")
    assert json_of(await bench.ask("GET", answer.header("Location") or "")) == job


@with_jobs_api
async def test_the_payload_goes_into_the_store_byte_for_byte(bench: JobsApiHarness) -> None:
    payload = b'{ "model":"m",\n "messages" :[{"role":"user"}], "options":{"seed":1e0, "x":"\\u00e9"} }'
    answer = await bench.ask("POST", "/jobs", b'{"payload": %b, "endpoint":"/api/chat"}' % payload)
    assert answer.status == 201
    claim = await bench.store.claim("gate", lambda _: 0)
    assert claim is not None
    assert (claim.payload, claim.content_type, claim.stream) == (payload, "application/json", True)


@with_jobs_api
async def test_a_job_for_later_is_scheduled(bench: JobsApiHarness) -> None:
    answer = await bench.ask("POST", "/jobs", {**CHAT, "run_at": in_hours(1), "deadline": in_hours(2)})
    job = json_of(answer)
    assert (job["state"], job["position"]) == ("scheduled", None)
    assert job["deadline"] > job["run_at"] > job["created_at"]


@with_jobs_api
async def test_an_array_is_taken_whole_and_in_order(bench: JobsApiHarness) -> None:
    answer = await bench.ask("POST", "/jobs", [{**CHAT, "priority": number} for number in range(5)])
    jobs = json_of(answer)["jobs"]
    assert answer.status == 201
    assert [job["priority"] for job in jobs] == [0, 1, 2, 3, 4]
    assert [job["id"] for job in jobs] == sorted(job["id"] for job in jobs)


@with_jobs_api
async def test_jobs_that_were_taken_are_acknowledged_although_the_look_at_them_takes_too_long(
    bench: JobsApiHarness,
) -> None:
    async def slow(*_: Any) -> Any:
        raise ReadTimedOut(5.0)

    with patch.object(SQLiteJobStore, "get_many", slow), patch.object(SQLiteJobStore, "get", slow):
        array = await bench.ask("POST", "/jobs", [CHAT, {**CHAT, "metadata": {"a": "b"}}])
        one = await bench.ask("POST", "/jobs", {**CHAT, "idempotency_key": "k"})
        again = await bench.ask("POST", "/jobs", {**CHAT, "idempotency_key": "k"})
    assert (array.status, one.status, again.status) == (201, 201, 200)
    assert json_of(one)["id"] == json_of(again)["id"]
    for job in (*json_of(array)["jobs"], json_of(one)):
        assert (list(job), job["position"]) == (JOB_MEMBERS, None)
        assert json_of(await bench.ask("GET", f"/jobs/{job['id']}")) | {"position": None} == job


@with_jobs_api
async def test_a_list_that_takes_too_long_says_so(bench: JobsApiHarness) -> None:
    async def slow(*_: Any, **__: Any) -> Any:
        raise ReadTimedOut(5.0)

    with patch.object(SQLiteJobStore, "list_jobs", slow):
        answer = await bench.ask("GET", "/jobs")
    assert (problem(answer)["status"], answer.header("Retry-After")) == (503, "5")
    assert "took longer" in problem(answer)["detail"]


@with_jobs_api
async def test_the_jobs_of_a_model_are_listed_in_any_spelling_of_its_name(bench: JobsApiHarness) -> None:
    typed = ["m", " m\n", "library/m:latest"]
    payload = CHAT["payload"]
    ids = [await bench.submit(payload={**payload, "model": model}) for model in typed]
    listed = json_of(await bench.ask("GET", "/jobs?model=registry.ollama.ai/library/m"))["jobs"]
    assert [(job["id"], job["model"]) for job in listed] == list(zip(ids, typed, strict=True))[::-1]


@with_jobs_api
async def test_an_array_with_mistakes_is_refused_whole_and_all_are_named(bench: JobsApiHarness) -> None:
    bad = [
        CHAT,
        {**CHAT, "priority": 10, "run_at": "tomorrow"},
        7,
        {"endpoint": "/api/tags", "payload": {}, "a/b": 1},
        {**CHAT, "deadline": in_hours(-1)},
    ]
    answer = await bench.ask("POST", "/jobs", bad)
    assert answer.status == 400
    assert sorted(pointers(answer)) == [
        "/1/priority", "/1/run_at", "/2", "/3/a~1b", "/3/endpoint", "/4/deadline",
    ]  # fmt: skip
    assert json_of(await bench.ask("GET", "/jobs"))["jobs"] == []


@with_jobs_api
async def test_a_model_that_is_not_there_is_named_and_one_look_serves_all(bench: JobsApiHarness) -> None:
    strange = {"endpoint": "/api/chat", "payload": {"model": "nowhere", "messages": [{"role": "user"}]}}
    single = await bench.ask("POST", "/jobs", strange)
    assert (single.status, problem(single)["detail"]) == (404, "payload/model: model 'nowhere' not found")
    other = {**strange, "payload": {**strange["payload"], "model": "nobody"}}  # type: ignore[dict-item]
    many = await bench.ask("POST", "/jobs", [CHAT, strange, other])
    assert (many.status, pointers(many)) == (404, ["/1/payload/model", "/2/payload/model"])
    assert bench.models.lookups == 2


@with_jobs_api
async def test_a_job_that_is_held_says_why(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    bench.models.held["gate"] = "jobs wait until Ollama can be reached: nobody there"
    job = json_of(await bench.ask("GET", f"/jobs/{id_}"))
    assert job["error"] == {"class": "unreachable", "message": bench.models.held["gate"], "attempt": 0}
    (listed,) = json_of(await bench.ask("GET", "/jobs"))["jobs"]
    assert listed["error"] == job["error"]
    bench.models.held.clear()
    assert json_of(await bench.ask("GET", f"/jobs/{id_}"))["error"] is None


@with_jobs_api
async def test_while_the_target_is_away_every_model_is_taken_and_shown_as_missing(bench: JobsApiHarness) -> None:
    bench.models.away = True
    id_ = await bench.submit(payload={"model": "new", "messages": [{"role": "user"}]})
    job = json_of(await bench.ask("GET", f"/jobs/{id_}"))
    assert job["error"] == {"class": "model_missing", "message": "model 'new' not found", "attempt": 0}
    bench.models.installed.add("new")
    assert json_of(await bench.ask("GET", f"/jobs/{id_}"))["error"] is None


@with_jobs_api
async def test_embeddings_and_the_cloud_take_the_lane_beside_the_gate(bench: JobsApiHarness) -> None:
    await bench.submit(endpoint="/v1/embeddings", payload={"model": "m", "input": "x"})
    await bench.submit(payload={"model": "cloudy", "messages": [{"role": "user"}]})
    await bench.submit()
    for lane, count in (("embedding", 2), ("gate", 1)):
        assert len(json_of(await bench.ask("GET", f"/jobs?lane={lane}"))["jobs"]) == count


@pytest_twisted.ensureDeferred
async def test_a_payload_that_is_too_large_is_a_413(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        large = {**CHAT, "payload": {**CHAT["payload"], "x": "x" * LIMITS.max_payload}}
        answer = await bench.ask("POST", "/jobs", large)
        assert (answer.status, pointers(answer)) == (413, ["/payload"])
        assert "FOREMAN_MAX_PAYLOAD" in problem(answer)["detail"]


@pytest_twisted.ensureDeferred
async def test_more_jobs_than_may_wait_are_a_429(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, jobs=2) as bench:
        await bench.submit(idempotency_key="k")
        assert (await bench.ask("POST", "/jobs", [CHAT, CHAT])).status == 429
        await bench.submit()
        answer = await bench.ask("POST", "/jobs", CHAT)
        assert (answer.status, answer.header("Retry-After")) == (429, "30")
        assert "FOREMAN_MAX_JOBS" in problem(answer)["detail"]
        assert (await bench.ask("POST", "/jobs", {**CHAT, "idempotency_key": "k"})).status == 200


# once and only once


@with_jobs_api
async def test_a_repetition_is_answered_with_the_first_job(bench: JobsApiHarness) -> None:
    key = ("Idempotency-Key", "night-17")
    first = await bench.ask("POST", "/jobs", CHAT, key)
    again = await bench.ask("POST", "/jobs", CHAT, ("idempotency-key", '"night-17"'))
    in_body = await bench.ask("POST", "/jobs", {"idempotency_key": "night-17", **CHAT})
    assert [answer.status for answer in (first, again, in_body)] == [201, 200, 200]
    assert first.header("Idempotency-Replayed") is None
    for answer in (again, in_body):
        assert answer.header("Idempotency-Replayed") == "true"
        assert json_of(answer) == json_of(first)
        assert answer.header("Location") == first.header("Location")


@with_jobs_api
async def test_a_key_for_another_body_is_a_422_and_another_callers_key_is_another(bench: JobsApiHarness) -> None:
    await bench.submit(idempotency_key="k")
    answer = await bench.ask("POST", "/jobs", {**CHAT, "priority": 1, "idempotency_key": "k"})
    assert (answer.status, pointers(answer)) == (422, ["/idempotency_key"])
    both = await bench.ask("POST", "/jobs", [CHAT, {**CHAT, "max_attempts": 1, "idempotency_key": "k"}])
    assert (both.status, pointers(both)) == (422, ["/1/idempotency_key"])
    assert (await bench.ask("POST", "/jobs", {**CHAT, "idempotency_key": "k"}, token=BOB)).status == 201


@with_jobs_api
async def test_two_keys_that_differ_and_a_key_for_an_array_are_refused(bench: JobsApiHarness) -> None:
    header = ("Idempotency-Key", "one")
    answer = await bench.ask("POST", "/jobs", {**CHAT, "idempotency_key": "other"}, header)
    assert (answer.status, pointers(answer)) == (400, ["/idempotency_key"])
    assert "idempotency_key" in problem(await bench.ask("POST", "/jobs", [CHAT], header))["detail"]
    for bad in ("x" * 256, '""'):
        assert (await bench.ask("POST", "/jobs", CHAT, ("Idempotency-Key", bad))).status == 400


@with_jobs_api
async def test_what_has_changed_since_is_not_held_against_a_repetition(bench: JobsApiHarness) -> None:
    body = {**CHAT, "deadline": in_hours(0.4 / 3600), "idempotency_key": "k"}
    first = await bench.ask("POST", "/jobs", body)
    assert first.status == 201
    bench.models.installed.clear()
    await deferLater(reactor, 0.5)
    again = await bench.ask("POST", "/jobs", [body])
    assert (again.status, json_of(again)["jobs"][0]["id"]) == (200, json_of(first)["id"])
    other = await bench.ask("POST", "/jobs", [body, {**body, "idempotency_key": "l"}])
    assert (other.status, pointers(other)) == (400, ["/1/deadline", "/1/payload/model"])


# looking


@with_jobs_api
async def test_the_list_is_newest_first_in_pages_that_keep_what_was_asked(bench: JobsApiHarness) -> None:
    ids = [await bench.submit(metadata={"batch": "a b&c"}) for _ in range(5)]
    await bench.submit()
    path, found = "/jobs?limit=2&metadata.batch=a%20b%26c&state=active", []
    while path:
        page = json_of(await bench.ask("GET", path))
        found += [job["id"] for job in page["jobs"]]
        path = page["next"]
        assert len(found) <= 5
    assert found == ids[::-1]


@with_jobs_api
async def test_the_list_is_filtered(bench: JobsApiHarness) -> None:
    before = in_hours(0)
    old = await bench.submit()
    await bench.ask("POST", f"/jobs/{old}/cancel")
    new = await bench.submit(endpoint="/api/generate", payload={"model": "m", "prompt": "x"})
    for query, expected in (
        ("state=cancelled", [old]),
        ("state=ended", [old]),
        ("state=active,cancelled", [new, old]),
        ("endpoint=/api/generate", [new]),
        ("model=m", [new, old]),
        ("model=n", []),
        ("owner=alice", [new, old]),
        (f"created_after={before.replace('+', '%2B')}", [new, old]),
        (f"created_before={before}", []),
        (f"before={new}", [old]),
        (f"before={new.lower()}", [old]),
    ):
        answer = await bench.ask("GET", f"/jobs?{query}")
        assert [job["id"] for job in json_of(answer)["jobs"]] == expected, query


@with_jobs_api
async def test_what_cannot_be_asked_of_the_list_is_said(bench: JobsApiHarness) -> None:
    for query, status in (
        ("stat=queued", 400), ("state=done", 400), ("state=queued&state=running", 400), ("limit=0", 400),
        ("limit=201", 400), ("limit=%D9%A1", 400), ("before=x", 400), ("created_after=2026-11-28", 400), ("lane=x", 400), ("%FF", 400),
        ("owner=bob", 403), ("&".join(f"metadata.{n}=1" for n in range(60)), 400),
    ):  # fmt: skip
        answer = await bench.ask("GET", f"/jobs?{query}")
        assert (answer.status, bool(problem(answer)["detail"])) == (status, True), query


@with_jobs_api
async def test_a_job_is_its_callers_and_an_admins(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    for method, path in (
        ("GET", ""), ("GET", "/events"), ("GET", "/stream"), ("GET", "/artifacts"), ("GET", "/artifacts/x"),
        ("PUT", "/artifacts/x"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", ""),
    ):  # fmt: skip
        answer = await bench.ask(method, f"/jobs/{id_}{path}", token=BOB)
        assert (answer.status, problem(answer)["detail"]) == (404, f"you have no job '{id_}'")
    assert json_of(await bench.ask("GET", "/jobs", token=BOB))["jobs"] == []
    assert (await bench.ask("GET", f"/jobs/{id_}", token=ADMIN)).status == 200
    assert len(json_of(await bench.ask("GET", "/jobs", token=ADMIN))["jobs"]) == 1
    assert json_of(await bench.ask("GET", "/jobs?owner=bob", token=ADMIN))["jobs"] == []


@pytest_twisted.ensureDeferred
async def test_where_no_token_is_required_everybody_sees_all(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, is_open=True) as bench:
        id_ = await bench.submit()
        assert (await bench.ask("GET", f"/jobs/{id_}")).status == 200
        assert json_of(await bench.ask("GET", "/jobs?owner=127.0.0.1"))["jobs"][0]["owner"] == "127.0.0.1"


@with_jobs_api
async def test_waiting_ends_with_the_job_or_with_the_time(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    assert json_of(await bench.ask("GET", f"/jobs/{id_}?wait=0.05"))["state"] == "queued"
    waiting = Deferred.fromCoroutine(bench.ask("GET", f"/jobs/{id_}?wait=300"))
    claim, output = await bench.run(id_)
    await deferLater(reactor, 0.05)
    assert not waiting.called
    await bench.succeed(claim, output)
    job = json_of(await waiting)
    assert (job["state"], [one["name"] for one in job["artifacts"]]) == ("succeeded", ["response", "stream"])
    assert json_of(await bench.ask("GET", f"/jobs/{id_}?wait=300"))["state"] == "succeeded"
    for good in ("0.0123456789012345", "5e-05", "2.2250738585e-313", "1e999"):
        assert (await bench.ask("GET", f"/jobs/{id_}?wait={good}")).status == 200
    for bad in ("x", "-1", "", "1e", "e3", "inf", "nan", "%D9%A1"):
        assert problem(await bench.ask("GET", f"/jobs/{id_}?wait={bad}"))["status"] == 400
    assert (await bench.ask("GET", f"/jobs/{id_}?weight=1")).status == 400


@with_jobs_api
async def test_who_waits_and_leaves_is_forgotten(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    client = await raw_http.connect(bench.port)
    client.send(bench.request("GET", f"/jobs/{id_}?wait=300"))
    await until(lambda: bench.store.notifications._changed)
    client.leave()
    await until(lambda: not bench.store.notifications._changed)
    await client.gone


# changing


@with_jobs_api
async def test_a_job_that_waits_is_cancelled_once_and_for_all(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    for _ in range(2):
        answer = await bench.ask("POST", f"/jobs/{id_}/cancel")
        assert (answer.status, json_of(answer)["state"]) == (200, "cancelled")
    assert bench.worker.cancelled == []


@with_jobs_api
async def test_a_job_that_runs_is_cancelled_when_its_worker_has_stopped(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    claim, output = await bench.run(id_)

    def stop(_: str) -> None:
        mishap = AttemptError("truncated", "broken off")
        reactor.callLater(0.05, lambda: Deferred.fromCoroutine(bench.fail(claim, output, mishap, partial=False)))

    bench.worker.on_cancel = stop
    answer = await bench.ask("POST", f"/jobs/{id_}/cancel")
    assert (answer.status, json_of(answer)["state"], bench.worker.cancelled) == (200, "cancelled", [id_])


@with_jobs_api
async def test_a_worker_that_does_not_stop_is_not_waited_for_for_ever(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    await bench.run(id_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foreman.web.jobs.routes.CANCEL_WAIT", 0.05)
        answer = await bench.ask("POST", f"/jobs/{id_}/cancel")
    assert (answer.status, json_of(answer)["state"]) == (202, "running")


@with_jobs_api
async def test_what_has_ended_cannot_be_cancelled_and_success_not_repeated(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    await bench.succeed(*await bench.run(id_))
    for what in ("cancel", "retry"):
        answer = await bench.ask("POST", f"/jobs/{id_}/{what}")
        assert (answer.status, "succeeded" in problem(answer)["detail"]) == (409, True)


@with_jobs_api
async def test_what_failed_is_queued_again_by_hand(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    await bench.fail(*await bench.run(id_), AttemptError("refused", "no such thing"))
    failed = json_of(await bench.ask("GET", f"/jobs/{id_}"))
    assert failed["error"] == {"class": "refused", "message": "no such thing", "attempt": 1}
    answer = await bench.ask("POST", f"/jobs/{id_}/retry")
    job = json_of(answer)
    assert (answer.status, job["state"], job["attempt"], job["position"]) == (200, "queued", 0, 1)


@with_jobs_api
async def test_a_job_is_deleted_when_it_has_ended(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    assert problem(await bench.ask("DELETE", f"/jobs/{id_}"))["status"] == 409
    await bench.ask("POST", f"/jobs/{id_}/cancel")
    answer = await bench.ask("DELETE", f"/jobs/{id_}")
    assert (answer.status, answer.body) == (204, b"")
    assert (await bench.ask("GET", f"/jobs/{id_}")).status == 404
    assert (await bench.ask("DELETE", f"/jobs/{id_}")).status == 404


# nothing but problems


@with_jobs_api
async def test_there_is_never_anything_but_a_problem(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    for method, path, status, allow in (
        ("GET", "/jobs/", 404, None),
        ("PATCH", "/jobs", 405, "HEAD, GET, POST, DELETE"),
        ("OPTIONS", "/jobs", 405, "HEAD, GET, POST, DELETE"),
        ("get", "/jobs", 405, "HEAD, GET, POST, DELETE"),
        ("POST", f"/jobs/{id_}", 405, "HEAD, GET, DELETE"),
        ("GET", f"/jobs/{id_}/cancel", 405, "POST"),
        ("PUT", f"/jobs/{id_}/events", 405, "HEAD, GET"),
        ("POST", f"/jobs/{id_}/artifacts/x", 405, "HEAD, GET, PUT"),
        ("GET", f"/jobs/{id_}/", 404, None),
        ("GET", f"/jobs/{id_}/nothing", 404, None),
        ("GET", f"/jobs/{id_}/artifacts/", 404, None),
        ("GET", f"/jobs/{id_}/artifacts/a%2Fb", 404, None),
        ("GET", f"/jobs/{id_}/artifacts/a%7Cb", 404, None),
        ("GET", f"/jobs/{id_}/artifacts/%C3%A9%25", 404, None),
        ("GET", "/jobs/nonsense", 404, None),
        ("GET", "/jobs/%C4%B1", 404, None),
        ("GET", "/jobs/01KBTWZ5M0XJ3Q9V7D2E8R4A6C", 404, None),
        ("GET", "/jobs/../jobs/%2e%2e/x", 307, None),
        ("GET", "/jobs/%00", 400, None),
        ("GET", "/jobs/%zz", 400, None),
    ):  # fmt: skip
        answer = await bench.ask(method, path)
        assert (answer.status, answer.header("Allow")) == (status, allow), (method, path, answer)
        if status != 307:
            problem(answer)
    for path in ("/jobs", f"/jobs/{id_}", f"/jobs/{id_}/artifacts"):
        answer = await bench.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


@with_jobs_api
async def test_refusals_at_admission_are_problems_too(bench: JobsApiHarness) -> None:
    unknown = await bench.ask("GET", "/jobs", token="wrong")
    assert (unknown.status, problem(unknown)["title"]) == (401, "Unauthorized")
    assert unknown.header("WWW-Authenticate") == 'Bearer realm="foreman"'
    too_large = await bench.ask("POST", "/jobs", b"", ("Content-Length", str(10**12)))
    assert problem(too_large)["status"] in {400, 413}
    many = await bench.ask("GET", "/jobs/x", b"", *((f"X-{number}", "1") for number in range(101)))
    assert problem(many)["status"] == 431


@with_jobs_api
async def test_bodies_that_are_no_jobs_are_refused(bench: JobsApiHarness) -> None:
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{}",
        b"[" * 100_000,
        b'{"\\ud800":1}',
    ):
        assert problem(await bench.ask("POST", "/jobs", body))["status"] == 400, body[:20]
    compressed = await bench.ask("POST", "/jobs", CHAT, ("Content-Encoding", "zstd"))
    assert problem(compressed)["status"] == 415


@with_jobs_api
async def test_a_store_that_fails_is_a_503_and_a_full_disk_a_507(bench: JobsApiHarness) -> None:
    from foreman.store.errors import unavailable

    for condition, status in (("unwritable", 503), ("broken", 503), ("full", 507)):

        async def fails(*_: object, condition: Any = condition) -> None:
            raise unavailable(condition, "")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(bench.store), "enqueue", fails)
            answer = await bench.ask("POST", "/jobs", CHAT)
        assert (answer.status, answer.header("Retry-After")) == (status, "5" if status == 503 else None)
        problem(answer)


@with_jobs_api
async def test_while_foreman_stops_no_job_is_taken(bench: JobsApiHarness) -> None:
    bench.api.close()
    answer = await bench.ask("POST", "/jobs", CHAT)
    assert (answer.status, answer.header("Retry-After")) == (503, "5")
    assert "stopping" in problem(answer)["detail"]


@with_jobs_api
async def test_a_position_behind_others_counts_from_one(bench: JobsApiHarness) -> None:
    ids = [await bench.submit() for _ in range(3)]
    jobs = json_of(await bench.ask("GET", "/jobs"))["jobs"]
    assert {job["id"]: job["position"] for job in jobs} == {id_: number for number, id_ in enumerate(ids, 1)}
    claim = await bench.store.claim("gate", lambda _: 0)
    assert claim is not None
    await bench.store.end_attempt(
        claim, lambda job, now: Transition("discarded", None, True, 0, None), [Artifact("error", "text/plain", b"x")]
    )
    job = json_of(await bench.ask("GET", f"/jobs/{ids[0]}"))
    assert (job["state"], job["position"]) == ("discarded", None)
    assert job["artifacts"] == [{"name": "error", "type": "text/plain", "bytes": 1}]


@pytest_twisted.ensureDeferred
async def test_one_caller_cannot_take_all_places_for_jobs(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path, jobs=64) as bench:
        assert (await bench.ask("POST", "/jobs", [CHAT] * 50)).status == 201
        too_many = await bench.ask("POST", "/jobs", [CHAT] * 7)
        assert (problem(too_many)["status"], too_many.header("Retry-After")) == (429, "30")
        assert problem(too_many)["detail"] == (
            "you would have 57 jobs waiting; one caller may have at most 7/8 of FOREMAN_MAX_JOBS (64), less when others wait too"
        )
        ids = [await bench.submit() for _ in range(6)]
        assert problem(await bench.ask("POST", "/jobs", CHAT))["status"] == 429
        assert (await bench.ask("POST", "/jobs", CHAT, token=BOB)).status == 201
        assert (await bench.ask("POST", f"/jobs/{ids[0]}/cancel")).status == 200
        await bench.submit()
        # What is tried again waits, too.
        assert problem(await bench.ask("POST", f"/jobs/{ids[0]}/retry"))["status"] == 429


@pytest_twisted.ensureDeferred
async def test_one_caller_cannot_fill_the_disk(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        payload = {**CHAT["payload"], "options": {"x": "x" * 5000}}
        id_ = await bench.submit(payload=payload)
        with patch.object(Database, "check_free_space", lambda _: 7000):
            assert (await bench.ask("PUT", f"/jobs/{id_}/artifacts/a", bytes(5000))).status == 201
            for full in (
                await bench.ask("PUT", f"/jobs/{id_}/artifacts/b", bytes(5000)),
                await bench.ask("POST", "/jobs", {**CHAT, "payload": payload}),
            ):
                assert problem(full)["status"] == 507
                assert "delete some jobs" in problem(full)["detail"]
            assert (await bench.ask("POST", "/jobs", {**CHAT, "payload": payload}, token=BOB)).status == 201
            await bench.ask("POST", f"/jobs/{id_}/cancel")
            assert (await bench.ask("DELETE", f"/jobs/{id_}")).status == 204
            assert (await bench.ask("POST", "/jobs", {**CHAT, "payload": payload})).status == 201


@with_jobs_api
async def test_others_get_their_turn_while_many_jobs_are_put_into_words(bench: JobsApiHarness) -> None:
    at_once: list[int] = []

    def beat() -> None:
        at_once.append(0)
        if looking:
            reactor.callLater(0, beat)

    def counted(job: Job, models: Any) -> dict[str, Any]:
        at_once[-1] += 1
        return job_value(job, models)

    await bench.ask("POST", "/jobs", [CHAT] * 80)
    looking = True
    beat()
    with patch.object(serialization, "job_value", counted):
        listed = json_of(await bench.ask("GET", "/jobs?limit=80"))["jobs"]
    looking = False
    assert (len(listed), sum(at_once)) == (80, 80)
    assert max(at_once) <= serialization.BATCH_SIZE
    await deferLater(reactor, 0.01)
