"""Zombies: a daemon is stopped in the middle of a job, loses its lock to a second daemon, and is resumed."""

from __future__ import annotations

import json
import signal
import time

from attrs import define
from benchmarks.processes import free_port

from crash import prompts
from crash.clients import Client
from crash.daemon import Daemon
from crash.recorder import Request
from crash.runner import Runner, Totals

#: The pause before each piece of an answer, in milliseconds: the job must still run when the second daemon serves.
PACE = 50
PATIENCE = 30.0


@define(eq=False)
class Zombies:
    """The attack; its rounds are counted as cycles of ``runner``."""

    runner: Runner

    def run(self, rounds: int, *, until_found: bool = False) -> Totals:
        """Make so many zombies, each with a new database; ``until_found`` stops at the first finding."""
        began, totals = time.monotonic(), self.runner.totals
        while totals.cycles < rounds and not (until_found and totals.findings):
            self.runner.begin_epoch()
            totals.cycles += 1
            self._round()
            totals.seconds = time.monotonic() - began
        return totals

    def _round(self) -> None:
        runner, rng = self.runner, self.runner.rng
        zombie = runner.fork_server.start()
        assert zombie.wait_until_it_listens(), "the first daemon does not start"
        client = runner.client(0)
        send(client, 1)
        self._wait_for_a_run()
        zombie.signal(signal.SIGSTOP)
        runner.fork_server.database.with_name(f"{runner.fork_server.database.name}.lock").unlink()
        successor = runner.fork_server.start(port=free_port(), unlocked=True)
        assert successor.wait_until_it_listens(), "the second daemon does not start"
        time.sleep(rng.uniform(0, 0.15))
        zombie.signal(signal.SIGCONT)
        self._use(zombie, successor)
        runner.totals.kills["zombie"] += 1
        runner.settle(successor, zombie)

    def _use(self, zombie: Daemon, successor: Daemon) -> None:
        """Submit jobs to both: the zombie must not accept any, since they would be lost."""
        time.sleep(self.runner.rng.uniform(0.1, 0.4))
        for number, daemon in enumerate((zombie, successor), 1):
            send(self.runner.client(number, daemon.port), 2)
        time.sleep(self.runner.rng.uniform(0.1, 0.3))

    def _wait_for_a_run(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.runner.target.arrivals and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(self.runner.rng.uniform(0.01, 0.1))


def send(client: Client, jobs: int) -> None:
    """Submit jobs with slow answers, in one array."""
    texts = [f"{client.name}-slow-{number} {PACE} ok" for number in range(jobs)]
    made = [
        {"endpoint": "/api/chat", "payload": prompts.payload("/api/chat", text, prompts.CHAT_MODELS[0])}
        for text in texts
    ]
    client.send(Request("/jobs", json.dumps(made).encode(), (), tuple(texts), (None,) * jobs))
