"""What docs/running.md says to type, to put into a file, and to expect at the end."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from foreman.cli.main import COMMANDS, cli
from foreman.cli.supervisors.service import Service
from foreman.cli.supervisors.systemd import unit
from foreman.cli.ui.help import HelpfulCommand
from support.processes import (
    LOOPBACK,
    SCRIPTS,
    Call,
    chat,
    endless_chat,
    free_port,
    run_foreman,
    run_process,
    run_target,
    until,
)

PAGE = (Path(__file__).parents[1] / "docs" / "running.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The blocks of the page in one language, without what indents them."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return [re.sub(f"(?m)^{indent}", "", text) for indent, text in found]


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, name
    return found


TYPED = [line for block in blocks("sh") for line in block.splitlines() if re.search(r"(^|/|[; ])foreman [a-z]", line)]


@pytest.mark.parametrize("line", [line for line in TYPED if not line.startswith("docker")])
def test_every_command_of_the_page_is_one_with_these_options(line: str) -> None:
    typed = re.split(r"foreman (?=[a-z])", line.partition("  #")[0])[-1]
    if line.startswith(("sudo systemctl", "systemctl", "journalctl")):
        return
    name, *words = shlex.split(typed.strip(" )"))
    command(name).make_context(name, words)


def rows() -> dict[str, list[str]]:
    """The table of commands: what stands under each exit status."""
    table = PAGE.partition("## Commands and their exit statuses")[2]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| `.*\|$", table, re.MULTILINE)
    ]
    return {first.strip("`").removeprefix("foreman "): rest for first, *rest in cells}


def test_the_table_has_every_command() -> None:
    assert rows().keys() == COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_exit_status_of_a_command_is_in_the_table(name: str) -> None:
    _, *columns, more = rows()[name]
    told = {status for status, text in enumerate(columns) if text not in {"", "–"}}
    told |= set(map(int, re.findall(r"\b\d+\b", more)))
    explained = command(name)
    if isinstance(explained, HelpfulCommand):
        assert explained.exit_statuses.keys() <= told


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_what_is_to_be_put_into_its_files(tmp_path: Path) -> None:
    service = Service(SCRIPTS / "foreman", Path("/etc/foreman/foreman.env"))
    (tmp_path / "foreman.service").write_text(unit(service, system=True))
    (tmp_path / "foreman.service.d").mkdir()
    units = ["foreman.service"]
    for number, block in enumerate(blocks("ini")):
        if block.startswith("[Socket]"):
            units.append("foreman.socket")
            (tmp_path / "foreman.socket").write_text(block)
        else:
            (tmp_path / "foreman.service.d" / f"{number}.conf").write_text(block)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    assert len(units) == 2


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """The nginx of the page in front of a foreman at ``upstream``: the port where it listens."""
    (location,) = blocks("nginx")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
        events {{}}
        http {{
            access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            server {{ listen {LOOPBACK}:{port}; {location.replace("127.0.0.1:8080", f"{LOOPBACK}:{upstream}")} }}
        }}"""
    )
    with run_process(["nginx", "-c", str(config), "-p", str(folder)], folder) as child:
        until(lambda: child.responds(port, "/"), "nginx answers")
        yield port


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_behind_the_nginx_of_the_page_lines_come_as_they_are_said_and_who_leaves_is_cut_off(tmp_path: Path) -> None:
    with (
        run_target(tmp_path, rate=20) as simulator,
        run_foreman(tmp_path, simulator.url) as daemon,
        nginx(tmp_path, daemon.port) as port,
    ):
        with Call(port, "POST", "/api/chat", endless_chat("goes on for ever")) as running:
            running.read_until(b'"content"')
            assert simulator.requests("goes on for ever")[0].outcome == "open"
        simulator.abandoned("goes on for ever")
        with Call(port, "POST", "/api/chat", chat("hello", stream=False)) as call:
            assert json.loads(call.rest().body)["done"] is True
