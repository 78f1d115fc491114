"""What a shell completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from foreman.cli.commands.completion import INSTALL
from foreman.cli.main import COMMANDS, cli
from support.processes import SCRIPTS, clean_environment

PATH = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])


def completed(*words: str) -> dict[str, str]:
    """What a shell is offered for the last word, with the help for each."""
    environ = {"_FOREMAN_COMPLETE": "fish_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": words[-1]}
    run = subprocess.run(
        [str(SCRIPTS / "foreman")],
        stdin=subprocess.DEVNULL,
        env=clean_environment({}) | environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    lines = [line.partition(",")[2].partition("\t") for line in run.stdout.splitlines()]
    return {word: help_ for word, _, help_ in lines}


@pytest.mark.parametrize("shell", INSTALL)
def test_the_script_says_behind_itself_how_to_install_it(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    script, _, told = result.output.rpartition("\n\n")
    assert "_FOREMAN_COMPLETE" in script
    assert all(f"#   {line}" in told.splitlines() for line in INSTALL[shell])
    if shell == "zsh":
        assert result.output.startswith("#compdef foreman\n")


@pytest.mark.parametrize("shell", INSTALL)
def test_a_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text(CliRunner().invoke(cli, ["completion", shell]).output)
    taken = subprocess.run(
        [shell, "-n", str(script)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (taken.returncode, taken.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_what_foreman_offers() -> None:
    ask = """eval "$(foreman completion bash)"; COMP_WORDS=(foreman ins) COMP_CWORD=1
        _foreman_completion foreman ins foreman; echo "${COMPREPLY[@]}" """
    run = subprocess.run(
        ["bash", "--norc", "-c", ask],
        stdin=subprocess.DEVNULL,
        env=clean_environment({}) | {"PATH": PATH},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert run.stdout == "install-service\n"


def test_every_command_is_offered_with_its_help() -> None:
    assert completed("foreman", "") == COMMANDS
    assert completed("foreman", "s").keys() == {"serve", "submit", "settings", "simulate"}
    assert "--version" in completed("foreman", "--")


def test_the_options_of_a_command_are_offered() -> None:
    assert {"--url", "--json", "--help"} <= completed("foreman", "ps", "--").keys()
    assert completed("foreman", "completion", "").keys() == set(INSTALL)


def test_commands_are_offered_without_being_imported() -> None:
    script = (
        "import sys; from foreman.cli.main import cli; from click.shell_completion import ShellComplete;"
        "print(len(ShellComplete(cli, {}, 'foreman', '_X').get_completions([], '')));"
        "print({'twisted', 'rich', 'treq'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    assert run.stdout.split("\n")[:2] == [str(len(COMMANDS)), "set()"]
