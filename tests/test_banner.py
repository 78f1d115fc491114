"""What foreman says at its start."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import maybeDeferred
from twisted.logger import capturedLogs, formatEvent

from foreman.simulator import Settings, Simulator
from foreman.system.banner import MAX_NAMES, Banner
from foreman.target.listings import Installed, Running
from support.live_foreman import listen, port_of, reactor, settings, start_foreman
from support.processes import free_port

CHAT = Installed("qwen3:8b", capabilities=["completion", "tools"])
OTHER = Installed("zephyr:7b", capabilities=["completion"])
EMBEDDER = Installed("all-minilm:latest", capabilities=["embedding"])


def said(installed: list[Installed], *running: str, **variables: str) -> list[str]:
    """What stands in the log of a foreman whose target has ``installed``, and which sees it come back once."""
    banner = Banner(settings(11434, **{"listen": "127.0.0.1:8080", **variables}))
    with capturedLogs() as events:
        banner.log_address()
        for _ in range(2):
            banner.log_models(installed, [Running(name) for name in running])
    return [str(formatEvent(event)) for event in events]


def tried(installed: list[Installed], *running: str, **variables: str) -> list[str]:
    """The words of the command that is there to be tried."""
    *_, last = said(installed, *running, **variables)
    assert last.startswith("try it: ")
    return shlex.split(last.removeprefix("try it: "))


def test_it_says_where_it_is_in_front_of_what_and_what_is_there() -> None:
    where, models, _ = said([CHAT, EMBEDDER])
    assert where.startswith("foreman ")
    assert where.endswith(" listens on tcp:8080:interface=127.0.0.1, in front of http://127.0.0.1:11434")
    assert models == "2 models are installed: all-minilm:latest, qwen3:8b"


def test_the_line_to_try_asks_a_model_that_can_chat() -> None:
    curl, url, option, body = tried([EMBEDDER, CHAT, OTHER])
    assert (curl, url, option) == ("curl", "http://127.0.0.1:8080/api/chat", "-d")
    assert json.loads(body) == {"model": "qwen3:8b", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_model_that_is_loaded_is_tried_rather_than_another() -> None:
    assert json.loads(tried([CHAT, OTHER], "zephyr:7b")[-1])["model"] == "zephyr:7b"


@pytest.mark.parametrize("capabilities", [None, "nobody knows"])
def test_of_an_ollama_that_does_not_say_what_its_models_can_any_is_tried(capabilities: Any) -> None:
    assert json.loads(tried([Installed("old", capabilities=capabilities)])[-1])["model"] == "old"


def test_where_there_is_nothing_to_try_nothing_is_said_of_it() -> None:
    assert said([])[1:] == ["no model is installed at the target yet"]
    assert said([EMBEDDER])[1:] == ["1 models are installed: all-minilm:latest"]
    assert len(said([CHAT], listen="unix:/run/foreman.sock")) == 2


@pytest.mark.parametrize(("variable", "shown"), [("auth_token", "$FOREMAN_AUTH_TOKEN"), ("admin_token", "$TOKEN")])
def test_a_token_is_left_to_the_shell(variable: str, shown: str) -> None:
    words = tried([CHAT], **{variable: "correct-horse-battery"})
    assert f"Authorization: Bearer {shown}" in words
    assert not any("correct" in word for word in words)


def test_of_very_many_models_some_are_named() -> None:
    _, models, _ = said([Installed(f"m{number:02}") for number in range(MAX_NAMES + 5)])
    assert models.startswith(f"{MAX_NAMES + 5} models are installed: m00, m01, ")
    assert models.endswith(f"m{MAX_NAMES - 1:02} and 5 more")


@pytest_twisted.ensureDeferred
async def test_it_is_said_once_and_not_again_when_the_target_comes_back() -> None:
    listening = listen(Simulator(reactor, Settings()))
    with capturedLogs() as events:
        foreman = await start_foreman(port_of(listening), listen=f"127.0.0.1:{free_port()}")
        foreman.service.target.inventory.on_recovery()
    lines = [str(formatEvent(event)) for event in events if "banner" in event["log_namespace"]]
    assert [line.split()[0] for line in lines] == [
        "foreman",
        str(len(foreman.service.target.inventory.installed)),
        "try",
    ]
    assert f"http://127.0.0.1:{foreman.port}/api/chat" in lines[-1]
    await foreman.stop()
    await maybeDeferred(listening.stopListening)
