"""The foreman command: quick to help, clear about mistakes; and the commands that stay until a signal."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner

from foreman.cli.commands.demo import next_commands
from foreman.cli.main import COMMANDS, cli
from foreman.cli.ui.exit_status import CLIENT_STATUSES
from foreman.cli.ui.help import HelpfulCommand
from foreman.config.settings import load
from foreman.simulator.engine.faults import FaultKind
from support.processes import free_port


def foreman(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FOREMAN_", "COLUMNS"))}
    command = [sys.executable, "-c", "from foreman.cli.main import main; main()", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, env=clean | environ, capture_output=True, text=True, check=False, timeout=60
    )


def test_help_names_every_command_and_imports_none_of_them() -> None:
    script = (
        "import sys; from foreman.cli.main import cli; cli.main(['--help'], standalone_mode=False);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'twisted', 'klein', 'treq', 'rich', 'msgspec'}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert all(f"  {name} " in run.stdout for name in COMMANDS)
    assert run.stdout.splitlines()[-1] == "[]"


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def help_of(*names: str, width: int = 80) -> str:
    result = CliRunner().invoke(cli, [*names, "--help"], terminal_width=width, prog_name="foreman")
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_within_a_terminal(name: str) -> None:
    text = help_of(name)
    assert text.startswith(f"Usage: foreman {name}")
    assert max(map(len, text.splitlines())) <= 80
    assert len(command(name).get_short_help_str(100)) < 80


def test_the_whole_command_explains_itself_within_a_terminal() -> None:
    text = help_of()
    assert "Examples:" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("of", [name for name in COMMANDS if name != "token"])
def test_every_example_is_of_a_command_and_options_that_there_are(of: str) -> None:
    explained = command(of)
    assert isinstance(explained, HelpfulCommand)
    assert explained.examples
    for example in explained.examples:
        # Between what sets variables and what takes the output.
        typed = re.split(r"[|>]| {2,}#", example.partition("foreman ")[2])[0]
        name, *words = shlex.split(typed.strip('" )'))
        known = command(name)
        known.make_context(name, [*words], resilient_parsing=True)
        assert {word for word in words if word.startswith("-")} <= known_options(known), example


def known_options(known: click.Command) -> set[str]:
    """How the options of a command are typed."""
    return {name for parameter in known.params for name in parameter.opts}


@pytest.mark.parametrize("name", ["ps", "models", "cancel"])
def test_the_commands_that_ask_a_foreman_end_alike(name: str) -> None:
    explained = command(name)
    assert isinstance(explained, HelpfulCommand)
    assert CLIENT_STATUSES.items() <= explained.exit_statuses.items()
    assert all(f"  {status}  " in help_of(name) for status in CLIENT_STATUSES)


def test_a_command_that_is_not_there_is_answered_with_those_that_are() -> None:
    result = CliRunner().invoke(cli, ["sreve"])
    assert result.exit_code == 2
    assert "'sreve'" in result.output
    assert "serve" in result.output.replace("'sreve'", "")


def test_a_wrong_name_within_a_group_is_answered_with_those_that_are_like_it() -> None:
    result = CliRunner().invoke(cli, ["token", "revok"])
    assert (result.exit_code, "there is no command 'revok'; did you mean revoke?" in result.stderr) == (2, True)
    result = CliRunner().invoke(cli, ["token", "x"])
    assert "there is no command 'x'; the commands are list, new, revoke" in result.stderr


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
        "from foreman.cli.reactor import choose_reactor; choose_reactor();"
        "from twisted.internet import reactor; print(type(reactor).__name__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    expected = {"linux": "EPollReactor", "darwin": "KQueueReactor"}.get(sys.platform)
    assert expected is None or run.stdout.strip() == expected


@pytest.mark.parametrize(
    ("option", "line"),
    [("--env", "#FOREMAN_POLL_INTERVAL=30s"), ("--markdown", "| `FOREMAN_POLL_INTERVAL` | `30s` |"), (None, "30s")],
)
def test_settings_are_listed_for_people_for_a_file_and_for_a_page(option: str | None, line: str) -> None:
    result = CliRunner().invoke(cli, ["settings", *([option] if option else [])])
    (listed,) = [row for row in result.output.splitlines() if "FOREMAN_POLL_INTERVAL" in row]
    assert line in listed


# -- the commands that stay


@contextmanager
def staying(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOREMAN_")}
    command = [sys.executable, "-u", "-c", "from foreman.cli.main import main; main()", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env=clean | environ, stdout=subprocess.PIPE, text=True
    ) as process:
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
        port = line_with(process, r"listens on http://[\d.]+:(\d+) with")
        names = {model["name"] for model in get(f"http://127.0.0.1:{port}/api/tags")["models"]}
        assert names == {"llama3.2:3b", "mine:latest"}
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_simulate_is_told_by_the_environment_what_goes_wrong() -> None:
    what = '{"what": "5xx", "times": 0, "route": "/api/tags", "text": "out of order"}'
    with staying("simulate", "--listen", "127.0.0.1:0", SIMULATOR_MISBEHAVE=what) as process:
        port = line_with(process, r"listens on http://[\d.]+:(\d+) with")
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError, match="500") as refused:
                get(f"http://127.0.0.1:{port}/api/tags")
            refused.value.close()


def test_the_help_of_simulate_has_every_word_for_what_can_go_wrong() -> None:
    assert set(get_args(FaultKind)) <= set(re.split(r"[,\s]+", help_of("simulate")))


@pytest.mark.parametrize(
    "option", [("--rate", "-1"), ("--load-time", "soon"), ("--misbehave", "gently"), ("--listen", "nowhere")]
)
def test_simulate_says_which_option_it_does_not_understand(option: tuple[str, str]) -> None:
    result = CliRunner().invoke(cli, ["simulate", *option])
    assert result.exit_code == 2
    assert option[0] in result.output


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


@pytest.mark.parametrize(
    ("variable", "token", "named", "in_path"),
    [
        ("FOREMAN_AUTH_TOKEN", "correct-horse-battery", "FOREMAN_AUTH_TOKEN", True),
        ("FOREMAN_AUTH_TOKEN", "short-token", "FOREMAN_AUTH_TOKEN", False),
        ("FOREMAN_AUTH_TOKEN", "correct,horse,battery", "FOREMAN_AUTH_TOKEN", False),
        ("FOREMAN_ADMIN_TOKEN", "correct-horse-battery", "FOREMAN_TOKEN", True),
    ],
)
def test_what_demo_says_to_type_works_where_a_token_is_asked_for(
    variable: str, token: str, named: str, in_path: bool
) -> None:
    said = next_commands(load({variable: token}, {}), simulated=True)
    assert f"  export {named}=" in said
    assert said.count(f'-H "Authorization: Bearer ${named}"') == 2
    assert (f"/k/${named} ollama run" in said) is in_path
    assert ("ollama run" in said) is in_path
    assert token not in said


def test_demo_says_nothing_of_tokens_where_none_is_asked_for() -> None:
    said = next_commands(load({}, {}), simulated=True)
    assert "TOKEN" not in said
    assert "  OLLAMA_HOST=http://127.0.0.1:8080 ollama run llama3.2:3b\n" in said


def test_demo_leaves_a_target_that_was_named_as_it_is() -> None:
    here = f"127.0.0.1:{free_port()}"
    with staying("demo", FOREMAN_LISTEN=here, FOREMAN_TARGET_URL="127.0.0.1:9") as process:
        assert line_with(process, r"in front of (http://127.0.0.1:9)\. In another") == "http://127.0.0.1:9"
