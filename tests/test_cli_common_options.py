"""The commands that ask a running foreman: an honest picture, and a clear sentence where there is none."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import click
import pytest
from attrs import define, field
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from rich.console import Console
from service_identity import VerificationError
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from foreman.cli.client import address, client
from foreman.cli.client.client import ForemanClient
from foreman.cli.client.errors import RequestFailed
from foreman.cli.commands import cancel, models, ps
from foreman.cli.commands.models import Models
from foreman.cli.ui import ps_view
from foreman.cli.ui.exit_status import FAILED, NOT_ALLOWED, NOT_FOREMAN, NOT_FOUND
from foreman.cli.ui.ps_view import Snapshot
from support.live_foreman import reactor
from support.processes import SCRIPTS, chat, clean_environment, endless_chat, run_foreman, run_target

T = TypeVar("T")
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RUNNING = "01M85QHVFK3YAWY26YPS1XES2H"
WAITING = "01M85QJ2M00000000000ABCDEF"

QUEUE: dict[str, Any] = {
    "turns": 1,
    "running": [
        {
            "id": RUNNING,
            "caller": "alice",
            "model": "llama3.2:3b",
            "route": "/api/chat",
            "state": "answering",
            "since": "2026-11-24T11:59:56.800Z",
            "seconds": 3.2,
        }
    ],
    "waiting": [
        {
            "id": WAITING,
            "caller": "192.168.100.200",
            "model": "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
            "route": "/v1/chat/completions",
            "since": "2026-11-24T11:57:55.000Z",
            "seconds": 125,
            "position": 1,
            "estimate": {"low": 20.0, "high": 45.4},
        }
    ],
    "embedding": {"running": 2, "cap": 8},
}
LOADED: list[dict[str, Any]] = [
    {
        "name": "llama3.2:3b",
        "size": 2_800_000_000,
        "size_vram": 2_800_000_000,
        "context_length": 4096,
        "expires_at": "2026-11-24T12:04:00.123456789Z",
    },
    {
        "name": "nomic-embed-text:latest",
        "size": 300_000_000,
        "size_vram": 0,
        "context_length": 512,
        "expires_at": "2319-03-05T21:32:21.585812536Z",
    },
]
INSTALLED: list[dict[str, Any]] = [
    {
        "name": "qwen3:8b",
        "size": 5_225_388_164,
        "details": {"context_length": 40960},
        "capabilities": ["completion", "tools", "thinking"],
    },
    {
        "name": "llama3.2:3b",
        "size": 2_019_393_189,
        "details": {"context_length": 131072},
        "capabilities": ["completion", "tools"],
    },
    # As an Ollama lists it that is a year old.
    {"name": "nomic-embed-text:latest", "size": 274_302_450, "details": None},
]
WELL = {"status": "ok", "degraded": False}
AWAY = {"status": "ok", "degraded": True, "reason": "refused", "since": "2026-11-24T11:00:00Z"}


@define(eq=False)
class Served:
    """What a pretended foreman answers, and what it was asked.

    :ivar answers: status and value by method and path.
    """

    answers: dict[str, tuple[int, Any]] = field(
        factory=lambda: {
            "GET /healthz": (200, WELL),
            "GET /queue": (200, QUEUE),
            "GET /api/ps": (200, {"models": LOADED}),
            "GET /api/tags": (200, {"models": INSTALLED}),
            f"DELETE /queue/{RUNNING}": (204, ""),
            f"DELETE /queue/{WAITING}": (204, ""),
        }
    )
    asked: list[tuple[str, str | None]] = field(factory=list)
    url: str = ""

    @property
    def paths(self) -> list[str]:
        """What was asked for."""
        return [path for path, _ in self.asked]


@pytest.fixture
def served() -> Iterator[Served]:
    answers = Served()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked = f"{self.command} {self.path}"
            answers.asked.append((asked, self.headers["Authorization"]))
            status, value = answers.answers.get(asked, (404, "404 page not found"))
            body = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        answers.url = f"http://127.0.0.1:{server.server_port}"
        yield answers
        server.shutdown()
        thread.join()


async def ask(url: str, question: Callable[[ForemanClient], Coroutine[Any, Any, T]], token: str | None = None) -> T:
    """What ``question`` finds out, as a command asks it."""
    foreman = ForemanClient(url, client.make_agent(reactor), token)
    return await client.run_request(url, question(foreman), reactor, client.REQUEST_TIMEOUT)


async def fails(
    url: str, question: Callable[[ForemanClient], Coroutine[Any, Any, object]], token: str | None = None
) -> RequestFailed:
    """Why ``question`` has no answer."""
    with pytest.raises(RequestFailed) as why:
        await ask(url, question, token)
    return why.value


def printed(draw: Callable[[Console], None], width: int, *, terminal: bool = False) -> str:
    """What is drawn on a console."""
    paper = io.StringIO()
    colours: Any = "standard" if terminal else "auto"
    draw(Console(file=paper, width=width, force_terminal=terminal, highlight=False, color_system=colours))
    return paper.getvalue()


# -- the ways to fail, which all of them share

QUESTIONS: dict[str, Callable[[ForemanClient], Coroutine[Any, Any, object]]] = {
    "ps": ps.fetch_snapshot,
    "models": models.fetch_models,
    "cancel": lambda foreman: cancel.cancel(foreman, RUNNING),
}


@pytest.mark.parametrize("name", QUESTIONS)
@ensureDeferred
async def test_where_nobody_listens_it_is_said_so(name: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    why = await fails(url, QUESTIONS[name])
    assert why.exit_status == FAILED
    assert str(why).startswith(f"nothing listens at {url}; start foreman")


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("health", [(404, "404 page not found"), (200, "<html>"), (200, {"status": "ok"}), (200, [])])
@ensureDeferred
async def test_something_else_than_foreman_is_not_asked_any_further(
    served: Served, name: str, health: tuple[int, Any]
) -> None:
    served.answers["GET /healthz"] = health
    why = await fails(served.url, QUESTIONS[name])
    assert why.exit_status == NOT_FOREMAN
    assert "is not foreman" in str(why)
    assert served.paths == ["GET /healthz"]


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("status", [401, 403])
@ensureDeferred
async def test_a_token_that_is_missing_or_wrong_is_said_to_be(served: Served, name: str, status: int) -> None:
    for path in served.answers.keys() - {"GET /healthz"}:
        served.answers[path] = (status, {"error": {"message": "a token is needed"}})
    why = await fails(served.url, QUESTIONS[name])
    assert why.exit_status == NOT_ALLOWED
    assert "a token is needed" in str(why)
    assert "set FOREMAN_TOKEN" in str(why)
    assert "is FOREMAN_TOKEN correct?" in str(await fails(served.url, QUESTIONS[name], "wrong"))


@ensureDeferred
async def test_every_question_carries_the_token(served: Served) -> None:
    await ask(served.url, ps.fetch_snapshot, "mine")
    assert {token for _, token in served.asked} == {"Bearer mine"}


def test_a_unix_socket_is_refused_with_a_way_to_ask_it() -> None:
    for url in ("unix:/run/foreman.sock", "unix:///run/foreman.sock:mode=660"):
        with pytest.raises(click.UsageError, match=r"cannot connect to a Unix socket.*curl --unix-socket"):
            address.normalize_url(url)


@pytest.mark.parametrize(
    ("url", "problem", "sentence"),
    [
        ("https://box", SSL.Error([("SSL routines", "", "certificate verify failed")]), "in SSL_CERT_FILE"),
        ("https://box", SSL.Error([("SSL routines", "", "wrong version number")]), "is its address http:// instead"),
        ("https://box", SSL.Error([("SSL routines", "", "no shared cipher")]), "TLS failed: [('SSL routines'"),
        ("https://box", VerificationError(errors=[]), "certificate is for another name"),
        ("http://box", ConnectionDone(), "if it requires TLS, use an https:// address"),
        ("https://box", ConnectionDone(), "Connection was closed cleanly"),
    ],
)
@ensureDeferred
async def test_what_is_wrong_with_tls_is_told_in_words(url: str, problem: Exception, sentence: str) -> None:
    async def asking() -> None:
        raise ResponseNeverReceived([Failure(problem)])

    with pytest.raises(RequestFailed) as caught:
        await client.run_request(url, asking(), None, None)
    assert sentence in str(caught.value)
    assert caught.value.exit_status == FAILED


@pytest.mark.parametrize("url", ["ftp://box", "http://", "http://box:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(click.UsageError, match="is not a URL of foreman"):
        address.normalize_url(url)


@pytest.mark.parametrize("url", ["http://me:hunter2@box", "me:hunter2@box", "http://me:hunter/2@box:x"])
def test_an_address_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        address.normalize_url(url)
    assert "FOREMAN_TOKEN" in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_quotes_around_an_address_or_a_token_do_not_count() -> None:
    assert address.normalize_url('"box:8080"') == "http://box:8080"
    assert address.token_from_environment({"FOREMAN_TOKEN": "'x'", "FOREMAN_AUTH_TOKEN": "y"}) == "x"
    assert address.token_from_environment({"FOREMAN_TOKEN": '""', "FOREMAN_AUTH_TOKEN": '"y"'}) == "y"
    assert address.token_from_environment({}) is None
    for odd in ('"x', "two words", "a\nb"):
        with pytest.raises(click.UsageError, match="FOREMAN_TOKEN: "):
            address.token_from_environment({"FOREMAN_TOKEN": odd})


def test_an_address_may_stand_without_a_scheme_and_with_a_slash() -> None:
    assert address.normalize_url("box:8080") == "http://box:8080"
    assert address.normalize_url("https://box/k/secret/") == "https://box/k/secret"


# -- foreman ps


@ensureDeferred
async def test_ps_asks_for_health_queue_and_loaded_models(served: Served) -> None:
    seen = await ask(served.url, ps.fetch_snapshot)
    assert seen == Snapshot(served.url, WELL, QUEUE, LOADED)


@ensureDeferred
async def test_ps_before_the_first_poll_shows_the_queue_all_the_same(served: Served) -> None:
    served.answers["GET /api/ps"] = (503, {"error": "foreman has not reached its target yet"})
    seen = await ask(served.url, ps.fetch_snapshot)
    text = printed(lambda console: ps_view.show(seen, console, NOW), 140)
    assert "alice" in text
    assert "not known yet" in text


def drawn_ps(seen: Snapshot, width: int, *, terminal: bool = False) -> str:
    return printed(lambda console: ps_view.show(seen, console, NOW), width, terminal=terminal)


@pytest.mark.parametrize("width", [80, 140])
def test_the_tables_of_ps_fit_the_terminal(width: int) -> None:
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", WELL, QUEUE, LOADED), width)
    assert all(len(line) <= width for line in text.splitlines())
    for column in ("ID", "CALLER", "MODEL", "ROUTE", "STATE", "FOR", "TURN IN", "LOADED", "SIZE", "CONTEXT", "UNTIL"):
        assert column in text
    for value in ("ES2H", "answering", "3.2 s", "ABCDEF", "queued", "2 min 5 s", "20-45 s", "2.8 GB", "in 4 minutes"):
        assert value in text
    assert "1 of 1 turns in use, 1 queued, 2 of 8 embeddings" in text


def test_a_model_that_loads_shows_how_long_it_usually_takes() -> None:
    loading = {**QUEUE["running"][0], "state": "loading", "usual_load": 12.0}
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", WELL, QUEUE | {"running": [loading]}, LOADED), 80)
    assert "3.2 s (usually 12 s)" in text


def test_a_turn_that_takes_longer_than_usual_says_so() -> None:
    late = {**QUEUE["running"][0], "overtime": True}
    unknown = {**QUEUE["waiting"][0], "estimate": None}
    text = drawn_ps(
        Snapshot("http://127.0.0.1:8080", WELL, QUEUE | {"running": [late], "waiting": [unknown]}, LOADED), 80
    )
    assert "3.2 s, longer than usual" in text
    assert "0 s" not in text.replace("2.0 s", "")


@pytest.mark.parametrize("models_", [None, []])
def test_nothing_is_called_known_that_never_was(models_: list[Any] | None) -> None:
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", AWAY, QUEUE, models_), 200)
    assert ("the models shown are the last known ones" in text) == (models_ is not None)
    assert ("its models are not known yet" in text) == (models_ is None)


def test_what_is_not_known_has_no_column() -> None:
    unknown = {**QUEUE["waiting"][0], "estimate": None}
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", WELL, QUEUE | {"waiting": [unknown]}, LOADED), 80)
    assert "TURN IN" not in text


def test_colour_is_for_terminals() -> None:
    seen = Snapshot("http://127.0.0.1:8080", WELL, QUEUE, LOADED)
    assert "\x1b[" in drawn_ps(seen, 100, terminal=True)
    assert "\x1b[" not in drawn_ps(seen, 100)


def test_colour_is_not_for_those_who_do_not_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", WELL, QUEUE, LOADED), 100, terminal=True)
    assert not re.search(r"\x1b\[(\d+;)*(3|9)\d", text)


def test_an_idle_foreman_has_no_empty_tables() -> None:
    idle = QUEUE | {"running": [], "waiting": []}
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", WELL, idle, []), 80)
    assert "CALLER" not in text
    assert "no model is loaded" in text


@pytest.mark.parametrize(
    ("health", "sentence"),
    [
        (AWAY, "the target cannot be reached since 2026-11-24T11:00:00Z (refused)"),
        ({"status": "draining", "degraded": False}, "foreman is draining and accepts no new requests"),
        (WELL | {"reason": "slow", "since": "2026-11-24"}, "there has been a problem since 2026-11-24 (slow)"),
    ],
)
def test_what_is_not_well_is_said_first(health: dict[str, Any], sentence: str) -> None:
    assert sentence in drawn_ps(Snapshot("http://127.0.0.1:8080", health, QUEUE, []), 80)
    text = printed(lambda console: models.show(Models("", health, INSTALLED, LOADED), console, NOW), 80)
    assert text.startswith(sentence)


def test_the_name_of_a_model_cannot_write_to_the_terminal() -> None:
    mischief = "\x1b[2J\x1b]0;hi\x07[red]x[/red]\n"
    row = {**QUEUE["running"][0], "model": mischief}
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", WELL, QUEUE | {"running": [row]}, []), 140)
    found = Models("", WELL, [{"name": mischief, "capabilities": [mischief]}], [])
    text += printed(lambda console: models.show(found, console, NOW), 140)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("[red]x[/red]") == 3


def test_a_foreman_of_another_version_does_not_end_in_a_traceback() -> None:
    strange: dict[str, Any] = {
        "turns": None,
        "running": [{"seconds": "long", "usual_load": "long"}, 3],
        "waiting": [{"estimate": [1, 2]}, {"estimate": {"low": None}}],
        "embedding": None,
    }
    text = drawn_ps(Snapshot("http://127.0.0.1:8080", {"status": "draining"}, strange, [{"size": "big"}, None]), 80)
    assert "draining" in text
    odd = [{"name": None, "capabilities": "all"}, 7, {}]
    printed(lambda console: models.show(Models("", {}, odd, [None, {"name": None, "size": "x"}]), console, NOW), 80)


# -- foreman models


@ensureDeferred
async def test_models_are_listed_with_what_they_take_and_can_the_loaded_ones_first(served: Served) -> None:
    found = await ask(served.url, models.fetch_models)
    for width in (80, 140):
        text = printed(lambda console, width=width: models.show(found, console, NOW), width)  # type: ignore[misc]
        lines = text.splitlines()
        assert all(len(line) <= width for line in lines)
        names = [line.split()[0] for line in lines if not line.startswith(" ")]
        assert names == ["NAME", "llama3.2:3b", "nomic-embed-text:latest", "qwen3:8b"]
        for value in ("2.0 GB", "4096", "100% GPU", "in 4 minutes", "100% CPU", "forever", "40960"):
            assert value in text
    assert "completion, tools, thinking" in text


@pytest.mark.parametrize("width", [20, 60, 80])
def test_what_a_model_can_stands_below_it_where_the_terminal_is_narrow(width: int) -> None:
    able = [model | {"capabilities": ["completion", "vision", "tools", "thinking"]} for model in INSTALLED]
    found = Models("http://127.0.0.1:8080", WELL, able, LOADED)
    lines = printed(lambda console: models.show(found, console, NOW), width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) == 1 + 2 * len(INSTALLED)
    assert all(line.startswith("  completion, vis") for line in lines[2::2])
    assert width < 80 or lines[2].strip() == "completion, vision, tools, thinking"


@ensureDeferred
async def test_models_for_scripts_tell_the_same_in_the_targets_order(served: Served) -> None:
    values = models.as_values(await ask(served.url, models.fetch_models))
    assert [value["name"] for value in values] == [model["name"] for model in INSTALLED]
    assert values[0] == {
        "name": "qwen3:8b",
        "size": 5_225_388_164,
        "context_length": 40960,
        "capabilities": ["completion", "tools", "thinking"],
        "loaded": None,
    }
    assert values[1]["loaded"] == {
        "size": 2_800_000_000,
        "size_vram": 2_800_000_000,
        "context_length": 4096,
        "expires_at": "2026-11-24T12:04:00.123456789Z",
    }
    assert values[2]["capabilities"] is None


@ensureDeferred
async def test_models_are_not_invented_before_the_target_was_reached(served: Served) -> None:
    served.answers["GET /api/tags"] = (503, {"error": "foreman has not reached its target yet: no models are known"})
    why = await fails(served.url, models.fetch_models)
    assert why.exit_status == FAILED
    assert "has not reached its target yet" in str(why)


@ensureDeferred
async def test_a_target_without_models_is_said_to_have_none(served: Served) -> None:
    served.answers["GET /api/tags"] = (200, {"models": []})
    found = await ask(served.url, models.fetch_models)
    assert "ollama pull" in printed(lambda console: models.show(found, console, NOW), 80)


# -- foreman cancel


@pytest.mark.parametrize("wanted", [WAITING, WAITING.lower(), "ABCDEF", "cdef"])
@ensureDeferred
async def test_a_request_is_cancelled_by_its_id_or_by_the_end_of_it(served: Served, wanted: str) -> None:
    said = await ask(served.url, lambda foreman: cancel.cancel(foreman, wanted))
    assert served.paths[-1] == f"DELETE /queue/{WAITING}"
    assert said.startswith(f"{WAITING} was cancelled")


@ensureDeferred
async def test_what_was_cancelled_is_said(served: Served) -> None:
    said = await ask(served.url, lambda foreman: cancel.cancel(foreman, "ES2H"))
    assert said == f"{RUNNING} was cancelled: alice, llama3.2:3b, /api/chat, answering"


@ensureDeferred
async def test_a_request_that_is_over_or_not_mine_cannot_be_cancelled(served: Served) -> None:
    served.answers[f"DELETE /queue/{WAITING}"] = (404, {"error": "no request of yours waits or runs"})
    why = await fails(served.url, lambda foreman: cancel.cancel(foreman, "ABCDEF"))
    assert why.exit_status == NOT_FOUND
    assert f"{WAITING} is neither queued nor running (any more), or belongs to someone else" in str(why)


@pytest.mark.parametrize(("end", "sentence"), [("ZZZZ", "see foreman ps"), ("ABC", "2 requests have an id")])
@ensureDeferred
async def test_the_end_of_an_id_must_be_of_one_request(served: Served, end: str, sentence: str) -> None:
    both = [{**QUEUE["waiting"][0], "id": f"01M85QJ2M{number}0000000000ABCABC"} for number in (1, 2)]
    served.answers["GET /queue"] = (200, QUEUE | {"waiting": both})
    why = await fails(served.url, lambda foreman: cancel.cancel(foreman, end))
    assert why.exit_status == NOT_FOUND
    assert sentence in str(why)
    assert not any(path.startswith("DELETE") for path in served.paths)


@ensureDeferred
async def test_a_foreman_that_cannot_cancel_says_why(served: Served) -> None:
    served.answers[f"DELETE /queue/{RUNNING}"] = (500, {"error": "foreman failed to answer this"})
    why = await fails(served.url, lambda foreman: cancel.cancel(foreman, RUNNING))
    assert why.exit_status == FAILED
    assert "foreman failed to answer this" in str(why)


# -- the commands themselves, in front of a real foreman


def test_the_commands_show_and_cancel_what_a_real_foreman_has_in_hand(tmp_path: Path) -> None:
    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environ = clean_environment({}) | {"FOREMAN_URL": daemon.url} | environ
        command = [str(SCRIPTS / "foreman"), *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, env=environ, capture_output=True, text=True, check=False, timeout=60
        )

    token = "correct-horse-battery"
    with run_target(tmp_path, rate=50) as simulator, run_foreman(tmp_path, simulator.url, auth_token=token) as daemon:
        with daemon.call("/api/chat", endless_chat("runs")) as running:
            running.read_until(b'"content"')
            waiting = daemon.call("/api/chat", chat("waits", stream=True))
            daemon.wait_for_queue(1)
            value = json.loads(run("ps", "--json", FOREMAN_AUTH_TOKEN=token).stdout)
            assert value.keys() == {"url", "health", "queue", "models"}
            (of_waiting,) = value["queue"]["waiting"]
            (of_running,) = value["queue"]["running"]

            listed = json.loads(run("models", "--json", FOREMAN_TOKEN=token).stdout)
            assert [model["name"] for model in listed["models"] if model["loaded"]] == [f"{of_running['model']}:latest"]

            for row in (of_waiting, of_running):
                cancelled = run("cancel", row["id"][-6:], FOREMAN_TOKEN=token)
                assert cancelled.returncode == 0, cancelled.stderr
                assert cancelled.stdout.startswith(f"{row['id']} was cancelled")
            assert b"cancelled" in waiting.rest().body
            running.rest()
            simulator.abandoned("runs")
            again = run("cancel", of_waiting["id"], FOREMAN_TOKEN=token)
            assert again.returncode == NOT_FOUND
            assert again.stderr.startswith("foreman cancel: ")
        assert not simulator.requests("waits")
