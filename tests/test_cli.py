"""The foreman command: quick to help, clear about mistakes, and an honest picture of a running foreman."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest
from attrs import define, field
from rich.console import Console

from foreman.cli import tables
from foreman.cli.main import _COMMANDS
from foreman.cli.tables import Seen, show

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def foreman(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FOREMAN_", "COLUMNS"))}
    command = [sys.executable, "-c", "from foreman.cli.main import main; main()", *arguments]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=False, timeout=60)


def test_help_names_every_command_and_imports_none_of_them() -> None:
    script = (
        "import sys; from foreman.cli.main import cli; cli.main(['--help'], standalone_mode=False);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'twisted', 'klein', 'treq', 'rich', 'msgspec'}))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in run.stdout for name in _COMMANDS)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    run = foreman(name, "--help")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"Usage: foreman {name}")


def test_a_command_that_is_not_there_is_answered_with_those_that_are() -> None:
    run = foreman("sreve")
    assert run.returncode == 2
    assert "'sreve'" in run.stderr
    assert "serve" in run.stderr.replace("'sreve'", "")


def test_serve_names_every_wrong_setting_on_a_line_of_its_own() -> None:
    run = foreman("serve", "--turns", "0", "--poll-interval", "soon", FOREMAN_LISTEN=":8080", FOREMAN_TURN="2")
    assert run.returncode == 2
    lines = run.stderr.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [
        "FOREMAN_POLL_INTERVAL",
        "FOREMAN_TURNS",
        "FOREMAN_LISTEN",
        "FOREMAN_TURN",
    ]


def test_the_reactor_of_the_platform_is_chosen() -> None:
    script = (
        "from foreman.cli.options import choose_reactor; choose_reactor();"
        "from twisted.internet import reactor; print(type(reactor).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    expected = {"linux": "EPollReactor", "darwin": "KQueueReactor"}.get(sys.platform)
    assert expected is None or run.stdout.strip() == expected


def test_settings_are_listed_for_people_for_a_file_and_for_a_page() -> None:
    assert "FOREMAN_POLL_INTERVAL" in foreman("settings").stdout
    assert "#FOREMAN_POLL_INTERVAL=30s\n" in foreman("settings", "--env").stdout
    assert "| `FOREMAN_POLL_INTERVAL` | `30s` |" in foreman("settings", "--markdown").stdout


# -- the commands that stay


@contextmanager
def staying(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOREMAN_")}
    command = [sys.executable, "-u", "-c", "from foreman.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, env=clean | environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], pattern: str) -> str:
    """The first line of what the process says that has the pattern: what its first group found."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(pattern, line):
            return found[1]
    raise AssertionError("".join(said))


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def test_simulate_pretends_to_be_an_ollama_with_the_models_it_was_told() -> None:
    with staying("simulate", "--listen", "127.0.0.1:0", "--models", "llama3.2:3b, mine:latest") as process:
        port = line_with(process, r"listens on .*port=(\d+)")
        names = {model["name"] for model in get(f"http://127.0.0.1:{port}/api/tags")["models"]}
        assert names == {"llama3.2:3b", "mine:latest"}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    "option", [("--rate", "-1"), ("--load-time", "soon"), ("--misbehave", "gently"), ("--listen", "nowhere")]
)
def test_simulate_says_which_option_it_does_not_understand(option: tuple[str, str]) -> None:
    run = foreman("simulate", *option)
    assert run.returncode == 2
    assert option[0] in run.stderr
    assert "Traceback" not in run.stderr


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_demo_serves_in_front_of_the_simulator_and_says_what_to_type() -> None:
    here = f"127.0.0.1:{free_port()}"
    with staying("demo", "--listen", here) as process:
        assert line_with(process, r"foreman is at (\S+), in front of the built-in simulator") == f"http://{here}"
        curl, url, *_, body = shlex.split(line_with(process, r"^  (curl .*/api/chat.*)$"))
        assert curl == "curl"
        line_with(process, r"(Ctrl-C)")
        with urllib.request.urlopen(url, body.encode(), timeout=30) as answer:
            assert json.loads(answer.read().splitlines()[-1])["done"] is True
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT


