"""The subjects: a direct connection, nginx, the naive proxy, foreman, and those given on the command line."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from benchmarks import machine
from benchmarks.processes import ROOT, free_port, process, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that a subject may take to forward its first request, and to stop.
START_TIMEOUT, STOP_TIMEOUT = 30.0, 3.0

NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://127.0.0.1:{target};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


@frozen
class Command:
    """How to start a subject: its arguments, and additions to the environment."""

    argv: list[str]
    env: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Subject:
    """What clients connect to. ``command`` takes the port, the target's port and a folder; without one it is the target itself.

    ``queues``: it must never let two chats through at once. ``missing``: why it cannot be measured here.
    """

    name: str
    command: Callable[[int, int, Path], Command] | None = None
    queues: bool = False
    missing: str = ""


@frozen
class Running:
    """A subject that answers on ``port``; ``pid`` is None for the target itself."""

    subject: Subject
    port: int
    pid: int | None

    def pids(self) -> list[int]:
        """All its processes."""
        return [] if self.pid is None else machine.tree(self.pid)

    def cpu_ns(self) -> int:
        """CPU time of all its processes so far, in nanoseconds."""
        return machine.cpu_ns(self.pids())


def _nginx(port: int, target: int, folder: Path) -> Command:
    user = "user root root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, target=target, user=user))
    return Command([_find_nginx() or "nginx", "-e", str(folder / "error.log"), "-c", str(config)])


def _find_nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _naive(port: int, target: int, _folder: Path) -> Command:
    return Command(
        [sys.executable, "-m", "benchmarks.naive", str(port), f"http://127.0.0.1:{target}"], {"PYTHONPATH": str(ROOT)}
    )


def _foreman(port: int, target: int, _folder: Path) -> Command:
    settings = {
        "FOREMAN_LISTEN": f"tcp:{port}:interface=127.0.0.1",
        "FOREMAN_TARGET_URL": f"http://127.0.0.1:{target}",
        "FOREMAN_MAX_QUEUE": "4096",
    }
    return Command(
        [sys.executable, "-c", "import sys; from foreman.cli.main import main; sys.exit(main())", "serve"], settings
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def known() -> list[Subject]:
    """The four subjects of every run, with a reason where one is missing."""
    return [
        Subject(name="direct"),
        Subject(name="nginx", command=_nginx, missing="" if _find_nginx() else "not installed"),
        Subject(
            name="naive", command=_naive, queues=True, missing="" if _is_there("klein") else "needs klein and treq"
        ),
        Subject(
            name="foreman",
            command=_foreman,
            queues=True,
            missing="" if _is_there("foreman.cli.main") else "cannot be imported",
        ),
    ]


def from_option(text: str) -> Subject:
    """A subject given as ``NAME=COMMAND``, with ``{port}`` and ``{target}`` (a URL) in the command."""
    name, _, template = text.partition("=")

    def command(port: int, target: int, folder: Path) -> Command:
        filled = template.format(port=port, target=f"http://127.0.0.1:{target}", folder=folder)
        return Command(shlex.split(filled))

    return Subject(name=name, command=command)


@contextmanager
def running(subject: Subject, target: int) -> Iterator[Running]:
    """Start ``subject`` in front of the target's port, and end it afterwards, whatever happens.

    :raises DidNotStart: it ended, or forwarded nothing within ``START_TIMEOUT`` seconds.
    """
    if subject.command is None:
        yield Running(subject, target, None)
        return
    with tempfile.TemporaryDirectory(prefix=f"bench-{subject.name}-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        command = subject.command(port, target, folder)
        log = folder / "output.log"
        # Its state is kept in the folder, too, unless the command says otherwise.
        environment = {"XDG_STATE_HOME": name, **command.env}
        with process(command.argv, log, environment, cwd=folder, stop_timeout=STOP_TIMEOUT) as child:
            wait_until_ready(child, port, "/api/version", log, START_TIMEOUT)
            yield Running(subject, port, child.pid)
