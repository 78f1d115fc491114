"""The real client packages wait in line with notices on: unharmed, and a failure behind a notice is an exception.

They wait WAITING seconds each, all at once: long enough for several fillers. ``WAITING_SECONDS=30`` makes it the half
minute after which impatient clients give up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

import anthropic
import httpx
import ollama
import openai
import pytest

from support.client_libraries import LIBRARIES, MODEL, WAITING_SECONDS, ClientLibrary
from support.processes import Call, ForemanProcess, InThread, TargetProcess, endless_chat, run_foreman, run_target

WAYS: dict[str, Callable[[ClientLibrary], str]] = {
    "whole": lambda peer: peer.whole(MODEL, "hello there"),
    "streamed": lambda peer: "".join(peer.stream(MODEL, "hello there")),
}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetProcess]:
    with run_target(tmp_path_factory.mktemp("target"), rate=400, parallel=8, max_loaded=20) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def daemon(simulator: TargetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanProcess]:
    notices = {"wait_notice": "500ms", "wait_notice_unary": "500ms"}
    with run_foreman(tmp_path_factory.mktemp("foreman"), simulator.url, poll_interval="1h", **notices) as daemon:
        yield daemon


def in_one_way(make: Callable[[str], ClientLibrary], url: str, ask: Callable[[ClientLibrary], str]) -> str:
    peer = make(url)
    try:
        return ask(peer)
    finally:
        peer.close()


def all_ways(url: str) -> list[tuple[str, Callable[[], str]]]:
    """Every client in every way that it has."""
    return [
        (f"{name}, {way}", partial(in_one_way, make, url, ask))
        for name, make in LIBRARIES.items()
        for way, ask in WAYS.items()
    ]


def behind_another(
    daemon: ForemanProcess, calls: list[tuple[str, Callable[[], str]]]
) -> tuple[Call, dict[str, InThread[str]]]:
    """Let a chat run that does not end, and these wait behind it until each has seen fillers."""
    running = daemon.call("/api/chat", endless_chat("the one before"))
    running.read_until(b"\n")
    waiting = {name: InThread(call) for name, call in calls}
    daemon.wait_for_queue(len(waiting))
    time.sleep(WAITING_SECONDS)
    return running, waiting


def test_every_client_gets_its_whole_answer_after_waiting_with_notices(
    simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    direct = {name: call() for name, call in all_ways(simulator.url)}
    assert all(direct.values())
    running, waiting = behind_another(daemon, all_ways(daemon.url))
    running.leave()
    assert {name: call.result(patience=30) for name, call in waiting.items()} == direct


def test_a_failure_behind_a_notice_is_an_exception_in_every_client(
    simulator: TargetProcess, daemon: ForemanProcess
) -> None:
    running, waiting = behind_another(daemon, all_ways(daemon.url))
    simulator.inject_fault("5xx", times=len(waiting))
    running.leave()
    took_for_an_answer = []
    for name, call in waiting.items():
        with contextlib.suppress(ollama.ResponseError, openai.APIError, anthropic.APIError, httpx.HTTPError):
            took_for_an_answer.append((name, call.result(patience=30)))
    assert took_for_an_answer == []
