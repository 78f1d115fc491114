"""The daemon as it is measured: started in a folder of its own, asked, killed, and looked at from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from benchmarks import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
HERE = "127.0.0.1"
#: Seconds that a process may take until it answers, and until it has stopped.
START, STOP = 60.0, 40.0
#: No setting of whoever runs this, and nothing that names a folder of theirs.
_LEFT_OUT = ("FOREMAN_", "XDG_STATE_HOME", "STATE_DIRECTORY")


class DidNotStart(Exception):
    """A process did not answer in time; the text says what it printed last."""


@define(eq=False)
class Daemon:
    """A foreman that runs.

    :ivar database: the file of its jobs; :ivar took: seconds from its start to its first answer.
    """

    pid: int
    port: int
    database: Path
    said: Path
    took: float = 0.0
    _late: Path = field(factory=Path)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the JSON of one answer, on a connection of its own."""
        return ask(self.port, method, path, body)

    def lateness(self) -> list[float]:
        """How late its reactor was since this was asked the last time, in seconds."""
        self._late.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        over = time.monotonic() + 10
        while not self._late.exists() and time.monotonic() < over:
            time.sleep(0.005)
        return [float(one) for one in json.loads(self._late.read_text())]

    def quiet(self) -> None:
        """Wait until it does nothing: a large file is looked through when it is opened; not longer than two minutes."""
        over, calm = time.monotonic() + 120, 0
        while calm < 3 and time.monotonic() < over:
            before = machine.cpu_ns([self.pid])
            time.sleep(0.1)
            # The clock that is watched takes a little itself.
            calm = calm + 1 if machine.cpu_ns([self.pid]) - before < 15_000_000 else 0


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind((HERE, 0))
        return int(free.getsockname()[1])


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """The status and the JSON of one answer."""
    connection = HTTPConnection(HERE, port, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data[:1] in {b"{", b"["} else data
    finally:
        connection.close()


@contextmanager
def running(
    folder: Path,
    target: int,
    settings: Mapping[str, str] | None = None,
    *,
    every: float = 0.0,
    database: Path | None = None,
) -> Iterator[Daemon]:
    """foreman in front of the port ``target``, ready to answer; ``settings`` by the names of its variables."""
    port, late, said = free_port(), folder / "late.json", folder / "foreman.log"
    database = database or folder / "foreman.db"
    told = {
        "listen": f"tcp:{port}:interface={HERE}",
        "target_url": f"http://{HERE}:{target}",
        "db_path": str(database),
        "max_jobs": "100000000",
        "disk_reserve": "1",
    } | dict(settings or {})
    environment = {f"FOREMAN_{name.upper()}": text for name, text in told.items()}
    command = [sys.executable, "-m", "benchmarks.jobs_launch", str(late), str(every)]
    began = time.monotonic()
    with process(command, said, environment) as child:
        wait_for(child, port, "/healthz", said)
        yield Daemon(child.pid, port, database, said, time.monotonic() - began, late)


@contextmanager
def simulator(folder: Path) -> Iterator[int]:
    """The built-in simulator, as fast as it goes; its port."""
    port, said = free_port(), folder / "simulator.log"
    options = ["--listen", f"{HERE}:{port}", "--rate", "0", "--load-time", "0s"]
    command = [sys.executable, "-c", "from foreman.cli.main import main; main()", "simulate", *options]
    with process(command, said) as child:
        wait_for(child, port, "/api/version", said)
        yield port


@contextmanager
def process(
    command: Sequence[str], said: Path, more: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and its end with all that it started."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(_LEFT_OUT)}
    with said.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env={**environment, "XDG_STATE_HOME": str(said.parent), **(more or {})},
            start_new_session=True,
        )
    try:
        yield child
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_for(child: subprocess.Popen[bytes], port: int, path: str, said: Path) -> None:
    """Return when ``path`` is answered with 200.

    :raises DidNotStart: when it never is.
    """
    over = time.monotonic() + START
    while time.monotonic() < over and child.poll() is None:
        with suppress(OSError, HTTPException):
            if ask(port, "GET", path)[0] == 200:
                return
        time.sleep(0.005)
    last = said.read_text(errors="replace").strip().splitlines()[-3:]
    raise DidNotStart(" / ".join(last) or "without a word")
