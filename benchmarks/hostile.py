"""``python -m benchmarks.hostile``: thousands of hostile connections next to one honest client of the same address.

Starts foreman in front of its simulator, opens the connections, reopens each that foreman closes, and meanwhile sends
chats and ``GET /healthz``. Exit status 1 when one of these was not answered, or foreman used more memory than allowed.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import click
from attrs import define, field

from benchmarks.processes import HOST, free_port

FOREMAN = Path(sysconfig.get_path("scripts")) / "foreman"
#: The first bytes of each kind of hostile connection, and what it sends repeatedly after that.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "idle": (b"", b""),
    "slow-head": (b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nX: ", b"x"),
    "large-head": (b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n" + b"X: %b\r\n" % (b"x" * 500) * 90, b"x"),
    "slow-body": (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 268435456\r\n\r\n{", b" " * 20_000),
    "continue": (
        b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n",
        b"",
    ),
    "lingering": (b"nonsense\r\n\r\n", b"x"),
    "keep-alive": (b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    "unread": (b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5, b""),
}
#: The interval at which each sends, in seconds.
PACE = 5.0
#: New connections in each round of 10 ms: more at once would only fill the backlog of the listening socket.
AT_ONCE = 50


@define(eq=False)
class Hostile:
    """All the hostile connections, in one thread."""

    port: int
    count: int
    kinds: list[str]
    over: bool = False
    opened: int = 0
    open: dict[socket.socket, bytes] = field(factory=dict)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)

    def run(self) -> None:
        """Keep ``count`` connections open until ``over`` is set."""
        sent_at = time.monotonic()
        while not self.over:
            for _ in range(min(AT_ONCE, self.count - len(self.open))):
                self._open_next()
            for key, _ in self._selector.select(0.01):
                self._read(cast("socket.socket", key.fileobj))
            if time.monotonic() - sent_at > PACE:
                sent_at = time.monotonic()
                for connection, data in list(self.open.items()):
                    with suppress(BlockingIOError):
                        self._send(connection, data)
        for connection in self.open:
            connection.close()

    def _open_next(self) -> None:
        first, then = KINDS[self.kinds[self.opened % len(self.kinds)]]
        self.opened += 1
        connection = socket.socket()
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.connect((HOST, self.port))
        self.open[connection] = then
        if first.startswith(b"GET /api/tags"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        else:
            self._selector.register(connection, selectors.EVENT_READ)
        # On loopback the handshake is done by now, or the backlog is full: then nothing is sent.
        with suppress(BlockingIOError):
            self._send(connection, first)

    def _send(self, connection: socket.socket, data: bytes) -> None:
        try:
            if data:
                connection.send(data)
        except BlockingIOError:
            raise
        except OSError:
            self._close(connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            if connection.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        if self.open.pop(connection, None) is not None:
            with suppress(KeyError):
                self._selector.unregister(connection)
            connection.close()


def ask(port: int, request: bytes) -> float:
    """How long the complete response to ``request`` takes, in seconds.

    :raises OSError: there is no complete response, or its status is not 200.
    """
    began = time.monotonic()
    with socket.create_connection((HOST, port), timeout=10) as asking:
        asking.sendall(request)
        answer = b""
        while data := asking.recv(65536):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200"):
        raise OSError(answer[:60].decode("latin-1"))
    return time.monotonic() - began


def peak_memory(pid: int) -> int:
    """The peak memory of the process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


@contextmanager
def started(folder: Path, *command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the command ``foreman``, ended with the block; its log is in ``folder``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOREMAN_")}
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(FOREMAN), *command], env=environment | settings, cwd=folder, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(port: int) -> None:
    """Wait until the port answers."""
    for _ in range(200):
        with suppress(OSError):
            ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return
        time.sleep(0.1)
    raise click.ClickException(f"nobody answers on port {port}")


@click.command()
@click.option("--connections", default=10_000, show_default=True, help="Hostile connections at once.")
@click.option("--seconds", default=20.0, show_default=True, help="How long to continue once all have been opened.")
@click.option(
    "--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="The kinds of connections; default: all."
)
@click.option("--memory", default=400, show_default=True, help="The most memory that foreman may use, in MB.")
def main(connections: int, seconds: float, kinds: tuple[str, ...], memory: int) -> None:
    """Measure one honest client next to thousands of hostile connections."""
    failures: list[str] = []
    times: dict[str, list[float]] = {"chat": [], "/healthz": []}
    chat = json.dumps(
        {"model": "llama3.2:3b", "stream": False, "messages": [{"role": "user", "content": "x"}]}
    ).encode()
    requests = {
        "chat": b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (len(chat), chat),
        "/healthz": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    }
    port, target = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate = ("simulate", "--listen", f"{HOST}:{target}", "--rate", "0", "--load-time", "0")
        settings = {
            "FOREMAN_LISTEN": f"{HOST}:{port}",
            "FOREMAN_TARGET_URL": f"http://{HOST}:{target}",
            "FOREMAN_DB_PATH": str(folder / "foreman.db"),
        }
        with started(folder, *simulate), started(folder, "serve", **settings) as foreman:
            wait_for(target)
            wait_for(port)
            hostile = Hostile(port, connections, list(kinds or KINDS))
            thread = threading.Thread(target=hostile.run)
            thread.start()
            try:
                until = time.monotonic() + 120
                while hostile.opened < connections and time.monotonic() < until:
                    time.sleep(0.1)
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    for what, request in requests.items():
                        try:
                            times[what].append(ask(port, request))
                        except OSError as problem:
                            failures.append(f"{what}: {problem}")
                    time.sleep(random.uniform(0.05, 0.2))
                peak = peak_memory(foreman.pid)
                held = len(list(Path(f"/proc/{foreman.pid}/fd").iterdir()))
            finally:
                hostile.over = True
                thread.join()
        lines = (folder / "serve.log").read_text("utf-8", "replace").count("\n")
    click.echo(
        f"{hostile.opened} hostile connections opened, {held} descriptors of foreman at the end, {lines} log lines"
    )
    for what, took in times.items():
        took.sort()
        if took:
            click.echo(f"{what}: {len(took)} answered, median {took[len(took) // 2]:.3f} s, longest {took[-1]:.3f} s")
    click.echo(f"memory of foreman at most {peak / 1e6:.0f} MB")
    for failure in failures[:10]:
        click.echo(f"not answered: {failure}")
    sys.exit(1 if failures or peak > memory * 1e6 else 0)


if __name__ == "__main__":
    main()
