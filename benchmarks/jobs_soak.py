"""A day's life in miniature: thousands of jobs of all kinds through the real daemon, and whether anything grows meanwhile."""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import Factory, define
from rich.console import Console

from benchmarks import jobs_daemon, jobs_growth, report
from benchmarks.jobs_growth import Sample
from benchmarks.jobs_users import Crowd
from benchmarks.machine import OtherLoad
from benchmarks.processes import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.jobs_daemon import Daemon

#: How many jobs may be under way, and in one array.
MAX_ACTIVE, ARRAY = 400, 20
#: Seconds between two rounds of foreman's housekeeping, for which a whole day would take a minute each.
HOUSEKEEPING = 2.0
#: What goes wrong at the target now and then, and how often, in seconds.
MISHAPS, MISHAP_EVERY = ("reset", "error-line", "no-done", "5xx"), 3.0
#: Of a target that says nothing any more, as some of those do; they would take a day's minutes.
SILENCE = "2s"
KINDS = ("chat", "chat", "chat", "chat", "chat", "generate", "embed", "embed", "later", "openai")


@define(eq=False)
class Day:
    """One run: who hands jobs over, and what is seen of the daemon.

    :ivar jobs: how many are handed over; :ivar minutes: after which it is given up.
    """

    daemon: Daemon
    target: int
    jobs: int
    minutes: float
    chance: random.Random
    samples: list[Sample] = Factory(list)
    handed_over: int = 0
    active: int = 0
    seen: dict[str, int] = Factory(dict)

    def run(self, say: Callable[[str], None]) -> None:
        """Hand all over, and wait until nothing is left to do."""
        crowd = Crowd(self.daemon.port, self.chance.randrange(1 << 30))
        began, stop, calm = time.monotonic(), threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(began, stop, say), daemon=True)
        watcher.start()
        mishaps = threading.Thread(target=self._go_wrong, args=(calm,), daemon=True)
        mishaps.start()
        try:
            with crowd:
                while self.handed_over < self.jobs and not self._too_late(began):
                    self._hand_over(crowd)
                crowd.stop()
                calm.set()  # whoever tries again now has only to wait for that
                while self.active and not self._too_late(began):
                    self._count()
                    time.sleep(0.2)
        finally:
            stop.set()
            calm.set()
            watcher.join()
            mishaps.join()
        self.seen = crowd.seen

    def _too_late(self, began: float) -> bool:
        return time.monotonic() - began > 60 * self.minutes

    def _hand_over(self, crowd: Crowd) -> None:
        self._count()
        if self.active > MAX_ACTIVE:
            time.sleep(0.1)
            return
        jobs = [self._job() for _ in range(min(ARRAY, self.jobs - self.handed_over))]
        status, answer = self.daemon.ask("POST", "/jobs", jobs)
        if status != 201:
            raise RuntimeError(f"an array was answered {status}: {answer}")
        self.handed_over += len(jobs)
        crowd.heard_of([job["id"] for job in answer["jobs"]])

    def _count(self) -> None:
        jobs = self.daemon.ask("GET", "/queue")[1]["jobs"]
        self.active = jobs["queued"] + jobs["scheduled"] + len(jobs["running"])

    def _job(self) -> dict[str, Any]:
        kind, text = self.chance.choice(KINDS), f"Say something about {self.chance.randrange(10_000)}."
        options = {"num_predict": self.chance.choice((5, 20, 80))}
        messages = [{"role": "user", "content": text}]
        job: dict[str, Any] = {
            "chat": {
                "endpoint": "/api/chat",
                "payload": {"model": "llama3.2:3b", "messages": messages, "options": options},
            },
            "generate": {
                "endpoint": "/api/generate",
                "payload": {"model": "qwen3:8b", "prompt": text, "options": options},
            },
            "embed": {"endpoint": "/api/embed", "payload": {"model": "nomic-embed-text", "input": text}},
            "openai": {
                "endpoint": "/v1/chat/completions",
                "payload": {"model": "llama3.2:3b", "messages": messages, "max_tokens": 10},
            },
            "later": {
                "endpoint": "/api/chat",
                "payload": {"model": "qwen3:8b", "messages": messages, "options": options},
            },
        }[kind]
        if kind == "later":
            due = time.gmtime(time.time() + self.chance.randrange(1, 8))
            job["run_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", due)
        if self.chance.random() < 0.2:
            job["metadata"] = {"day": str(self.chance.randrange(50))}
        return job | {"priority": self.chance.randrange(10)}

    def _watch(self, began: float, stop: threading.Event, say: Callable[[str], None]) -> None:
        while not stop.wait(1.0):
            with suppress(OSError):
                self.samples.append(jobs_growth.look(self.daemon.pid, self.daemon.database, time.monotonic() - began))
                say(f"{self.handed_over} handed over, {self.active} active: {self.samples[-1].words()}")

    def _go_wrong(self, calm: threading.Event) -> None:
        chance = random.Random(7)
        while not calm.wait(MISHAP_EVERY):
            with suppress(OSError, HTTPException):
                ask(self.target, "POST", "/simulator/misbehave", {"what": chance.choice(MISHAPS)})


def told(said: Path) -> dict[str, int]:
    """How often the daemon's log says what became of a job."""
    words = ("succeeded", "is scheduled", "is failed", "is discarded", "is cancelled", "forgotten")
    found = dict.fromkeys(words, 0)
    for line in said.read_text("utf-8", "replace").splitlines():
        for word in words:
            if f" {word}" in line and "job" in line:
                found[word] += int(line.split(" jobs that")[0].rsplit(" ", 1)[-1]) if word == "forgotten" else 1
    return found


@click.command("day", help=__doc__)
@click.option("--jobs", type=click.IntRange(20), default=20_000, show_default=True, help="How many are handed over.")
@click.option("--minutes", type=click.FloatRange(0.1), default=20.0, show_default=True, help="When it is given up.")
@click.option("--keep", default="20s", show_default=True, help="How long ended jobs are kept.")
@click.option("--seed", type=int, default=1, show_default=True, help="For everything that is left to chance.")
def command(*, jobs: int, minutes: float, keep: str, seed: int) -> None:
    """Run it; exit 1 when something grew or was left over."""
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    with tempfile.TemporaryDirectory(prefix="bench-day-") as name:
        folder, watch = Path(name), OtherLoad()
        settings = {f"keep_{state}": keep for state in ("succeeded", "cancelled", "failed")}
        settings["silence_timeout"] = SILENCE
        with (
            jobs_daemon.simulator(folder) as target,
            jobs_daemon.running(folder, target, settings, every=HOUSEKEEPING) as daemon,
        ):
            day = Day(daemon, target, jobs, minutes, random.Random(seed))
            day.run(lambda text: progress.print(text, style="dim", highlight=False))
            ended = told(daemon.said)
            late = daemon.lateness()
        share = watch.share()
    measures = jobs_growth.measures(day.samples)
    console.print(jobs_growth.table(measures))
    took = day.samples[-1].at if day.samples else 0
    console.print(
        f"{day.handed_over} jobs in {took:.0f} s, {day.active} left over; reactor late at most {max(late):.3f} s"
    )
    console.print(f"the log tells: {', '.join(f'{count} {word}' for word, count in ended.items())}")
    console.print(f"beside them: {', '.join(f'{count} {word}' for word, count in sorted(day.seen.items()))}")
    report.print_other_load(console, [] if share is None else [share], "a late reactor may be due to them")
    if day.active or day.handed_over < jobs or not all(measure.flat for measure in measures):
        sys.exit(1)
