"""Zombies: a foreman is stopped in the middle of a job, its lock is taken from it, another takes over, and it wakes up."""

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
from crash.runner import Siege, Totals

#: The pause before each piece of an answer, in milliseconds: a job is to run still when the next daemon is there.
PACE = 50
PATIENCE = 30.0


@define(eq=False)
class Zombies:
    """The attack; its rounds are the cycles of ``siege``."""

    siege: Siege

    def run(self, rounds: int, *, until_found: bool = False) -> Totals:
        """So many zombies, each of them a file's only one; ``until_found`` ends it when something was found."""
        began, totals = time.monotonic(), self.siege.totals
        while totals.cycles < rounds and not (until_found and totals.findings):
            self.siege.begin_epoch()
            totals.cycles += 1
            self._round()
            totals.seconds = time.monotonic() - began
        return totals

    def _round(self) -> None:
        siege, chance = self.siege, self.siege.chance
        zombie = siege.nursery.start()
        assert zombie.wait_until_it_listens(), "the first daemon does not start"
        client = siege.client(0)
        send(client, 1)
        self._wait_for_a_run()
        zombie.signal(signal.SIGSTOP)
        siege.nursery.database.with_name(f"{siege.nursery.database.name}.lock").unlink()
        heir = siege.nursery.start(port=free_port(), unlocked=True)
        assert heir.wait_until_it_listens(), "the second daemon does not start"
        time.sleep(chance.uniform(0, 0.15))
        zombie.signal(signal.SIGCONT)
        self._use(zombie, heir)
        siege.totals.kills["zombie"] += 1
        siege.settle(heir, zombie)

    def _use(self, zombie: Daemon, heir: Daemon) -> None:
        """Both are asked: what the first one takes now is lost, unless it takes nothing."""
        time.sleep(self.siege.chance.uniform(0.1, 0.4))
        for number, daemon in enumerate((zombie, heir), 1):
            send(self.siege.client(number, daemon.port), 2)
        time.sleep(self.siege.chance.uniform(0.1, 0.3))

    def _wait_for_a_run(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.siege.target.arrivals and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(self.siege.chance.uniform(0.01, 0.1))


def send(client: Client, jobs: int) -> None:
    """Hand over jobs whose answers take a while, in one array."""
    texts = [f"{client.name}-slow-{number} {PACE} ok" for number in range(jobs)]
    made = [
        {"endpoint": "/api/chat", "payload": prompts.payload("/api/chat", text, prompts.CHAT_MODELS[0])}
        for text in texts
    ]
    client.send(Request("/jobs", json.dumps(made).encode(), (), tuple(texts), (None,) * jobs))
