"""The daemon as it is measured: started in a folder of its own, asked, killed, and looked at from outside."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from benchmarks import machine
from benchmarks.processes import HOST, ask, free_port, process, wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


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
        "listen": f"tcp:{port}:interface={HOST}",
        "target_url": f"http://{HOST}:{target}",
        "db_path": str(database),
        "max_jobs": "100000000",
        "disk_reserve": "1",
    } | dict(settings or {})
    environment = {f"FOREMAN_{name.upper()}": text for name, text in told.items()}
    command = [sys.executable, "-m", "benchmarks.jobs_launch", str(late), str(every)]
    began = time.monotonic()
    with process(command, said, environment) as child:
        wait_until_ready(child, port, "/healthz", said)
        yield Daemon(child.pid, port, database, said, time.monotonic() - began, late)


@contextmanager
def simulator(folder: Path) -> Iterator[int]:
    """The built-in simulator, as fast as it goes; its port."""
    port, said = free_port(), folder / "simulator.log"
    options = ["--listen", f"{HOST}:{port}", "--rate", "0", "--load-time", "0s"]
    command = [sys.executable, "-c", "from foreman.cli.main import main; main()", "simulate", *options]
    with process(command, said) as child:
        wait_until_ready(child, port, "/api/version", said)
        yield port
