"""The client packages for Node wait in line with notices on: unharmed, and a failure behind a notice is an exception.

Needs node, npm and the packages of ``tests/node/package-lock.json``, which are installed outside of the checkout. They wait
for WAITING_SECONDS, as those in ``test_waiting_clients.py`` do.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.client_libraries import MODEL, WAITING_SECONDS
from support.processes import (
    ForemanProcess,
    InThread,
    TargetProcess,
    clean_environment,
    endless_chat,
    run_foreman,
    run_target,
)

NODE = Path(__file__).parent / "node"
TEXT = "hello there"
#: What the script asks at once: two packages, one of them by two routes, each whole and streamed.
ASKED = 6
#: Seconds after which each has its notice.
NOTICED = 1.0

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None or shutil.which("npm") is None, reason="needs node and npm"),
]


@pytest.fixture(scope="module")
def packages(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what is locked, which a later run finds again as long as nothing else is locked."""
    locked = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()[:16]
    kept = pytestconfig.cache.mkdir(f"node-{locked}") if pytestconfig.cache else tmp_path_factory.mktemp("node")
    ready = kept / "ready"
    if not ready.exists():
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, kept)
        try:
            installed = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=kept,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=90,
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm does not get the packages within 90 s")
        if installed.returncode:
            pytest.skip(f"npm cannot install the packages: {installed.stderr.strip().splitlines()[-1:]}")
        ready.touch()
    return kept


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetProcess]:
    with run_target(tmp_path_factory.mktemp("target"), rate=400, parallel=8, max_loaded=20) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def daemon(simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanProcess]:
    notices = {"wait_notice": "500ms", "wait_notice_unary": "500ms"}
    with run_foreman(tmp_path_factory.mktemp("foreman"), simulator.url, poll_interval="1h", **notices) as daemon:
        yield daemon


def ask(packages: Path, url: str) -> dict[str, dict[str, str]]:
    """What each client got in each way: its ``text``, or the ``error`` that it threw."""
    # A proxy or an address of whoever runs the tests does not reach the clients.
    environ = {
        name: value
        for name, value in clean_environment({}).items()
        if not name.startswith(("OLLAMA_", "OPENAI_", "NODE_")) and not name.lower().endswith("_proxy")
    }
    done = subprocess.run(
        ["node", str(NODE / "clients.mjs"), str(packages), url, MODEL, TEXT],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAITING_SECONDS + 60,
    )
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, dict[str, str]] = json.loads(done.stdout)
    assert len(outcomes) == ASKED
    return outcomes


@contextmanager
def waiting(
    daemon: ForemanProcess, packages: Path, seconds: float = NOTICED
) -> Iterator[InThread[dict[str, dict[str, str]]]]:
    """Let the clients wait behind a chat for so many seconds, until each has been begun; that chat ends with the block."""
    with daemon.call("/api/chat", endless_chat("the one before")) as running:
        running.read_until(b"\n")
        asked = InThread(lambda: ask(packages, daemon.url))
        daemon.wait_for_queue(ASKED)
        time.sleep(seconds)
        yield asked


def test_every_client_for_node_gets_its_whole_answer_after_waiting_with_notices(
    packages: Path, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    direct = ask(packages, simulator.url)
    assert all(outcome.get("text") for outcome in direct.values()), direct
    with waiting(daemon, packages, WAITING_SECONDS) as asked:
        pass
    assert asked.result(patience=30) == direct


def test_a_failure_behind_a_notice_is_an_exception_in_every_client_for_node(
    packages: Path, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    with waiting(daemon, packages) as asked:
        simulator.inject_fault("5xx", times=ASKED)
    outcomes = asked.result(patience=30)
    assert all(outcome.keys() == {"error"} for outcome in outcomes.values()), outcomes


def test_a_target_lost_in_mid_answer_is_an_exception_in_every_client_for_node(
    packages: Path, simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    with waiting(daemon, packages) as asked:
        simulator.inject_fault("close", at_byte=140, times=ASKED)
    outcomes = asked.result(patience=30)
    assert all(outcome.keys() == {"error"} for outcome in outcomes.values()), outcomes
