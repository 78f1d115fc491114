"""A disk in trouble costs the jobs at most, never the chats; nothing that was acknowledged is lost, and all of it is said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from foreman.store.sqlite.database import FREE_SPACE_MAX_AGE
from support.processes import (
    SCRIPTS,
    ForemanProcess,
    chat,
    free_port,
    is_complete,
    run_foreman,
    run_process,
    run_target,
    until,
)
from support.raw_http import Response

ENDED = ("succeeded", "failed", "cancelled", "discarded")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own with ``size`` of room; skips the test where the system does not let us have one."""
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], stdin=subprocess.DEVNULL, check=True)


@pytest.fixture(autouse=True)
def mount_is_there() -> None:
    if shutil.which("mount") is None:
        pytest.skip("needs mount")


def hand_over(daemon: ForemanProcess, text: str, **more: Any) -> Response:
    return daemon.ask("POST", "/jobs", {"endpoint": "/api/chat", "payload": chat(text, tokens=20), **more})


def chats_go_on(daemon: ForemanProcess) -> bool:
    return is_complete(daemon.ask("POST", "/api/chat", chat("a person", tokens=5)))


def states(daemon: ForemanProcess) -> dict[str, str]:
    listed = daemon.get("/jobs?limit=200")
    return {one["id"]: one["state"] for one in listed["jobs"]}


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def intact(path: Path) -> bool:
    with sqlite3.connect(path) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok")


def test_a_full_disk_refuses_jobs_by_name_loses_none_and_is_over_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, "4m") as disk, run_target(tmp_path, rate=0) as simulator:
        settings = {"db_path": str(disk / "jobs.db"), "disk_reserve": "1"}
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            taken: list[str] = []
            for number in range(400):
                # For later, so that nothing but handing over writes.
                answer = hand_over(daemon, f"{number} {'x' * 60_000}", run_at="2100-01-01T00:00:00Z")
                if answer.status != 201:
                    break
                taken.append(json.loads(answer.body)["id"])
            assert answer.status == 507, answer.body
            assert answer.header("content-type") == "application/problem+json"
            assert taken
            assert daemon.get("/healthz")["reason"] == "store_full"
            assert daemon.get("/queue")["jobs"]["store"] == "full"
            assert chats_go_on(daemon)
            assert states(daemon).keys() == set(taken)
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], stdin=subprocess.DEVNULL, check=True)
            again = until(
                lambda: one if (one := hand_over(daemon, "room again")).status == 201 else None, "there is room"
            )
            taken.append(json.loads(again.body)["id"])
            until(lambda: states(daemon)[taken[-1]] == "succeeded", "the new job succeeds")
            assert daemon.get("/healthz") == {"status": "ok", "degraded": False}
            daemon.signal(signal.SIGKILL)
            daemon.wait()
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            assert states(daemon).keys() == set(taken)
            daemon.signal(signal.SIGTERM)
            daemon.wait()
        assert intact(disk / "jobs.db")


def test_what_is_deleted_on_a_full_disk_makes_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, "32m") as disk, run_target(tmp_path, rate=0) as simulator:
        settings = {"db_path": str(disk / "jobs.db"), "disk_reserve": "1"}
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            large = json.loads(hand_over(daemon, "x" * 5_000_000, run_at="2100-01-01T00:00:00Z").body)["id"]
            assert daemon.ask("POST", f"/jobs/{large}/cancel").status == 200
            daemon.signal(signal.SIGTERM)
            daemon.wait()
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:  # whose log has no room yet
            with pytest.raises(OSError, match="No space left"):
                fill(disk / "filler")
            with (disk / "filler").open("r+b") as file:
                file.truncate((disk / "filler").stat().st_size - 1_000_000)
            assert daemon.ask("DELETE", f"/jobs/{large}").status == 204
            assert states(daemon) == {}
            until(lambda: hand_over(daemon, "there is room again").status == 201, "there is room")
            daemon.signal(signal.SIGTERM)
            daemon.wait()
        assert intact(disk / "jobs.db")


def test_an_answer_that_does_not_fit_on_the_disk_waits_until_it_does(tmp_path: Path) -> None:
    with small_disk(tmp_path, "8m") as disk, run_target(tmp_path, rate=30) as simulator:
        settings = {"db_path": str(disk / "jobs.db"), "disk_reserve": "1"}
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            id_ = json.loads(hand_over(daemon, "in time").body)["id"]
            until(lambda: states(daemon)[id_] == "running", "the job runs")
            filler = disk / "filler"
            with pytest.raises(OSError, match="No space left"):
                fill(filler)
            until(lambda: daemon.get("/healthz").get("reason") == "store_full", "the disk is full")
            until(lambda: simulator.requests("in time")[0].outcome == "answered", "the target has answered")
            assert states(daemon)[id_] == "running"
            assert chats_go_on(daemon)
            filler.unlink()
            until(lambda: states(daemon)[id_] == "succeeded", "its answer is written")
            assert len(simulator.requests("in time")) == 1


def test_a_nearly_full_disk_takes_no_new_jobs_but_those_it_has_end(tmp_path: Path) -> None:
    with small_disk(tmp_path, "64m") as disk, run_target(tmp_path, rate=30) as simulator:
        settings = {"db_path": str(disk / "jobs.db"), "disk_reserve": "60m"}
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            id_ = json.loads(hand_over(daemon, "the last one").body)["id"]
            (disk / "filler").write_bytes(b"x" * 5_000_000)
            time.sleep(FREE_SPACE_MAX_AGE)  # what it knows of the disk is so old at the most
            refused = hand_over(daemon, "one too many")
            assert refused.status == 507
            assert "FOREMAN_DISK_RESERVE" in json.loads(refused.body)["detail"]
            until(lambda: states(daemon)[id_] == "succeeded", "what was taken ends")


