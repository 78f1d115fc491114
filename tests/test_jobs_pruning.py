"""``DELETE /jobs``: ended jobs are deleted by state and age, only one's own, in small batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from foreman.store.sqlite.statements import prune
from support import raw_http
from support.jobs_api import ADMIN, ALICE, BOB, CHAT, JobsApiHarness, jobs_api_harness, problem, until
from support.live_foreman import reactor


async def cancelled(bench: JobsApiHarness, count: int = 1, token: str = ALICE) -> list[str]:
    """Jobs that have ended."""
    answer = await bench.ask("POST", "/jobs", [CHAT] * count, token=token)
    ids = [job["id"] for job in json.loads(answer.body)["jobs"]]
    for id_ in ids:
        assert (await bench.ask("POST", f"/jobs/{id_}/cancel", token=token)).status == 200
    return ids


async def listed(bench: JobsApiHarness) -> set[str]:
    """The ids of all that are there."""
    answer = await bench.ask("GET", "/jobs?limit=200", token=ADMIN)
    return {job["id"] for job in json.loads(answer.body)["jobs"]}


async def deleted(bench: JobsApiHarness, query: str, token: str = ALICE) -> Any:
    answer = await bench.ask("DELETE", f"/jobs?{query}", token=token)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


@pytest_twisted.ensureDeferred
async def test_only_jobs_that_ended_in_the_given_states_are_deleted(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        gone = await cancelled(bench, 2)
        done = await bench.submit()
        await bench.succeed(*await bench.run(done))
        waiting = await bench.submit()
        others = await cancelled(bench, 1, BOB)
        assert await deleted(bench, "state=failed,cancelled") == {"deleted": 2}
        assert await listed(bench) == {done, waiting, *others}
        assert (await bench.ask("GET", f"/jobs/{gone[0]}")).status == 404
        assert await deleted(bench, "state=ended") == {"deleted": 1}
        assert await listed(bench) == {waiting, *others}


@pytest_twisted.ensureDeferred
async def test_an_admin_deletes_the_jobs_of_others_and_so_does_everybody_without_tokens(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        await cancelled(bench, 2)
        await cancelled(bench, 1, BOB)
        assert await deleted(bench, "state=ended", ADMIN) == {"deleted": 3}
        await cancelled(bench, 1, BOB)
    async with jobs_api_harness(tmp_path, is_open=True) as bench:
        assert await deleted(bench, "state=ended", ALICE) == {"deleted": 1}


@pytest_twisted.ensureDeferred
async def test_ended_before_limits_what_is_deleted(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        old = await cancelled(bench)
        await deferLater(reactor, 0.01)
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        await deferLater(reactor, 0.01)
        new = await cancelled(bench)
        assert await deleted(bench, "state=cancelled&ended_before=1970-01-01T00:00:00Z") == {"deleted": 0}
        assert await listed(bench) == {*old, *new}
        assert await deleted(bench, f"state=cancelled&ended_before={now}") == {"deleted": 1}
        assert await listed(bench) == set(new)
        assert await deleted(bench, "state=cancelled&ended_before=9999-12-31T23:59:59Z") == {"deleted": 1}


@pytest_twisted.ensureDeferred
async def test_many_jobs_are_deleted_in_batches_also_among_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BATCH", 2)
    monkeypatch.setattr(prune, "MAX_ROWS", 3)
    async with jobs_api_harness(tmp_path) as bench:
        others = []
        for _ in range(3):
            await cancelled(bench, 2)
            others += await cancelled(bench, 4, BOB)
        assert await deleted(bench, "state=ended") == {"deleted": 6}
        assert await listed(bench) == set(others)


@pytest_twisted.ensureDeferred
async def test_a_client_that_disconnects_stops_the_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "BATCH", 1)
    monkeypatch.setattr("foreman.web.jobs.prune.PAUSE", 0.1)
    async with jobs_api_harness(tmp_path) as bench:
        await cancelled(bench, 5)
        client = await raw_http.connect(bench.port)
        client.send(bench.request("DELETE", "/jobs?state=ended"))
        await until(lambda: bench.api._wakeups._closing)
        client.leave()
        await client.gone
        await until(lambda: not bench.api._wakeups._closing)
        left = await listed(bench)
        assert len(left) >= 3
        await deferLater(reactor, 0.2)
        assert await listed(bench) == left


@pytest_twisted.ensureDeferred
async def test_a_deletion_that_is_cut_short_says_how_many_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BATCH", 1)
    monkeypatch.setattr("foreman.web.jobs.prune.PAUSE", 5.0)
    async with jobs_api_harness(tmp_path) as bench:
        await cancelled(bench, 3)
        client = await raw_http.connect(bench.port)
        client.send(bench.request("DELETE", "/jobs?state=ended"))
        await until(lambda: bench.api._wakeups._closing)
        bench.api.close()
        answer = await client.done
        assert answer.status == 503
        assert "1 jobs were deleted, and more are left" in problem(answer)["detail"]
        client.leave()
        await client.gone


@pytest_twisted.ensureDeferred
async def test_without_a_state_in_which_jobs_end_nothing_is_deleted(tmp_path: Path) -> None:
    async with jobs_api_harness(tmp_path) as bench:
        ids = await cancelled(bench)
        for query in (
            "", "state=", "state=queued", "state=active", "state=ended,running", "ended_before=2026-11-28T00:00:00Z",
            "state=ended&ended_before=yesterday", "state=ended&owner=alice", "state=ended&state=ended",
        ):  # fmt: skip
            answer = await bench.ask("DELETE", f"/jobs?{query}")
            assert (answer.status, bool(problem(answer)["detail"])) == (400, True), query
        assert await listed(bench) == set(ids)
