"""Processes of a run: started with a log and a clean environment, awaited until they answer, and ended with all their children."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
HOST = "127.0.0.1"
#: Seconds that a process may take until it answers, and until it has stopped.
START_TIMEOUT, STOP_TIMEOUT = 60.0, 40.0
#: Variables that are not passed on: settings of foreman, and folders of whoever runs this.
_REMOVED = ("FOREMAN_", "XDG_STATE_HOME", "STATE_DIRECTORY")


class DidNotStart(Exception):
    """A process did not answer in time; the text holds the last lines of its log."""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """The status of one response, and its body: parsed when it is JSON, otherwise as bytes."""
    connection = HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data[:1] in {b"{", b"["} else data
    finally:
        connection.close()


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path = ROOT,
    stop_timeout: float = STOP_TIMEOUT,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output is appended to ``log``; it and its children are ended with the block.

    :param environment: in addition to what is passed on of this process's own.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_REMOVED)}
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=cwd,
            env={**inherited, "XDG_STATE_HOME": str(log.parent), **(environment or {})},
            start_new_session=True,
        )
    try:
        yield child
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(stop_timeout)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_until_ready(
    child: subprocess.Popen[bytes], port: int, path: str, log: Path, timeout: float = START_TIMEOUT
) -> None:
    """Return when a GET of ``path`` is answered with 200.

    :raises DidNotStart: that did not happen within ``timeout`` seconds, or the process ended.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(OSError, HTTPException):
            if ask(port, "GET", path)[0] == 200:
                return
        time.sleep(0.005)
    last = log.read_text(errors="replace").strip().splitlines()[-3:]
    raise DidNotStart(" / ".join(last) or "its log is empty")
