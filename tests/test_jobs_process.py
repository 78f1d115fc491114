"""Jobs and the real command: across its restarts, beside chats of people, and while its target cannot be reached."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.processes import (
    Call,
    ForemanProcess,
    TargetProcess,
    chat,
    endless_chat,
    is_complete,
    run_foreman,
    run_target,
    until,
)
from support.raw_http import Response

#: How long the target is away while jobs are handed over; 60 to see what is promised of a whole minute.
AWAY = float(os.environ.get("AWAY_SECONDS", "3"))
MODEL = "llama3.2:3b"


def hand_over(
    daemon: ForemanProcess, payload: Mapping[str, Any], headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    return daemon.ask("POST", "/jobs", {"endpoint": "/api/chat", "payload": payload, **more}, headers)


def handed_over(daemon: ForemanProcess, payload: Mapping[str, Any], **more: Any) -> str:
    response = hand_over(daemon, payload, **more)
    assert response.status == 201, response.body
    return str(json.loads(response.body)["id"])


def job(daemon: ForemanProcess, id_: str, wait: float = 0) -> Any:
    return daemon.get(f"/jobs/{id_}?wait={wait:g}")


def ended(daemon: ForemanProcess, id_: str) -> Any:
    return until(lambda: found if (found := job(daemon, id_, 5))["finished_at"] else None, f"job {id_} ends")


def test_many_posts_with_one_key_are_one_job_and_another_body_is_refused(tmp_path: Path) -> None:
    with run_target(tmp_path, rate=0) as simulator, run_foreman(tmp_path, simulator.url) as daemon:

        def post(_: int) -> Response:
            return hand_over(daemon, chat("once"), {"Idempotency-Key": "night"})

        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(post, range(64)))
        assert sorted(answer.status for answer in answers) == [200] * 63 + [201]
        assert len({json.loads(answer.body)["id"] for answer in answers}) == 1
        assert sum(answer.header("idempotency-replayed") == "true" for answer in answers) == 63
        assert hand_over(daemon, chat("twice"), {"Idempotency-Key": "night"}).status == 422
        ended(daemon, json.loads(answers[0].body)["id"])
        assert len(simulator.requests("/api/chat", "once")) == 1


def test_jobs_that_came_while_the_target_was_away_all_succeed_and_none_has_lost_an_attempt(tmp_path: Path) -> None:
    with run_target(tmp_path, running=False, rate=0) as simulator, run_foreman(tmp_path, simulator.url) as daemon:
        begun = time.monotonic()
        ids = [handed_over(daemon, chat(f"number {number}"), max_attempts=1) for number in range(20)]
        while time.monotonic() < begun + AWAY:
            assert {job(daemon, id_)["state"] for id_ in ids} == {"queued"}
            time.sleep(0.5)
        simulator.start()
        found = [ended(daemon, id_) for id_ in ids]
        assert {(one["state"], one["attempt"]) for one in found} == {("succeeded", 1)}
        for number in range(20):
            assert len(simulator.requests("/api/chat", f'number {number}"')) == 1


def test_a_job_that_is_stopped_in_its_middle_is_queued_again_and_succeeds_after_the_start(tmp_path: Path) -> None:
    settings = {"db_path": str(tmp_path / "jobs.db"), "drain_timeout": "200ms"}
    with run_target(tmp_path, rate=40) as simulator:
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            id_ = handed_over(daemon, chat("a long story " * 8, model=MODEL, tokens=10_000))
            until(lambda: simulator.requests("/api/chat", "a long story"), "the job is at the target")
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == -signal.SIGTERM
            assert daemon.log_lines("is queued again, since foreman stops")
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            found = ended(daemon, id_)
        assert (found["state"], found["attempt"], found["error"]) == ("succeeded", 1, None)


def test_a_job_that_can_end_within_the_drain_time_does(tmp_path: Path) -> None:
    settings = {"db_path": str(tmp_path / "jobs.db"), "drain_timeout": "20s"}
    with run_target(tmp_path, rate=40) as simulator:
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            id_ = handed_over(daemon, chat("a story", tokens=30))
            until(lambda: simulator.requests("/api/chat", "a story"), "the job is at the target")
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == -signal.SIGTERM
            assert daemon.log_lines(id_, "succeeded")
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            assert job(daemon, id_)["state"] == "succeeded"
        assert len(simulator.requests("/api/chat", "a story")) == 1


def test_a_job_that_ran_at_a_kill_runs_again_and_its_attempt_is_not_lost(tmp_path: Path) -> None:
    settings = {"db_path": str(tmp_path / "jobs.db")}
    with run_target(tmp_path, rate=40) as simulator:
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            id_ = handed_over(daemon, chat("a long story " * 8, tokens=10_000), max_attempts=1)
            until(lambda: simulator.requests("/api/chat", "a long story"), "the job is at the target")
            daemon.signal(signal.SIGKILL)
            daemon.wait()
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            assert daemon.log_lines("1 jobs were running when foreman died; they were queued again")
            found = ended(daemon, id_)
        assert (found["state"], found["attempt"]) == ("succeeded", 1)
        events = [json.loads(line)["type"] for line in _events(tmp_path, simulator, settings, id_)]
        assert events == ["queued", "running", "rescued", "running", "succeeded"]


def _events(folder: Path, simulator: TargetProcess, settings: Mapping[str, str], id_: str) -> list[bytes]:
    with run_foreman(folder, simulator.url, **settings) as daemon:
        return daemon.ask("GET", f"/jobs/{id_}/events").body.splitlines()


def test_a_person_who_comes_while_fifty_jobs_wait_is_next(tmp_path: Path) -> None:
    with run_target(tmp_path, rate=20) as simulator, run_foreman(tmp_path, simulator.url) as daemon:
        for number in range(50):
            handed_over(daemon, chat(f"job {number}.", tokens=20))
        until(lambda: simulator.requests("/api/chat", "job "), "the first job is at the target")
        answer = daemon.ask("POST", "/api/chat", chat("a person", tokens=5))
        assert is_complete(answer)
        order = [one.body for one in simulator.requests("/api/chat")]
        assert ["a person" in body for body in order].index(True) <= 2
        assert len(order) < 10


def test_a_job_leaves_the_target_within_a_moment_when_it_is_cancelled(tmp_path: Path) -> None:
    with run_target(tmp_path, rate=20) as simulator, run_foreman(tmp_path, simulator.url) as daemon:
        id_ = handed_over(daemon, endless_chat("without end"))
        until(lambda: simulator.requests("without end"), "the job is at the target")
        cancelled = daemon.ask("POST", f"/jobs/{id_}/cancel")
        assert (cancelled.status, json.loads(cancelled.body)["state"]) == (200, "cancelled")
        assert simulator.abandoned("without end")


def test_a_line_of_the_queue_says_which_turn_is_a_jobs(tmp_path: Path) -> None:
    with run_target(tmp_path, rate=20) as simulator, run_foreman(tmp_path, simulator.url) as daemon:
        id_ = handed_over(daemon, endless_chat("without end"))
        other = handed_over(daemon, chat("later"), run_at="2100-01-01T00:00:00Z")
        running = until(lambda: daemon.get("/queue")["running"], "the job has its turn")
        assert [(one["id"], one["job"], one["route"]) for one in running] == [(id_, id_, "/api/chat")]
        jobs = daemon.get("/queue")["jobs"]
        assert [one["id"] for one in jobs["running"]] == [id_]
        assert (jobs["queued"], jobs["scheduled"], jobs["store"]) == (0, 1, "ok")
        assert job(daemon, other)["state"] == "scheduled"
        # What is cancelled as a request in the line is cancelled as a job.
        assert daemon.ask("DELETE", f"/queue/{id_}").status == 204
        assert ended(daemon, id_)["state"] == "cancelled"


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_every_family_hands_over_by_a_header(path: str, tmp_path: Path) -> None:
    with run_target(tmp_path, rate=0) as simulator, run_foreman(tmp_path, simulator.url) as daemon:
        accepted = daemon.ask("POST", path, chat("by a header", stream=True), {"Prefer": "respond-async"})
        assert accepted.status == 202
        id_ = json.loads(accepted.body)["id"]
        assert accepted.header("location") == f"/jobs/{id_}"
        assert accepted.header("preference-applied") == "respond-async"
        assert ended(daemon, id_)["state"] == "succeeded"
        response = daemon.ask("GET", f"/jobs/{id_}/artifacts/response")
        assert b"by a header" in response.body


def test_who_comes_with_a_token_in_the_path_is_shown_ways_with_it(tmp_path: Path) -> None:
    token = "correct-horse-battery"
    with run_target(tmp_path, rate=0) as simulator, run_foreman(tmp_path, simulator.url, auth_token=token) as daemon:
        body = {"endpoint": "/api/chat", "payload": chat("with a token")}
        with Call(daemon.port, "POST", f"/k/{token}/jobs", body) as call:
            location = call.rest().header("location")
        assert location is not None
        for way in (location, f"/k/{token}/jobs?limit=1"):
            with Call(daemon.port, "GET", way) as call:
                assert call.rest().status == 200
        with Call(daemon.port, "POST", f"/k/{token}/jobs", body) as call:
            call.rest()
        with Call(daemon.port, "GET", f"/k/{token}/jobs?limit=1") as call:
            following = json.loads(call.rest().body)["next"]
        with Call(daemon.port, "GET", following) as call:
            assert len(json.loads(call.rest().body)["jobs"]) == 1
        assert token not in daemon.output()


def test_what_a_job_had_said_before_a_kill_is_kept_until_it_has_said_all(tmp_path: Path) -> None:
    settings = {"db_path": str(tmp_path / "jobs.db")}
    with run_target(tmp_path, rate=5) as simulator:
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            id_ = handed_over(daemon, endless_chat("word by word"))
            # It is kept every two seconds.
            time.sleep(2.5)
            daemon.signal(signal.SIGKILL)
            daemon.wait()
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            partial = daemon.ask("GET", f"/jobs/{id_}/artifacts/partial")
            assert (partial.status, partial.header("content-type")) == (200, "application/x-ndjson")
            assert all(json.loads(line)["done"] is False for line in partial.body.splitlines())
            cancelled = daemon.ask("POST", f"/jobs/{id_}/cancel")
            assert json.loads(cancelled.body)["state"] == "cancelled"