def test_demo_leaves_a_target_that_was_named_as_it_is() -> None:
    here = f"127.0.0.1:{free_port()}"
    with staying("demo", FOREMAN_LISTEN=here, FOREMAN_TARGET_URL="127.0.0.1:9") as process:
        assert line_with(process, r"in front of (http://127.0.0.1:9)\. In another") == "http://127.0.0.1:9"


# -- foreman ps against a server

QUEUE: dict[str, Any] = {
    "turns": 1,
    "running": [
        {
            "id": "01K",
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
            "id": "01L",
            "caller": "192.168.100.200",
            "model": "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
            "route": "/v1/chat/completions",
            "since": "2026-11-24T11:57:55.000Z",
            "seconds": 125,
            "position": 1,
        }
    ],
    "embedding": {"running": 2, "cap": 8},
}
PS: dict[str, Any] = {
    "models": [
        {
            "name": "llama3.2:3b",
            "model": "llama3.2:3b",
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
}
WELL = {"status": "ok", "degraded": False}


@define(eq=False)
class Served:
    """What a pretended foreman answers, and what it was asked with."""

    answers: dict[str, tuple[int, Any]] = field(
        factory=lambda: {"/healthz": (200, WELL), "/queue": (200, QUEUE), "/api/ps": (200, PS)}
    )
    tokens: list[str | None] = field(factory=list)
    url: str = ""


@pytest.fixture
def served() -> Iterator[Served]:
    answers = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.tokens.append(self.headers["Authorization"])
            status, value = answers.answers.get(self.path, (404, "404 page not found"))
            body = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answers.url = f"http://127.0.0.1:{server.server_port}"
        yield answers
        server.shutdown()
        thread.join()


def test_ps_shows_who_has_the_turn_who_waits_and_what_is_loaded(served: Served) -> None:
    run = foreman("ps", FOREMAN_URL=served.url)
    assert run.returncode == 0, run.stderr
    for text in ("1 of 1 turns taken, 1 waiting, 2 of 8 embeddings", "alice", "answering", "3.2 s", "192.168.100.200"):
        assert text in run.stdout
    for text in ("2 min 5 s", "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "2.8 GB", "100% GPU", "forever"):
        assert text in run.stdout
    assert "\x1b" not in run.stdout
    assert served.tokens == [None, None, None]


def test_ps_for_scripts_gives_what_foreman_said(served: Served) -> None:
    run = foreman("ps", "--json", "--url", served.url + "/")
    assert json.loads(run.stdout) == {"url": served.url, "health": WELL, "queue": QUEUE, "models": PS["models"]}


def test_ps_takes_its_token_from_the_environment_and_the_clients_own_variable_wins(served: Served) -> None:
    foreman("ps", "--url", served.url, FOREMAN_AUTH_TOKEN="the-daemons")
    foreman("ps", "--url", served.url, FOREMAN_AUTH_TOKEN="the-daemons", FOREMAN_TOKEN="mine")
    assert served.tokens == ["Bearer the-daemons"] * 3 + ["Bearer mine"] * 3


def test_ps_without_a_foreman_says_so_in_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        run = foreman("ps", "--url", f"127.0.0.1:{free.getsockname()[1]}")
    assert run.returncode == 1
    assert run.stderr.startswith("foreman ps: nobody listens at http://127.0.0.1:")
    assert run.stderr.count("\n") == 1
    assert run.stdout == ""


def test_ps_without_a_token_says_which_variable_to_set(served: Served) -> None:
    served.answers["/queue"] = (401, {"error": "a token is needed"})
    run = foreman("ps", "--url", served.url)
    assert run.returncode == 3
    assert "a token is needed" in run.stderr
    assert "set FOREMAN_TOKEN" in run.stderr
    run = foreman("ps", "--url", served.url, FOREMAN_TOKEN="wrong")
    assert run.returncode == 3
    assert "is FOREMAN_TOKEN the right one?" in run.stderr


@pytest.mark.parametrize("answers", [{}, {"/healthz": (200, "<html>")}, {"/healthz": (200, {"status": "ok"})}])
def test_ps_in_front_of_something_else_says_so(served: Served, answers: dict[str, tuple[int, Any]]) -> None:
    served.answers = answers
    run = foreman("ps", "--url", served.url)
    assert run.returncode == 4
    assert "is not foreman" in run.stderr


def test_ps_before_the_first_poll_shows_the_queue_all_the_same(served: Served) -> None:
    served.answers["/api/ps"] = (503, {"error": "the target is not known yet"})
    served.answers["/healthz"] = (200, {"status": "ok", "degraded": True, "reason": "refused", "since": "2026-11-24"})
    run = foreman("ps", "--url", served.url)
    assert run.returncode == 0
    assert "the target cannot be reached since 2026-11-24 (refused)" in run.stdout
    assert "not known yet" in run.stdout
    assert "alice" in run.stdout


@pytest.mark.parametrize("url", ["ftp://box", "http://", "http://box:port"])
def test_ps_refuses_what_is_no_address(url: str) -> None:
    run = foreman("ps", "--url", url)
    assert run.returncode == 2
    assert "is not the address of a foreman" in run.stderr


# -- how it looks


def shown(seen: Seen, width: int, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    colours: Literal["standard", "auto"] = "standard" if terminal else "auto"
    show(seen, Console(file=stream, width=width, force_terminal=terminal, highlight=False, color_system=colours), NOW)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_the_tables_fit_the_terminal(width: int) -> None:
    text = shown(Seen("http://127.0.0.1:8080", WELL, QUEUE, PS["models"]), width)
    assert all(len(line) <= width for line in text.splitlines())
    for column in ("CALLER", "MODEL", "ROUTE", "STATE", "FOR", "LOADED", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"):
        assert column in text
    for value in ("answering", "waiting", "2 min 5 s", "2.8 GB", "100% GPU", "in 4 minutes", "forever", "4096"):
        assert value in text


def test_colour_is_for_terminals() -> None:
    seen = Seen("http://127.0.0.1:8080", WELL, QUEUE, PS["models"])
    assert "\x1b[" in shown(seen, 100, terminal=True)
    assert "\x1b[" not in shown(seen, 100)


def test_an_idle_foreman_has_no_empty_tables() -> None:
    idle = QUEUE | {"running": [], "waiting": []}
    text = shown(Seen("http://127.0.0.1:8080", WELL, idle, []), 80)
    assert "CALLER" not in text
    assert "no model is loaded" in text


def test_the_name_of_a_model_cannot_write_to_the_terminal() -> None:
    mischief = {**QUEUE["running"][0], "model": "\x1b[2J\x1b]0;hi\x07[red]x[/red]\n"}
    text = shown(Seen("http://127.0.0.1:8080", WELL, QUEUE | {"running": [mischief]}, []), 140)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


def test_a_foreman_of_another_version_does_not_end_in_a_traceback() -> None:
    strange: dict[str, Any] = {"turns": None, "running": [{"seconds": "long"}, 3], "waiting": [{}], "embedding": None}
    text = shown(Seen("http://127.0.0.1:8080", {"status": "draining"}, strange, [{"size": "big"}, None]), 80)
    assert "draining" in text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000_000, "1 MB"),
        (9_982_443, "10.0 MB"),
        (19_999_999, "19 MB"),
        (2_019_393_189, "2.0 GB"),
        (42_000_000_000, "42 GB"),
    ],
)
def test_sizes_look_as_in_ollamas_own_ps(count: int, text: str) -> None:
    assert tables.human_size(count) == text


@pytest.mark.parametrize(
    ("size", "in_gpu", "text"),
    [(100, 100, "100% GPU"), (100, 0, "100% CPU"), (100, 52, "48%/52% CPU/GPU"), (0, 0, "100% CPU")],
)
def test_the_processor_looks_as_in_ollamas_own_ps(size: int, in_gpu: int, text: str) -> None:
    assert tables.processor(size, in_gpu) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (3.24, "3.2 s"), (59, "59 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")],
)
def test_how_long_something_has_lasted(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "stopping"), (1, "in 1 second"), (59, "in 59 seconds"), (299, "in 5 minutes"), (86400 * 3, "in 3 days")],
)
def test_when_a_model_goes(seconds: float, text: str) -> None:
    assert tables.until((NOW + timedelta(seconds=seconds)).isoformat(), NOW) == text
    assert tables.until("0001-01-01T00:00:00Z", NOW) == "stopping"
    assert tables.until("soon", NOW) == tables.until("2026-11-24T12:00:00", NOW) == ""
