"""What the README and the guides say to type works, and what they name is there."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import click
import pytest
from attrs import define, frozen
from click.testing import CliRunner
from rich.console import Console
from twisted.scripts._twistd_unix import ServerOptions

from foreman.cli import reference
from foreman.cli.commands.settings import as_markdown
from foreman.cli.main import COMMANDS as COMMANDS_OF_FOREMAN
from foreman.cli.main import cli
from foreman.cli.ui.ps_view import Snapshot, show
from foreman.config.settings import _NOT_SETTINGS, SETTINGS, load
from foreman.errors import FailureReason
from foreman.protocol.endpoints import Lane
from foreman.proxy.access_record import Outcome
from foreman.tap import Options
from support.differences import ADDED_HEADERS, DIFFERENT_ANSWERS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "foreman"
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted(DOCS.rglob("*.md"))]
README, CLIENTS, WATCHING = (path.read_text("utf-8") for path in (PAGES[0], DOCS / "clients.md", DOCS / "watching.md"))
#: How docs/running.md begins: what can be tried at once. The rest of it is tested in test_cli_docs.py.
FIRST_STEPS = (DOCS / "running.md").read_text("utf-8").partition("\n## Install\n")[0]

#: As the pages write them; a running test has other ports.
ADDRESS, TOKEN = "127.0.0.1:8080", "correct-horse-battery"
#: What needs the network, and is tested with the packaging.
ELSEWHERE = {"python3", "~/.local/share/foreman/bin/pip"}
#: What is made where it is used.
MADE = {".venvs/"}

PYTHON = [sys.executable, "-c"]
FOREMAN = [*PYTHON, "from foreman.cli.main import main; main()"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("FOREMAN_", "COLUMNS"))}


def blocks(language: str, *pages: str) -> list[str]:
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    # Their commands and programs are run.
    return [block for page in pages or (README, CLIENTS, WATCHING, FIRST_STEPS) for block in pattern.findall(page)]


@frozen
class Command:
    """One line of a block: what it sets, and what it runs."""

    line: str
    environ: dict[str, str]
    words: tuple[str, ...]


def commands(block: str) -> Iterator[Command]:
    exported: dict[str, str] = {}
    for line in dict.fromkeys(filter(None, block.splitlines())):
        words = shlex.split(line, comments=True)
        environ = exported if words[0] == "export" else dict(exported)
        words = words[words[0] == "export" :]
        while words and (found := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            environ[found[1]] = found[2]
            words.pop(0)
        if words:
            yield Command(line.partition("  #")[0].strip(), environ, tuple(words))


COMMANDS = [one for block in blocks("sh") for one in commands(block)]


@define
class Served:
    """Two foremen in front of one simulator, the target; one of them asks for the token."""

    target: str
    free: str
    closed: str
    log: Path

    def there(self, text: str) -> str:
        """``text`` with the address of the one that it is meant for."""
        return text.replace(ADDRESS, self.closed if TOKEN in text else self.free)


def wait_for(answer: Callable[[], Any], patience: float = 15.0) -> Any:
    until = time.monotonic() + patience
    while not (value := answer()):
        assert time.monotonic() < until, "a process did not come up"
        time.sleep(0.05)
    return value


def lists_models(address: str) -> bool:
    ask = urllib.request.Request(f"http://{address}/api/tags", headers={"x-api-key": TOKEN})
    try:
        with urllib.request.urlopen(ask, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("readme")
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, pattern: str, *arguments: str, **environ: str) -> str:
        log = folder / name
        with log.open("wb") as output:
            call = [*FOREMAN, *arguments, "--listen", "127.0.0.1:0"]
            # Each keeps its jobs in a file of its own.
            env = {**CLEAN, "PYTHONUNBUFFERED": "1", "XDG_STATE_HOME": str(folder / f"{name}-state"), **environ}
            started.append(subprocess.Popen(call, stdin=subprocess.DEVNULL, env=env, stdout=output))
        return f"127.0.0.1:{wait_for(lambda: re.search(pattern, log.read_text()))[1]}"

    try:
        target = start(
            "simulator", r"listens on http://[\d.]+:(\d+) with", "simulate", "--rate", "0", "--load-time", "0"
        )
        serve = ("serve", "--target-url", target, "--poll-interval", "1s")
        free = start("free", r"starting on (\d+)", *serve)
        closed = start("closed", r"starting on (\d+)", *serve, FOREMAN_AUTH_TOKEN=TOKEN)
        for address in (free, closed):
            wait_for(lambda address=address: lists_models(address))  # type: ignore[misc]
        yield Served(target, free, closed, folder / "free")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(15)


# -- what it says to type


def run(words: list[str], **environ: str) -> str:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, env=CLEAN | environ, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_program(*names: str) -> list[Command]:
    return [one for one in COMMANDS if Path(one.words[0]).name in names]


def by_line(one: Command) -> str:
    return one.line


def test_every_command_is_of_a_program_that_is_checked_here() -> None:
    programs = {one.words[0] for one in COMMANDS} - ELSEWHERE
    assert {Path(name).name for name in programs} == {"make", "curl", "foreman", "twistd", "twist", "ollama"}


@pytest.mark.parametrize("one", of_program("make"), ids=by_line)
def test_a_target_of_make_is_there(one: Command) -> None:
    assert re.search(rf"^{one.words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert all(word.startswith("ARGS=") for word in one.words[2:])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("one", of_program("curl"), ids=by_line)
def test_what_curl_asks_is_answered(one: Command, served: Served) -> None:
    said = run(["curl", "--silent", "--show-error", "--fail", *shlex.split(served.there(one.line))[1:]])
    assert said.startswith("{")
    if "healthz" in one.line:
        assert f"`{said}`" in WATCHING


@pytest.mark.parametrize("one", of_program("ollama"), ids=by_line)
def test_the_address_for_the_ollama_command_leads_to_the_models(one: Command, served: Served) -> None:
    base = served.there(one.environ["OLLAMA_HOST"])
    with urllib.request.urlopen(f"{base}/api/tags", timeout=15) as answer:
        assert f'"{one.words[2]}"' in answer.read().decode()


ASKING = sorted({one.words[1:] for one in of_program("foreman") if one.words[1] in {"ps", "models", "check"}})


@pytest.fixture(scope="module")
def said(served: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str | tuple[str, ...], str]:
    """What the programs for Python print, and the commands that ask: two at a time, since they take long to begin."""
    here = {"FOREMAN_URL": f"http://{served.free}", "FOREMAN_LISTEN": "127.0.0.1:0"}
    here["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))  # not the jobs of whoever runs the tests
    # All programs in one process: their imports take longer than their work.
    calls: dict[str | tuple[str, ...], list[str]] = {"python": [*PYTHON, served.there("\n".join(blocks("python")))]}
    calls |= {words: [*FOREMAN, *words] for words in ASKING}
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda call: run(call, FOREMAN_TARGET_URL=served.target, **here), calls.values())
        return dict(zip(calls, found, strict=True))


@pytest.mark.parametrize("words", ASKING, ids=str)
def test_a_command_that_asks_gets_its_answer(words: tuple[str, ...], served: Served, said: dict[Any, str]) -> None:
    expected = {"ps": served.free, "models": "llama3.2:3b", "check": served.target}
    assert expected[words[0]] in said[words]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_loop_that_starts_several_chats_runs_as_it_stands(served: Served) -> None:
    (loop,) = blocks("bash", FIRST_STEPS)
    text = served.there(loop).replace(".venvs/run/bin/foreman", shlex.join(FOREMAN))
    assert f"{served.free}  " in run(["sh", "-c", text], FOREMAN_URL=f"http://{served.free}")


#: Those about jobs, in their order.
ABOUT_JOBS = [one for one in of_program("foreman") if one.words[1] in {"submit", "jobs"}]


def test_the_five_commands_for_jobs_lead_from_a_prompt_to_its_answer(served: Served) -> None:
    shown, endings = "1XES2H", iter((0, 0, 0, 0, 1))
    said, id_ = [], ""
    for one in ABOUT_JOBS:
        words = [id_ if word == shown else word for word in one.words[1:]]
        done = subprocess.run(
            [*FOREMAN, *words],
            stdin=subprocess.DEVNULL,
            env=CLEAN | {"FOREMAN_URL": f"http://{served.free}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == next(endings), done.stderr
        said.append(done.stdout)
        id_ = id_ or done.stdout.strip()[-6:]
    assert id_ in said[1]
    assert "I am only a simulator" in said[3]
    assert "it has ended: succeeded" in done.stderr


@pytest.mark.parametrize(
    "one",
    [
        one
        for one in of_program("foreman")
        if one.words[1:] not in ASKING and one.words[1] not in {"cancel", "submit", "jobs"}
    ],
    ids=by_line,
)
def test_a_command_of_foreman_takes_what_it_is_given(one: Command, tmp_path: Path) -> None:
    name, *arguments = one.words[1:]
    environ = dict(one.environ)
    if "FOREMAN_TOKENS_FILE" in environ:
        tokens = tmp_path / environ["FOREMAN_TOKENS_FILE"]
        tokens.touch()
        environ["FOREMAN_TOKENS_FILE"] = str(tokens)
    if name == "token":
        before = [["token", "new", arguments[1]]] if arguments[0] == "revoke" else []
        for words in [*before, [name, *arguments]]:
            result = CliRunner().invoke(cli, words, env=environ)
            assert result.exit_code == 0, result.output
        return
    known = cli.get_command(click.Context(cli), name)
    assert known is not None
    options = known.make_context(name, arguments).params
    if name not in {"simulate", "install-service"}:  # their options are not those of the daemon
        load(environ, options)


def test_the_line_looks_as_it_is_shown_and_a_request_is_cancelled_by_the_end_of_its_id(served: Served) -> None:
    chat = json.dumps({"model": "llama3.2:3b", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    ask = urllib.request.Request(f"http://{served.free}/api/chat", chat, {"Simulator-Misbehave": "stall"})

    def said_to_its_caller() -> bytes:
        try:
            with urllib.request.urlopen(ask, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return bytes(refused.read())

    def line() -> Any:
        with urllib.request.urlopen(f"http://{served.free}/queue", timeout=15) as answer:
            return json.load(answer)

    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(said_to_its_caller) for _ in range(2)]
        seen = wait_for(lambda: (now := line())["waiting"] and now["running"] and now)
        (shown,) = blocks("json", WATCHING)
        ids = [seen[where][0]["id"] for where in ("waiting", "running")]
        (cancel,) = (one for one in of_program("foreman") if one.words[1] == "cancel")
        for id_ in ids:
            words = [id_[-len(word) :] if word == cancel.words[2] else word for word in cancel.words[1:]]
            assert id_ in run([*FOREMAN, *words], FOREMAN_URL=f"http://{served.free}")
        assert all(b'"error"' in one.result(30) for one in asked)
    assert names(json.loads(shown)) - {"running usual_load"} == names(seen) - {"running usual_load"}


def names(queue: dict[str, Any]) -> set[str]:
    """The fields of a line, those of its requests with their place in front."""
    return set(queue) | {f"{place} {name}" for place in ("running", "waiting") for name in queue[place][0]}


@pytest.mark.parametrize("one", of_program("twistd", "twist"), ids=by_line)
def test_twistd_and_twist_take_what_they_are_given(one: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - CLEAN.keys():
        monkeypatch.delenv(name)
    program, *arguments = one.words
    if program == "twist":
        Options().parseOptions(arguments[arguments.index("foreman") + 1 :])
        return
    options = ServerOptions()
    options.parseOptions(arguments)
    assert options.subCommand == "foreman" or (ROOT / options["python"]).exists()


def test_the_programs_of_other_clients_run_as_they_stand(said: dict[Any, str]) -> None:
    assert said["python"].count('"Hello"') == len(blocks("python")) > 4


def test_the_examples_of_jobs_run_as_they_stand(served: Served) -> None:
    page = (DOCS / "jobs.md").read_text("utf-8")
    programs = [served.there(block) for block in blocks("python", page)]
    first, second = (run([*PYTHON, program]) for program in programs)
    assert "I am only a simulator" in first
    assert second.startswith("100 {")
    (with_curl,) = (block for block in blocks("sh", page) if block.startswith("curl"))
    hand_over, wait, get = re.split(r"\n(?=curl)", served.there(with_curl).strip())
    told = run(["sh", "-c", hand_over.replace("curl -i", "curl --silent --show-error --fail -i")])
    assert told.startswith("HTTP/1.1 201")
    environ = {"ID": json.loads(told.rpartition("\n")[2])["id"]}
    for line in (wait, get):
        assert run(["sh", "-c", line.replace("curl", "curl --silent --show-error --fail")], **environ).startswith("{")


def test_what_is_to_be_put_into_a_file_is_of_its_kind() -> None:
    for block in blocks("toml"):
        assert tomllib.loads(block)
    for block in blocks("json"):
        assert json.loads(block)
    assert all(ADDRESS in block for block in blocks("js") + blocks("toml") + blocks("yaml") + blocks("json", CLIENTS))


# -- what is generated, recorded and measured


def test_the_page_of_settings_is_what_the_program_prints() -> None:
    assert (DOCS / "settings.md").read_text("utf-8") == as_markdown(), "foreman settings --markdown > docs/settings.md"


def test_the_page_of_commands_is_made_of_their_help_at_any_width_and_in_any_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "31")
    monkeypatch.setenv("FOREMAN_URL", "http://gpu-box:8080")
    made = (DOCS / "cli.md").read_text("utf-8")
    assert made == f"{reference.page()}\n", "python -m foreman.cli.reference > docs/cli.md"


def test_every_command_and_every_option_has_its_place_in_the_page_of_commands() -> None:
    page = (DOCS / "cli.md").read_text("utf-8")
    assert re.findall(r"^## foreman (\S+)$", page, re.MULTILINE) == list(COMMANDS_OF_FOREMAN)
    for name in COMMANDS_OF_FOREMAN:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        section = page.partition(f"\n## foreman {name}\n")[2].partition("\n## ")[0]
        section += page.partition("\n## foreman serve\n")[2].partition("\n## ")[0] * ("(#foreman-serve)" in section)
        options = [parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)]
        assert all(f"`{option}" in section for option in options), name


def test_the_readme_fits_on_a_few_screens_and_says_first_what_sets_everything_up() -> None:
    assert len(README.split()) <= 900
    assert "Two commands set everything up: `make run`, `make test`" in README


def test_every_figure_of_the_readme_is_one_of_the_proof() -> None:
    proof = (DOCS / "proof.md").read_text("utf-8")
    gained = README.partition("## What you gain")[2].partition("\n## ")[0]
    bullets = re.findall(r"^- (.*?)(?=^- |\Z)", gained, re.MULTILINE | re.DOTALL)
    assert len(bullets) == 5
    for bullet in bullets:
        figures = re.findall(r"\d[\d,.]*\d|\d", bullet)
        assert any(len(figure) > 2 for figure in figures), bullet
        for figure in figures:
            digits = re.escape(figure.replace(",", "")).replace("", ",?")
            assert re.search(rf"(?<![\d.,]){digits}(?![\d]|\.\d)", proof), figure


def test_the_picture_is_whole_and_shows_nothing_of_the_machine_where_it_was_made() -> None:
    (name,) = re.findall(r"^!\[[^\]]+\]\((docs/\S+\.svg)\)$", README, re.MULTILINE)
    picture = ET.parse(ROOT / name)
    shown = [text.text or "" for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"foreman ps", "foreman jobs"} <= set(shown)
    assert any(text.startswith(": position=1 wait=") for text in shown)
    assert not re.search(r"/(tmp|home|root|Users|work)\b|localhost|Bearer", " ".join(shown))
    assert set(re.findall(r"[\d.]+:\d{4,5}", " ".join(shown))) == {ADDRESS}


# -- what it names


def code_spans(text: str) -> list[str]:
    without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", without_blocks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for span in code_spans(page.read_text("utf-8")):
        if re.fullmatch(r"[\w.][\w./-]*(\.(py|md|tac|toml|svg|example|yaml)|/)", span) and span not in MADE:
            assert any(ROOT.glob(span)) or any(SOURCE.rglob(span)), span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_of_foreman_is_one(page: Path) -> None:
    known = {setting.variable for setting in SETTINGS} | _NOT_SETTINGS
    known |= {f"{setting.variable}_FILE" for setting in SETTINGS if setting.secret}
    assert set(re.findall(r"FOREMAN_[A-Z_]+", page.read_text("utf-8"))) <= known


def test_the_line_of_the_log_has_the_parts_of_a_real_one(served: Served) -> None:
    (shown,) = re.findall(r"^\S+ \[foreman\.web.*$", WATCHING, re.MULTILINE)
    run([*PYTHON, f"import urllib.request as u; u.urlopen('http://{served.free}/api/version').read()"])
    line = re.compile(r"^\S+ \[foreman\.web.* metadata /api/version .*$", re.MULTILINE)
    written = wait_for(lambda: line.search(served.log.read_text()))
    parts = re.compile(r" (\w+)=|\[(\S+)\]")
    assert parts.findall(shown) == parts.findall(written[0])


def test_the_words_of_the_log_and_of_healthz_are_all_there() -> None:
    spans = set(code_spans(WATCHING))
    assert {lane.value for lane in Lane} <= spans
    assert set(get_args(Outcome)) <= spans
    assert set(get_args(FailureReason)) <= spans


def test_the_picture_of_foreman_ps_is_what_it_prints() -> None:
    def place(id_: str, caller: str, model: str, route: str, seconds: float, **more: object) -> dict[str, object]:
        return {"id": id_, "caller": caller, "model": model, "route": route, "seconds": seconds, **more}

    def model(name: str, size: int, context: int, until: str) -> dict[str, object]:
        return {"name": name, "size": size, "size_vram": size, "context_length": context, "expires_at": until}

    (shown,) = blocks("json", WATCHING)
    alice, bob = (json.loads(shown)[where][0]["id"] for where in ("running", "waiting"))
    wait = {"low": 4.1, "high": 9.0}
    queue = {
        "turns": 1,
        "running": [place(alice, "alice", "llama3.2:3b", "/api/chat", 3.2, state="answering")],
        "waiting": [place(bob, "bob", "qwen3:8b", "/v1/chat/completions", 1.2, position=1, estimate=wait)],
        "embedding": {"running": 0, "cap": 8},
    }
    loaded = [
        model("llama3.2:3b", 2_800_000_000, 4096, "2026-11-24T12:05:00Z"),
        model("nomic-embed-text:latest", 600_000_000, 2048, "2319-03-05T21:32:21Z"),
    ]
    paper = io.StringIO()
    seen = Snapshot(f"http://{ADDRESS}", {"status": "ok", "degraded": False}, queue, loaded)
    show(seen, Console(file=paper, width=200, highlight=False), datetime(2026, 11, 24, 12, 0, tzinfo=UTC))
    assert "".join(f"{line.rstrip()}\n" for line in paper.getvalue().splitlines()) in blocks("text", FIRST_STEPS)


def test_what_is_different_names_every_header_and_status_that_is() -> None:
    page = (DOCS / "differences.md").read_text("utf-8").lower()
    assert all(name in page for name in {*ADDED_HEADERS, "x-foreman-position", "x-foreman-wait"})
    assert all(str(status) in page for status, _ in DIFFERENT_ANSWERS.values() if status >= 400)


# -- decisions


@pytest.mark.parametrize("page", sorted(DECISIONS.glob("0*.md")), ids=lambda page: page.stem)
def test_a_decision_says_what_was_known_decided_and_follows_and_is_listed(page: Path) -> None:
    text = page.read_text("utf-8")
    number, title = page.stem[:4], text.partition("\n")[0].partition(": ")[2]
    assert text.startswith(f"# ADR-{number}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]
    assert f"| [{number}]({page.name}) | {title} |" in (DECISIONS / "README.md").read_text("utf-8")


def test_every_decision_that_is_referred_to_has_its_page() -> None:
    for file in [*PAGES, *SOURCE.rglob("*.py")]:
        for number in re.findall(r"ADR-(\d{4})", file.read_text("utf-8")):
            assert any(DECISIONS.glob(f"{number}-*.md")), f"{file} refers to ADR-{number}"
