"""The daemons under attack: forked from a server process, signalled, killed and reaped."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self, cast

from attrs import define, field
from benchmarks.processes import HOST, free_port

#: How long a daemon may take to listen or to end on a busy machine, in seconds.
PATIENCE = 60.0


@define(eq=False)
class Daemon:
    """One process of foreman, from its start to its end."""

    pid: int
    port: int
    began: float
    _fork_server: ForkServer
    _handle: int

    def listens(self) -> bool:
        """Whether it accepts connections."""
        with suppress(OSError), socket.create_connection((HOST, self.port), 5):
            return True
        return False

    def wait_until_it_listens(self) -> bool:
        """Wait until it accepts connections; False when it has ended instead."""
        while not self.listens():
            if self.has_ended(0.003):
                return False
            if time.monotonic() - self.began > PATIENCE:
                raise TimeoutError("the daemon does not listen")
        return True

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or ends within ``seconds``."""
        watch = select.poll()
        watch.register(self._handle, select.POLLIN)
        return bool(watch.poll(1000 * seconds))

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill it; return its exit status."""
        self.signal(signal.SIGKILL)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; return its exit status."""
        if not self.has_ended(PATIENCE):
            raise TimeoutError("the daemon does not end")
        os.close(self._handle)
        return self._fork_server.reap(self.pid)


@define(eq=False)
class ForkServer:
    """A process that forks daemons, while this is entered as a context manager.

    :ivar database: of the jobs; :ivar target: a URL; :ivar mutation: the safeguard to remove, None for none;
    :ivar preload: environment of the fork server, and so of its daemons.
    """

    folder: Path
    database: Path
    target: str
    mutation: str | None = None
    preload: Mapping[str, str] = field(factory=dict)
    port: int = field(factory=free_port, init=False)
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """The output of all daemons."""
        return self.folder / "foreman.log"

    def __enter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FOREMAN_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crash.fork_server", *([self.mutation] if self.mutation else [])],
            cwd=Path(__file__).parent.parent,
            env=environment | dict(self.preload),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._receive() == "ready", "the fork server does not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        cast("IO[str]", self._process.stdin).close()
        cast("IO[str]", self._process.stdout).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start(self, *, stopped: bool = False, port: int | None = None, unlocked: bool = False) -> Daemon:
        """Start a daemon; with ``stopped`` it stops before it does anything, until it gets SIGCONT.

        :param unlocked: it does not lock the database file itself, as on a file system without such locks.
        """
        port = port or self.port
        settings = {
            "FOREMAN_LISTEN": f"{HOST}:{port}",
            "FOREMAN_TARGET_URL": self.target,
            "FOREMAN_DB_PATH": str(self.database),
            "FOREMAN_DISK_RESERVE": "1MiB",
            "FOREMAN_DRAIN_TIMEOUT": "5s",
        }
        began = time.monotonic()
        self._send({"env": settings, "log": str(self.log), "stopped": stopped, "unlocked": unlocked})
        pid = int(self._receive())
        return Daemon(pid, port, began, self, os.pidfd_open(pid))

    def reap(self, pid: int) -> int:
        """The exit status of a daemon that has ended."""
        self._send({"wait": pid})
        return int(self._receive())

    def _send(self, value: object) -> None:
        assert self._process is not None
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(json.dumps(value) + "\n")
        stdin.flush()

    def _receive(self) -> str:
        assert self._process is not None
        return cast("IO[str]", self._process.stdout).readline().strip()
