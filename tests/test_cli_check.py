"""``foreman check``: what counts, where it comes from, and whether it would work."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import evolve
from pytest_twisted import ensureDeferred
from rich.console import Console
from twisted.internet.defer import maybeDeferred
from twisted.protocols.portforward import ProxyFactory
from ulid import ULID

from foreman.cli.commands import checks
from foreman.cli.commands.check import as_json_value, show
from foreman.cli.commands.checks import CheckResult
from foreman.cli.commands.effective_settings import effective_settings
from foreman.config import target_address
from foreman.config.settings import MASK, SETTINGS, Config, load
from foreman.simulator import Settings, Simulator
from foreman.store.sqlite.opening import open_database
from foreman.target.client import TargetClient
from foreman.target.connector import endpoint_for
from foreman.target.inventory import Inventory
from support.live_foreman import listen, port_of, reactor, settings, start_foreman
from support.processes import SCRIPTS, clean_environment, free_port

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


# -- the settings that count


def of(variable: str, environ: dict[str, str], **options: str | None) -> tuple[str, str]:
    """Value and source of one setting."""
    (found,) = [one for one in effective_settings(environ, options) if one.variable == variable]
    return found.value, found.source


def test_a_setting_comes_from_option_environment_or_default() -> None:
    assert of("FOREMAN_TURNS", {}) == ("1", "default")
    assert of("FOREMAN_TURNS", {"FOREMAN_TURNS": " 2 "}) == ("2", "environment")
    assert of("FOREMAN_TURNS", {"FOREMAN_TURNS": "2"}, turns="3") == ("3", "--turns")
    assert of("FOREMAN_TURNS", {"FOREMAN_TURNS": ""}, turns=None) == ("1", "default")


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.secret], ids=lambda one: one.variable)
def test_a_secret_is_never_shown(setting: Any) -> None:
    assert of(setting.variable, {setting.variable: "correct-horse"}) == (MASK, "environment")
    assert of(setting.variable, {f"{setting.variable}_FILE": "/run/token"}) == (MASK, "file /run/token")
    assert of(setting.variable, {}) == ("", "default")


def test_what_is_shown_is_what_counts() -> None:
    environ, options = {"FOREMAN_TURNS": "2", "FOREMAN_LISTEN": "127.0.0.1:9"}, {"max_body": "1MiB"}
    config = load(environ, options)
    parsers = {setting.variable: (setting.attribute, setting.parse) for setting in SETTINGS}
    for one in effective_settings(environ, options):
        attribute, parse = parsers[one.variable]
        assert getattr(config, attribute) == parse(one.value)


# -- the store


def test_jobs_that_can_be_kept_are_well_whether_the_file_is_there_or_not(tmp_path: Path) -> None:
    config = Config(db_path=tmp_path / "not" / "yet" / "foreman.db")
    assert checks.check_store(config) == CheckResult("store", "ok", f"jobs will be stored in {config.db_path}")
    assert config.db_path is not None
    lock = open_database(config.db_path, str(ULID()), 0).lock
    assert checks.check_store(config) == CheckResult("store", "note", f"a running foreman uses {config.db_path}")
    lock.release()
    assert checks.check_store(config) == CheckResult("store", "ok", f"jobs are stored in {config.db_path}")


def test_a_file_that_is_no_store_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "foreman.db"
    path.write_text("a letter to my aunt, which is long enough to be taken for a file of another kind" * 20)
    found = checks.check_store(Config(db_path=path))
    assert found.state == "bad"
    assert str(path) in found.text
    assert path.read_text().startswith("a letter")


def test_a_folder_that_may_not_be_entered_is_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    found = checks.check_store(Config(db_path=tmp_path / "foreman.db"))
    assert (found.state, "Permission denied" in found.text) == ("bad", True)


# -- the target


async def looked(config: Config, now: datetime = NOW) -> dict[str, CheckResult]:
    """The findings by their names."""
    return {one.name: one for one in await checks.run_checks(reactor, config, now.timestamp)}


@pytest_twisted.async_yield_fixture
async def simulator() -> AsyncIterator[Any]:
    """A simulator whose clock shows NOW, and its port."""
    target = Simulator(reactor, Settings(models=("llama3.2:3b", "nomic-embed-text:latest")), NOW.timestamp())
    listening = listen(target)
    yield target, port_of(listening)
    await maybeDeferred(listening.stopListening)


@ensureDeferred
async def test_a_target_that_answers_is_told_with_version_and_models(simulator: Any) -> None:
    _, port = simulator
    found = await looked(settings(port))
    assert found["target"].state == "ok"
    assert found["target"].text.startswith(f"http://127.0.0.1:{port} is Ollama 0.34.4")
    assert "with 2 models, 0 loaded" in found["target"].text
    assert [one.state for one in found.values()] == ["ok"] * 6


@ensureDeferred
async def test_a_target_that_does_not_answer_fails_with_its_reason() -> None:
    port = free_port()
    found = await looked(settings(port))
    assert found["target"].state == "bad"
    assert "refuses connections" in found["target"].text
    assert f"127.0.0.1:{port}" in found["target"].text


@ensureDeferred
async def test_a_list_that_the_target_does_not_give_is_noted(simulator: Any) -> None:
    target, port = simulator
    target.misbehave("5xx", route="/api/ps", times=0, status=404, text="404 page not found")
    found = await looked(settings(port))
    assert found["target"].state == "note"
    assert "with 2 models" in found["target"].text
    assert "there is no list at /api/ps: the target answered 404: 404 page not found" in found["target"].text


@ensureDeferred
async def test_a_target_that_wants_a_token_is_told_so(simulator: Any) -> None:
    target, port = simulator
    target.misbehave("5xx", route="*", times=0, status=401, text="who are you")
    found = await looked(settings(port))
    assert found["target"].state == "bad"
    assert "FOREMAN_TARGET_TOKEN" in found["target"].text


@pytest.mark.parametrize(("status", "end"), [(500, "508 models"), (503, "asked whether it is a circle")])
@ensureDeferred
async def test_what_a_target_says_is_not_taken_for_its_status(
    simulator: Any, monkeypatch: pytest.MonkeyPatch, status: int, end: str
) -> None:
    async def asked(client: Any) -> str:
        return "; asked whether it is a circle"

    target, port = simulator
    monkeypatch.setattr(checks, "_loop_hint", asked)
    target.misbehave("5xx", route="*", times=0, status=status, text="answered 401, answered 503, 508 models")
    found = await looked(settings(port))
    assert found["target"].state == "bad"
    assert found["target"].text.endswith(end)


@ensureDeferred
async def test_a_target_that_is_no_ollama_is_told_so(simulator: Any) -> None:
    target, port = simulator
    target.misbehave("garbage", route="*", times=0)
    assert (await looked(settings(port)))["target"].state == "bad"


@ensureDeferred
async def test_a_page_of_something_else_is_told_in_one_bounded_line(simulator: Any) -> None:
    target, port = simulator
    page = "<html>\n<script>\x1b[31m" + "welcome to the router\n" * 1000
    target.misbehave("5xx", route="*", times=0, status=404, text=page)
    found = (await looked(settings(port)))["target"]
    assert found.state == "bad"
    assert "answered 404 with a web page" in found.text
    assert "<" not in found.text
    assert len(found.text) < 500
    assert "\n" not in found.text
    assert "\x1b" not in found.text


@ensureDeferred
async def test_a_path_in_the_address_of_the_target_is_said_to_be_too_much(simulator: Any) -> None:
    _, port = simulator
    config = evolve(settings(port), target=target_address.parse_target(f"http://127.0.0.1:{port}/v1"))
    found = (await looked(config))["target"]
    assert found.state == "bad"
    assert found.text.endswith("Ollama's own address has no path: remove /v1")


@ensureDeferred
async def test_a_target_that_is_another_foreman_is_noted(simulator: Any) -> None:
    _, port = simulator
    foreman = await start_foreman(port)
    found = (await looked(settings(foreman.port)))["target"]
    assert found.state == "note"
    assert "it is a foreman itself" in found.text
    await foreman.stop()


@pytest.mark.parametrize(
    ("model", "state"), [("nomic-embed-text", "ok"), ("mxbai-embed-large", "bad"), ("no-such/thing", "bad")]
)
@ensureDeferred
async def test_the_model_for_embeddings_must_be_there(simulator: Any, model: str, state: str) -> None:
    _, port = simulator
    assert (await looked(settings(port, embedder_model=model)))["embedder"].state == state


# -- the port


@ensureDeferred
async def test_a_port_is_free_until_somebody_has_it() -> None:
    free = f"tcp:{free_port()}:interface=127.0.0.1"
    for _ in range(2):
        assert (await checks.check_port(reactor, free)).state == "ok"
    taken = listen(checks._RefusingFactory())
    found = await checks.check_port(reactor, f"tcp:{port_of(taken)}:interface=127.0.0.1")
    assert found.state == "bad"
    assert "in use" in found.text
    await maybeDeferred(taken.stopListening)


@ensureDeferred
async def test_a_port_that_foreman_has_itself_is_only_noted(simulator: Any) -> None:
    _, port = simulator
    daemon = await start_foreman(port)
    found = await checks.check_port(reactor, f"tcp:{daemon.port}:interface=127.0.0.1")
    assert found.state == "note"
    assert "a foreman already listens" in found.text
    await daemon.stop()


@pytest.mark.parametrize(
    ("where", "state"),
    [
        ("unix:{folder}/socket", "ok"),
        ("unix:{folder}/nowhere/socket", "bad"),
        ("ssl:0:privateKey={folder}/none.pem", "bad"),
        ("nonsense:1", "bad"),
        ("systemd:domain=INET:index=0", "note"),
    ],
)
@ensureDeferred
async def test_every_endpoint_is_tried_that_can_be(where: str, state: str, tmp_path: Path) -> None:
    assert (await checks.check_port(reactor, where.format(folder=tmp_path))).state == state
    assert not os.listdir(tmp_path)  # noqa: PTH208 - pathlib is not for coroutines


# -- door, clock, descriptors


@pytest.mark.parametrize(
    ("variables", "state", "words"),
    [
        ({}, "ok", "only this machine"),
        ({"FOREMAN_AUTH_TOKEN": "correct-horse-battery"}, "ok", "a token is required"),
        ({"FOREMAN_LISTEN": ":8080", "FOREMAN_ALLOW_OPEN": "1"}, "note", "delete models"),
    ],
)
def test_who_may_come_in_is_told(variables: dict[str, str], state: str, words: str) -> None:
    found = checks.check_access(load(variables))
    assert found.state == state
    assert words in found.text


@pytest.mark.parametrize(
    ("here", "there", "state", "words"),
    [
        (NOW, NOW, "ok", "the same as on the target"),
        (NOW, None, "ok", "2026-11-24 12:00:00 UTC"),
        (NOW + timedelta(minutes=5), NOW, "note", "300 s ahead of the target"),
        (NOW - timedelta(minutes=5), NOW, "note", "300 s behind the target"),
        (datetime(1970, 1, 1, tzinfo=UTC), None, "bad", "it shows 1970-01-01"),
    ],
)
def test_a_clock_that_cannot_be_right_is_told(here: datetime, there: datetime | None, state: str, words: str) -> None:
    found = checks.check_clock(here.timestamp(), None if there is None else format_datetime(there, usegmt=True))
    assert found.state == state
    assert words in found.text


def test_a_date_that_cannot_be_read_says_nothing_of_the_clock() -> None:
    assert checks.check_clock(NOW.timestamp(), "yesterday").state == "ok"


def test_too_few_descriptors_are_noted_with_what_will_be() -> None:
    assert checks.check_descriptors(load({}), 65536).state == "ok"
    found = checks.check_descriptors(load({}), 1024)
    assert found.state == "note"
    assert "614 connections, not 10000" in found.text


# -- how it is told


def test_what_was_chosen_is_shown_before_what_is_default() -> None:
    paper = io.StringIO()
    show(effective_settings({"FOREMAN_LOG_FORMAT": "json"}, {"turns": "2"}), [], Console(file=paper, width=120))
    names = [line.split()[0] for line in paper.getvalue().splitlines()[1:]]
    assert names[:3] == ["FOREMAN_TURNS", "FOREMAN_LOG_FORMAT", "FOREMAN_LISTEN"]
    assert len(names) == len(SETTINGS)


FOUND = [
    CheckResult("target", "ok", "http://127.0.0.1:11434 is Ollama 0.33.0 with 12 models, 1 loaded"),
    CheckResult("access", "note", "no token is required: anyone who can connect can chat and delete models"),
    CheckResult(
        "port", "bad", "tcp:8080:interface=127.0.0.1: address already in use; FOREMAN_LISTEN says where to listen"
    ),
]


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("terminal", [True, False], ids=["colour", "plain"])
def test_the_tables_fit_the_terminal_and_say_in_words_what_fails(width: int, terminal: bool) -> None:
    paper = io.StringIO()
    chosen = effective_settings(
        {"FOREMAN_AUTH_TOKEN_FILE": "/run/credentials/foreman.service/auth-token"}, {"turns": "2"}
    )
    show(chosen, FOUND, Console(file=paper, width=width, force_terminal=terminal, highlight=False))
    text = paper.getvalue()
    assert ("\x1b[" in text) is terminal
    for word in ("ok", "note", "FAILS", "--turns", "FOREMAN_LISTEN says"):
        assert word in text
    if not terminal:
        assert all(len(line) <= width for line in text.splitlines())


def test_it_is_well_unless_something_fails() -> None:
    assert as_json_value([], FOUND[:2], [])["ok"] is True
    assert as_json_value([], FOUND, [])["ok"] is False
    assert as_json_value([], [], ["FOREMAN_TURNS: is not a whole number"])["ok"] is False


def check(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it as a program; ``variables`` by their name without FOREMAN_, lower case."""
    return subprocess.run(
        [str(SCRIPTS / "foreman"), "check", *options],
        stdin=subprocess.DEVNULL,
        env=clean_environment(variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_wrong_settings_end_with_2_and_the_rest_is_shown_all_the_same() -> None:
    run = check("--turns", "none", poll_interval="soon")
    assert run.returncode == 2
    assert [line.split()[1].rstrip(":") for line in run.stderr.splitlines()] == [
        "FOREMAN_POLL_INTERVAL",
        "FOREMAN_TURNS",
    ]
    assert "FOREMAN_LISTEN" in run.stdout
    value = json.loads(check("--turns", "none", "--json").stdout)
    assert value["problems"] == ["FOREMAN_TURNS (--turns): 'none' is not a whole number"]


def test_what_would_not_work_ends_with_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen_there = f"127.0.0.1:{taken.getsockname()[1]}"
        run = check("--json", listen=listen_there, target_url=f"127.0.0.1:{free_port()}", auth_token="correct-horse")
    assert run.returncode == 1, run.stderr
    value = json.loads(run.stdout)
    assert {one["name"]: one["state"] for one in value["checks"]} == {
        "target": "bad",
        "port": "bad",
        "access": "ok",
        "clock": "ok",
        "store": "ok",
        "descriptors": "ok",
    }
    assert "correct-horse" not in run.stdout


@ensureDeferred
async def test_a_target_that_is_foreman_itself_is_told() -> None:
    own = free_port()
    # What leads back is not seen in the addresses: a published port of a container, a name, another proxy.
    detour: Any = listen(ProxyFactory("127.0.0.1", own))
    foreman = await start_foreman(port_of(detour), listen=f"tcp:{own}:interface=127.0.0.1")
    config = settings(port_of(detour))
    client = TargetClient(reactor, endpoint_for(reactor, config.target, 2), config.target)
    found = await checks.check_target(reactor, client, Inventory(reactor, client, 60))
    assert found.state == "bad"
    assert "has come back to the foreman that sent it" in found.text
    await foreman.stop()
    await maybeDeferred(detour.stopListening)