def test_a_folder_that_cannot_be_written_costs_the_jobs_and_is_tried_again(tmp_path: Path) -> None:
    with small_disk(tmp_path, "8m") as disk, run_target(tmp_path, rate=0) as simulator:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], stdin=subprocess.DEVNULL, check=True)
        settings = {"db_path": str(disk / "foreman" / "jobs.db"), "disk_reserve": "1"}
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            refused = hand_over(daemon, "not now")
            assert (refused.status, refused.header("retry-after") is not None) == (503, True)
            assert "Read-only file system" in json.loads(refused.body)["detail"]
            assert daemon.get("/healthz")["reason"] == "store_unwritable"
            assert chats_go_on(daemon)
            assert daemon.log_lines("no jobs are accepted until it can be used")


@pytest.mark.parametrize("trouble", ["full", "read-only", "full, after a crash", "read-only, after a crash"])
def test_jobs_can_be_read_when_foreman_starts_on_a_disk_that_cannot_be_written(tmp_path: Path, trouble: str) -> None:
    with small_disk(tmp_path, "16m") as disk, run_target(tmp_path, rate=0) as simulator:
        settings = {"db_path": str(disk / "jobs.db"), "disk_reserve": "1"}
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            ended = json.loads(hand_over(daemon, "before").body)["id"]
            until(lambda: states(daemon)[ended] == "succeeded", "the job succeeds")
            waits = json.loads(hand_over(daemon, "later", run_at="2100-01-01T00:00:00Z").body)["id"]
            daemon.signal(signal.SIGKILL if "crash" in trouble else signal.SIGTERM)
            daemon.wait()
        filler = disk / "filler"
        if trouble.startswith("full"):
            with pytest.raises(OSError, match="No space left"):
                fill(filler)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], stdin=subprocess.DEVNULL, check=True)
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            assert states(daemon) == {ended: "succeeded", waits: "scheduled"}
            assert daemon.ask("GET", f"/jobs/{ended}/artifacts/response").status == 200
            assert daemon.get(f"/jobs/{waits}")["state"] == "scheduled"
            refused = hand_over(daemon, "not now")
            assert refused.status == (507 if trouble.startswith("full") else 503)
            assert daemon.ask("DELETE", f"/jobs/{ended}").status == refused.status
            reason = daemon.get("/healthz")["reason"]
            assert reason == ("store_full" if trouble.startswith("full") else "store_unwritable")
            assert chats_go_on(daemon)
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() in {-signal.SIGTERM, 143}


def test_a_second_foreman_for_the_same_jobs_ends_at_once_and_says_why(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.db")
    with run_target(tmp_path, rate=0) as simulator, run_foreman(tmp_path, simulator.url, db_path=path) as daemon:
        settings = {"listen": f"127.0.0.1:{free_port()}", "target_url": simulator.url, "db_path": path}
        with run_process([str(SCRIPTS / "foreman"), "serve"], tmp_path, settings) as second:
            assert second.wait() == 1
            assert f"another foreman uses the jobs in {path}" in second.output()
            assert "FOREMAN_DB_PATH" in second.output()
        assert hand_over(daemon, "still here").status == 201


def test_a_lock_that_was_copied_or_left_behind_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.with_name("jobs.db.lock").write_text("left behind")
    with run_target(tmp_path, rate=0) as simulator, run_foreman(tmp_path, simulator.url, db_path=str(path)) as daemon:
        assert hand_over(daemon, "here").status == 201


@pytest.mark.parametrize(
    "bytes_", [b"not a database at all " * 500, b"SQLite format 3\0" + os.urandom(20_000)], ids=["text", "noise"]
)
def test_a_file_that_is_damaged_is_named_and_left_alone(tmp_path: Path, bytes_: bytes) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(bytes_)
    settings = {"listen": f"127.0.0.1:{free_port()}", "db_path": str(path)}
    with run_process([str(SCRIPTS / "foreman"), "serve"], tmp_path, settings) as daemon:
        assert daemon.wait() == 1
        assert str(path) in daemon.output()
        assert "Traceback" not in daemon.output()
    assert path.read_bytes() == bytes_


def test_a_file_of_a_newer_foreman_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    settings = {"db_path": str(path)}
    with run_target(tmp_path, rate=0) as simulator:
        with run_foreman(tmp_path, simulator.url, **settings) as daemon:
            daemon.signal(signal.SIGTERM)
            daemon.wait()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        with run_process(
            [str(SCRIPTS / "foreman"), "serve"], tmp_path, settings | {"listen": f"127.0.0.1:{free_port()}"}
        ) as newer:
            assert newer.wait() == 1
            assert "was written by a newer foreman (schema 99" in newer.output()


def test_a_file_that_is_deleted_under_it_loses_nothing_that_foreman_still_says_it_has(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with run_target(tmp_path, rate=0) as simulator, run_foreman(tmp_path, simulator.url, db_path=str(path)) as daemon:
        id_ = json.loads(hand_over(daemon, "before").body)["id"]
        until(lambda: states(daemon)[id_] == "succeeded", "the first job ends")
        for part in (path, path.with_name("jobs.db-wal"), path.with_name("jobs.db-shm")):
            part.unlink(missing_ok=True)
        refused = until(lambda: one if (one := hand_over(daemon, "after")).status == 503 else None, "it is noticed")
        assert str(path) in json.loads(refused.body)["detail"]
        assert daemon.get("/healthz")["reason"] == "store_broken"
        assert chats_go_on(daemon)
