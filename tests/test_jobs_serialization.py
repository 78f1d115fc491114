"""What has been taken can be shown, and a row that cannot takes no other with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_twisted

from foreman.util import timestamps
from foreman.web.jobs.serialization import job_value
from support.jobs_api import CHAT, JobsApiHarness, jobs_api_harness, json_of, pointers, with_jobs_api
from support.new_jobs import new_job


@with_jobs_api
async def test_a_moment_that_could_not_be_shown_is_refused(bench: JobsApiHarness) -> None:
    for name in ("run_at", "deadline"):
        for moment in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"):
            answer = await bench.ask("POST", "/jobs", {**CHAT, name: moment})
            assert (answer.status, pointers(answer)) == (400, [f"/{name}"])
    assert json_of(await bench.ask("POST", "/jobs", {**CHAT, "run_at": "9999-12-31T23:59:59Z"}))["state"] == "scheduled"
    assert len(json_of(await bench.ask("GET", "/jobs"))["jobs"]) == 1
    assert (await bench.ask("GET", "/jobs?created_before=9999-12-31T23:59:59-14:00")).status == 400


@with_jobs_api
async def test_what_an_older_foreman_took_and_could_not_show_is_shown(bench: JobsApiHarness) -> None:
    (one,) = await bench.store.enqueue([new_job(owner="alice", run_at=timestamps.LATEST + 1)])
    assert json_of(await bench.ask("GET", f"/jobs/{one.id}"))["run_at"] == "9999-12-31T23:59:59.999Z"
    assert [job["id"] for job in json_of(await bench.ask("GET", "/jobs"))["jobs"]] == [one.id]


@pytest_twisted.ensureDeferred
async def test_a_job_that_cannot_be_shown_takes_no_other_with_it(tmp_path: Path, logged_failures: Any) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        await none_takes_another_with_it(bench)
    assert len(logged_failures.take(ValueError)) == 1


async def none_takes_another_with_it(bench: JobsApiHarness) -> None:
    good, bad = await bench.submit(), await bench.submit(metadata={"bad": "yes"})

    def fails_for_one(job: Any, models: Any) -> dict[str, Any]:
        if "bad" in job.metadata:
            raise ValueError("of this nobody knew")
        return job_value(job, models)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foreman.web.jobs.serialization.job_value", fails_for_one)
        for _ in range(3):
            jobs = json_of(await bench.ask("GET", "/jobs"))["jobs"]
            assert [job["id"] for job in jobs] == [bad, good]
            assert set(jobs[0]) == {"id", "state", "unreadable"}


@with_jobs_api
async def test_bytes_of_a_damaged_row_keep_no_job_from_being_shown_or_run(bench: JobsApiHarness) -> None:
    await bench.submit()
    damaged = await bench.submit(metadata={"a": "b"})

    def damage(tx: Any) -> None:
        tx.cursor.execute("UPDATE jobs SET usage = '{', endpoint = CAST(x'ff' AS TEXT) WHERE id = ?", (damaged,))
        tx.cursor.execute("UPDATE job_metadata SET value = CAST(x'c328' AS TEXT)")
        tx.cursor.execute("UPDATE payloads SET headers = '[' WHERE job_id = ?", (damaged,))

    await bench.store.database.write(damage)
    jobs = json_of(await bench.ask("GET", "/jobs"))["jobs"]
    assert (len(jobs), jobs[0]["usage"], jobs[0]["metadata"]) == (2, None, {"a": "\ufffd("})
    claims = [await bench.store.claim("gate", lambda _: 0) for _ in range(2)]
    assert [claim is not None for claim in claims] == [True, False]
    assert json_of(await bench.ask("GET", f"/jobs/{damaged}"))["state"] == "failed"


ODD_TEXTS = (
    "\0",
    "\x7f\u2028",
    "\ufffe\U0010ffff",
    "x" * 255,
    "'; DROP TABLE jobs; --",
    "\u202eabc",
    " ",
    "%00",
    "\U0001f600",
)


@with_jobs_api
async def test_whatever_is_taken_can_be_shown_and_found(bench: JobsApiHarness) -> None:
    taken = []
    for text in ODD_TEXTS:
        odd = {**CHAT, "metadata": {text[:64]: text}, "idempotency_key": text}
        answer = await bench.ask("POST", "/jobs", odd)
        assert answer.status == (400 if "\0" in text else 201)
        if answer.status == 201:
            assert (await bench.ask("POST", "/jobs", odd)).header("Idempotency-Replayed") == "true"
            taken.append(json_of(answer)["id"])
            query = urlencode({f"metadata.{text[:64]}": text})
            assert [job["id"] for job in json_of(await bench.ask("GET", f"/jobs?{query}"))["jobs"]] == taken[-1:]
    for number in ("1e400", "NaN", "-0.0", "1" * 5000, "99999999999999999999", "[" * 2000):
        body = b'{"endpoint":"/api/chat","payload":{"model":"m","messages":[{}]},"priority":%b}' % number.encode()
        assert (await bench.ask("POST", "/jobs", body)).status == 400, number
    assert [job["id"] for job in json_of(await bench.ask("GET", "/jobs"))["jobs"]] == taken[::-1]


@with_jobs_api
async def test_odd_parameters_of_a_list_are_answered(bench: JobsApiHarness) -> None:
    assert (await bench.ask("GET", f"/jobs?limit={'0' * 5000}50")).status == 200
    for query in (
        "limit=" + "9" * 5000,
        "before=%ff",
        "before=" + "Z" * 26,
        "model=%",
        "model=%00",
        "metadata.%ed%a0%80=x",
    ):
        assert (await bench.ask("GET", f"/jobs?{query}")).status in {200, 400}, query


LONG = "%C3%BF" * 5000


@with_jobs_api
async def test_an_error_repeats_little_of_what_was_asked(bench: JobsApiHarness) -> None:
    id_ = await bench.submit()
    for method, path in (
        ("GET", f"/jobs/{LONG}"),
        ("GET", f"/jobs/{LONG}/nothing/here"),
        ("GET", f"/jobs?{LONG}=1"),
        ("GET", f"/jobs?state={LONG}"),
        ("GET", f"/jobs?limit={LONG}"),
        ("GET", f"/jobs?before={LONG}"),
        ("GET", f"/jobs?owner={LONG}"),
        ("GET", f"/jobs/{id_}?wait={LONG}"),
        ("GET", f"/jobs/{id_}/artifacts/{LONG}"),
        ("PUT", f"/jobs/{id_}/artifacts/{LONG}"),
        ("GET", f"/jobs/{id_}/events?after={LONG}"),
        ("GET", f"/jobs/{id_}/stream?after={LONG}"),
        ("DELETE", f"/jobs?state={LONG}"),
        ("GET", f"//jobs/{LONG}"),
        ("GET", f"/api/tags/?{LONG}"),
    ):
        answer = await bench.ask(method, path)
        assert 400 <= answer.status < 500, path[:40]
        assert len(answer.body) < 1000, path[:40]
    answer = await bench.ask("POST", "/jobs", CHAT, ("Idempotency-Key", LONG))
    assert (answer.status, len(answer.body) < 1000) == (400, True)
