"""Runs the cycles of an attack: start a daemon, let clients use it, kill it; after each epoch the history is checked."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from attrs import define, field

from crash import final_state
from crash.check import Finding, check
from crash.clients import Client
from crash.daemon import Daemon, ForkServer
from crash.history import Enqueue, FinalState
from crash.power_cut import PowerCuts
from crash.recorder import Recorder
from crash.target import Target

CLIENTS = 5
#: How long a daemon serves at most before it is killed, in seconds.
MAX_LIFE = 0.3
#: How long after SIGTERM a daemon is killed at the latest, in seconds.
MAX_STOP = 0.15
#: How long all jobs may take to end once nothing is killed any more: longer than foreman's pause after a failed open; seconds.
SETTLE = 120.0
#: The pause after that, so that nothing is being written at the last kill; in seconds.
QUIET = 0.1
#: The system calls at which a daemon is killed: they write, sync, truncate, remove and open files.
SYSCALLS = ("fdatasync", "fsync", "pwrite64", "ftruncate", "unlink", "openat")
#: The highest number of the call, counted in each thread, at which it is killed.
MAX_CALL = {"fdatasync": 30, "fsync": 2, "pwrite64": 100, "ftruncate": 3, "unlink": 1, "openat": 40}
#: How long a daemon may take to reach that call, in seconds.
CALL_TIMEOUT = 1.5


@define
class Totals:
    """The result of an attack.

    :ivar kills: by the moment; :ivar starts: how long each daemon took to listen, in seconds.
    """

    cycles: int = 0
    seconds: float = 0.0
    kills: Counter[str] = field(factory=Counter)
    starts: list[float] = field(factory=list)
    counts: Counter[str] = field(factory=Counter)
    findings: list[Finding] = field(factory=list)


@define(eq=False)
class Runner:
    """One attack, with a new database for each epoch.

    :ivar epoch: how many cycles it has; :ivar power_cuts: made after each kill, None for none;
    :ivar at_syscall: whether daemons are killed at system calls; :ivar patience: how long all jobs may take to end after
        the last cycle, in seconds; :ivar progress: called with a line of text after each epoch.
    """

    fork_server: ForkServer
    target: Target
    rng: random.Random
    epoch: int = 50
    power_cuts: PowerCuts | None = None
    at_syscall: bool = False
    patience: float = SETTLE
    progress: Callable[[str], None] = field(default=lambda _: None)
    totals: Totals = field(factory=Totals, init=False)
    recorder: Recorder = field(factory=Recorder, init=False)
    _serving: threading.Event = field(factory=threading.Event, init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)
    _epochs: int = field(default=0, init=False)

    def run(self, cycles: int, *, until_found: bool = False) -> Totals:
        """Run so many cycles; ``until_found`` stops after the first epoch with findings."""
        began = time.monotonic()
        while self.totals.cycles < cycles and not (until_found and self.totals.findings):
            self._run_epoch(min(self.epoch, cycles - self.totals.cycles))
            self.totals.seconds = time.monotonic() - began
            self.progress(f"{self.totals.cycles} cycles, {len(self.totals.findings)} findings")
        return self.totals

    def begin_epoch(self) -> None:
        """Begin with a new database and an empty history."""
        self._epochs += 1
        for path in self.fork_server.database.parent.glob(f"{self.fork_server.database.name}*"):
            path.unlink()
        self.target.arrivals.clear()
        self.recorder = Recorder()

    def client(self, number: int, port: int | None = None) -> Client:
        """A client; it makes the same choices with the same seed."""
        name = f"{self._epochs}.{number}"
        rng = random.Random(f"{self.rng.random()} {name}")
        return Client(name, port or self.fork_server.port, self.recorder, self._serving, rng)

    def _run_epoch(self, cycles: int) -> None:
        self.begin_epoch()
        self._over.clear()
        clients = [self.client(number) for number in range(CLIENTS)]
        threads = [threading.Thread(target=client.run, args=(self._over.is_set,), daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        try:
            for _ in range(cycles):
                self.totals.cycles += 1
                if self.at_syscall:
                    self._kill_at_syscall()
                elif not self._cycle():
                    break
                if self.power_cuts is not None:
                    self.power_cuts.cut(self.rng)
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)
        self.settle()

    def _cycle(self) -> bool:
        """Start, use and kill one daemon; return whether it was alive until then."""
        moment = self.rng.choices(("start", "work", "stop"), (10, 75, 15))[0]
        life, rest = self.rng.uniform(0, MAX_LIFE), self.rng.random()
        daemon = self.fork_server.start()
        if moment == "start":
            self._serving.set()
            alive = not daemon.has_ended(rest * 1.2 * self._usual_start())
        else:
            alive = self._listens(daemon)
            self._serving.set()
            alive = alive and not daemon.has_ended(life)
            if moment == "stop":
                daemon.signal(signal.SIGTERM)
                if daemon.has_ended(rest * MAX_STOP):
                    moment = "stopped in time"
        status = daemon.kill()
        self._serving.clear()
        self.totals.kills[moment] += 1
        if not alive:
            self._add_finding("damaged", f"foreman ended with {status}: {self._last_log_line()}")
        return alive

    def _usual_start(self) -> float:
        return sorted(self.totals.starts)[len(self.totals.starts) // 2] if self.totals.starts else 0.2

    def _listens(self, daemon: Daemon) -> bool:
        listens = daemon.wait_until_it_listens()
        if listens:
            self.totals.starts.append(time.monotonic() - daemon.began)
        return listens

    def _kill_at_syscall(self) -> None:
        name = self.rng.choice(SYSCALLS)
        number = self.rng.randint(1, MAX_CALL[name])
        daemon = self.fork_server.start(stopped=True)
        inject = f"inject={name}:signal=KILL:when={number}"
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", "/dev/null", "-e", f"trace={name}", "-e", inject, "-p", str(daemon.pid)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert tracer.stderr is not None
        tracer.stderr.readline()  # it is attached
        daemon.signal(signal.SIGCONT)
        self._serving.set()
        reached = daemon.has_ended(CALL_TIMEOUT)
        daemon.kill()
        self._serving.clear()
        tracer.stderr.close()
        tracer.wait(10)
        self.totals.kills[name if reached else "not reached"] += 1

    # the end of an epoch

    def settle(self, *serving: Daemon) -> None:
        """Wait until all jobs have ended, and check the history; ``serving`` are the running daemons, if there are any."""
        daemons = serving or (self.fork_server.start(),)
        first = daemons[0]
        if serving or self._listens(first):
            deadline = time.monotonic() + self.patience
            while self._is_busy(first) and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(QUIET)
        else:
            self._add_finding("damaged", f"foreman does not start: {self._last_log_line()}")
        for daemon in daemons:
            daemon.kill()
        if self.power_cuts is not None:
            self.power_cuts.cut(self.rng)
        self._check(final_state.read(self.fork_server.database))

    def _is_busy(self, daemon: Daemon) -> bool:
        connection = HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        try:
            connection.request("GET", "/jobs?state=active&limit=1")
            answer = connection.getresponse()
            return answer.status != 200 or bool(json.loads(answer.read())["jobs"])
        except (OSError, HTTPException):
            return not daemon.has_ended()
        finally:
            connection.close()

    def _check(self, found: FinalState) -> None:
        history = self.recorder.history
        history.arrivals = list(self.target.arrivals)
        findings = check(history, found)
        self.totals.findings += findings
        if findings:
            kept = self.fork_server.folder / f"found-{self._epochs}.db"
            shutil.copyfile(self.fork_server.database, kept)
        counts = self.totals.counts
        counts["submitted"] += len({id_ for enqueue in history.enqueues for id_ in enqueue.ids})
        counts["answered again for a key"] += _repeats(history.enqueues)
        counts["seen to succeed"] += len({job.id for job in history.observations if job.state == "succeeded"})
        counts["changes"] += sum(change.outcome == "acked" for change in history.changes)
        counts["artifacts"] += sum(put.outcome == "acked" for put in history.puts)
        counts["responses that never came"] += self.recorder.unsure
        counts["runs at the target"] += len(history.arrivals)
        events = Counter(event.type for row in found.rows for event in row.events)
        counts["rescues"] += events["rescued"]
        counts["released at a stop"] += events["released"]
        counts["discarded after four rescues"] += sum(row.error_class == "lost" for row in found.rows)

    def _add_finding(self, kind: str, text: str) -> None:
        self.totals.findings.append((kind, text))

    def _last_log_line(self) -> str:
        lines = self.fork_server.log.read_text("utf-8", "replace").splitlines()
        return lines[-1] if lines else "its log is empty"


def _repeats(enqueues: list[Enqueue]) -> int:
    """How many responses named the jobs of an earlier response."""
    known: set[tuple[str, ...]] = set()
    repeats = 0
    for enqueue in enqueues:
        repeats += bool(enqueue.ids) and enqueue.ids in known
        known.add(enqueue.ids)
    return repeats


def fork_server(folder: Path, target: Target, mutation: str | None = None, preload: Any = None) -> ForkServer:
    """A fork server for daemons in front of ``target``, with their database in ``folder``."""
    return ForkServer(folder, folder / "foreman.db", target.url, mutation, preload or {})
