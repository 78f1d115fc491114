"""The C programs ``target.c`` and ``client.c``: built, started, and their output parsed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).parent
MODEL = "bench:latest"

_ids = count(1)


def compiler() -> str | None:
    """The C compiler of this machine: ``$CC``, or the first that is there."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)


def build(name: str, folder: Path, cc: str) -> Path:
    """Compile ``NAME.c`` into ``folder``; the program.

    :raises subprocess.CalledProcessError: the compiler failed.
    """
    program = folder / name
    subprocess.run([cc, "-O2", "-std=c11", "-o", str(program), str(FOLDER / f"{name}.c")], check=True)
    return program


class Planned(Protocol):
    """A request of a plan."""

    def line(self) -> str:
        """As ``client.c`` reads it."""


@frozen(kw_only=True)
class Ask:
    """One request of a plan: a chat that tells the target how to answer it, or a GET when ``path`` is given.

    Times are in microseconds. ``wait_us`` counts from the previous answer of the slot, or from the start. ``leave``: ``-``, ``tN``
    (after N us) or ``lN`` (after N lines).
    """

    slot: int = 0
    wait_us: int = 0
    lines: int = 1
    first_us: int = 0
    pace_us: int = 0
    stream: bool = True
    leave: str = "-"
    path: str | None = None
    id: int = field(factory=lambda: next(_ids))

    def line(self) -> str:
        """As ``client.c`` reads it."""
        if self.path is not None:
            return f"{self.id} {self.slot} {self.wait_us} 0 {self.leave} {self.path}\n"
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Why is the sky blue?"}],
            "stream": self.stream,
            "options": {
                "bench_id": self.id,
                "bench_lines": self.lines,
                "bench_first_us": self.first_us,
                "bench_pace_us": self.pace_us,
            },
        }
        expected = self.lines if self.stream else 0
        text = json.dumps(body, separators=(",", ":"))
        return f"{self.id} {self.slot} {self.wait_us} {expected} {self.leave} /api/chat {text}\n"


@frozen
class Answer:
    """What a client observed; times in nanoseconds of CLOCK_MONOTONIC, 0 for what did not happen."""

    id: int
    outcome: str
    status: int
    sent: int
    first: int
    end: int
    lines: int
    chunks: int


@frozen
class Record:
    """What the target observed of a chat; times as in ``Answer``. ``closed``: the peer left before the end."""

    id: int
    whole: int
    first: int
    end: int
    closed: int
    lines: int

    @property
    def over(self) -> int:
        """When the target was free again; 0: not yet."""
        return self.closed or self.end


@define(eq=False)
class Target:
    """The running target, and queries to it that pass no subject."""

    pid: int
    port: int
    _process: subprocess.Popen[str]
    _connection: HTTPConnection

    @classmethod
    def start(cls, program: Path) -> Target:
        """Start it on a free port."""
        process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(cast("IO[str]", process.stdout).readline())
        return cls(process.pid, port, process, HTTPConnection("127.0.0.1", port, timeout=10))

    def stop(self) -> None:
        """Kill it, and wait for its end."""
        self._connection.close()
        self._process.kill()
        self._process.communicate()

    def progress(self) -> tuple[int, int]:
        """How many chats it has begun, and how many lines it has sent, in all."""
        chats, lines = self._get("/bench/progress").split()
        return int(chats), int(lines)

    def records(self, since: int) -> dict[int, Record]:
        """Its records of chats by id, without the first ``since``."""
        lines = self._get(f"/bench/records/{since}").splitlines()
        records = [Record(*map(int, line.split())) for line in lines]
        return {record.id: record for record in records}

    def _get(self, path: str) -> str:
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()


@define(eq=False)
class Clients:
    """A plan that is being executed."""

    pid: int
    _process: subprocess.Popen[str]

    @classmethod
    def start(cls, program: Path, port: int, plan: Iterable[Planned], seconds: int = 30) -> Clients:
        """Send the requests of ``plan`` to ``port``; give up those that are not answered after ``seconds``."""
        process = subprocess.Popen(
            [program, str(port), str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with cast("IO[str]", process.stdin) as stdin:
            stdin.writelines(ask.line() for ask in plan)
        return cls(process.pid, process)

    def all_sent(self) -> None:
        """Return when the last request has been sent, or cannot be sent any more."""
        cast("IO[str]", self._process.stdout).readline()

    def leave(self) -> None:
        """Let all clients close their connections at once."""
        self._process.send_signal(signal.SIGTERM)

    def answers(self) -> dict[int, Answer]:
        """Wait for the end; the answers by id."""
        try:
            out = cast("IO[str]", self._process.stdout).read()
            if self._process.wait() != 0:
                raise subprocess.CalledProcessError(self._process.returncode, "client")
        finally:
            self.stop()
        rows = [line.split() for line in out.splitlines() if line != "sent"]
        answers = [Answer(int(row[0]), row[1], *map(int, row[2:])) for row in rows]
        return {answer.id: answer for answer in answers}

    def stop(self) -> None:
        """Kill it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
