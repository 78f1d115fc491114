"""The measured daemon: started in its own folder, queried over HTTP, and observed through /proc."""

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
    """A running foreman.

    :ivar database: of its jobs; :ivar log: its output; :ivar took: seconds from its start to its first answer.
    """

    pid: int
    port: int
    database: Path
    log: Path
    took: float = 0.0
    _late: Path = field(factory=Path)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """The status and the JSON of one response, on a new connection."""
        return ask(self.port, method, path, body)

    def lateness(self) -> list[float]:
        """The latencies of its reactor since the last call, in seconds."""
        self._late.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not self._late.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        return [float(late) for late in json.loads(self._late.read_text())]

    def quiet(self) -> None:
        """Wait until it is idle, at most two minutes: a large database is checked after it was opened."""
        deadline, calm = time.monotonic() + 120, 0
        while calm < 3 and time.monotonic() < deadline:
            before = machine.cpu_ns([self.pid])
            time.sleep(0.1)
            # The timer that measures the latency uses a little itself.
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
    """foreman in front of the port ``target``, ready to answer; ``settings`` by name."""
    port, late, log = free_port(), folder / "late.json", folder / "foreman.log"
    database = database or folder / "foreman.db"
    variables = {
        "listen": f"tcp:{port}:interface={HOST}",
        "target_url": f"http://{HOST}:{target}",
        "db_path": str(database),
        "max_jobs": "100000000",
        "disk_reserve": "1",
    } | dict(settings or {})
    environment = {f"FOREMAN_{name.upper()}": text for name, text in variables.items()}
    command = [sys.executable, "-m", "benchmarks.jobs_launch", str(late), str(every)]
    began = time.monotonic()
    with process(command, log, environment) as child:
        wait_until_ready(child, port, "/healthz", log)
        yield Daemon(child.pid, port, database, log, time.monotonic() - began, late)


@contextmanager
def simulator(folder: Path) -> Iterator[int]:
    """Run the built-in simulator without delays; its port."""
    port, log = free_port(), folder / "simulator.log"
    options = ["--listen", f"{HOST}:{port}", "--rate", "0", "--load-time", "0s"]
    command = [sys.executable, "-c", "from foreman.cli.main import main; main()", "simulate", *options]
    with process(command, log) as child:
        wait_until_ready(child, port, "/api/version", log)
        yield port
