"""A soak test: thousands of jobs of all kinds through the real daemon, and whether anything grows meanwhile."""

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
from benchmarks.jobs_users import Users
from benchmarks.machine import OtherLoad
from benchmarks.processes import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.jobs_daemon import Daemon

#: The most active jobs, and the jobs of one array.
MAX_ACTIVE, ARRAY = 400, 20
#: The interval of foreman's housekeeping in seconds; its default of a minute is too long for this test.
HOUSEKEEPING = 2.0
#: The faults of the target, and their interval in seconds.
FAULTS, FAULT_INTERVAL = ("reset", "error-line", "no-done", "5xx"), 3.0
#: The silence timeout of foreman: some faults leave the target silent, and its default would take minutes.
SILENCE = "2s"
KINDS = ("chat", "chat", "chat", "chat", "chat", "generate", "embed", "embed", "later", "openai")


@define(eq=False)
class SoakTest:
    """One run: submits jobs, and takes samples of the daemon.

    :ivar jobs: how many are submitted; :ivar minutes: after which the run is abandoned.
    """

    daemon: Daemon
    target: int
    jobs: int
    minutes: float
    rng: random.Random
    samples: list[Sample] = Factory(list)
    submitted: int = 0
    active: int = 0
    seen: dict[str, int] = Factory(dict)

    def run(self, show: Callable[[str], None]) -> None:
        """Submit all jobs, and wait until all have ended."""
        users = Users(self.daemon.port, self.rng.randrange(1 << 30))
        began, stop, calm = time.monotonic(), threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(began, stop, show), daemon=True)
        watcher.start()
        faults = threading.Thread(target=self._inject_faults, args=(calm,), daemon=True)
        faults.start()
        try:
            with users:
                while self.submitted < self.jobs and not self._timed_out(began):
                    self._submit(users)
                users.stop()
                calm.set()  # no faults any more: the retries that are left must succeed
                while self.active and not self._timed_out(began):
                    self._count()
                    time.sleep(0.2)
        finally:
            stop.set()
            calm.set()
            watcher.join()
            faults.join()
        self.seen = users.seen

    def _timed_out(self, began: float) -> bool:
        return time.monotonic() - began > 60 * self.minutes

    def _submit(self, users: Users) -> None:
        self._count()
        if self.active > MAX_ACTIVE:
            time.sleep(0.1)
            return
        jobs = [self._job() for _ in range(min(ARRAY, self.jobs - self.submitted))]
        status, answer = self.daemon.ask("POST", "/jobs", jobs)
        if status != 201:
            raise RuntimeError(f"an array was answered {status}: {answer}")
        self.submitted += len(jobs)
        users.add_jobs([job["id"] for job in answer["jobs"]])

    def _count(self) -> None:
        jobs = self.daemon.ask("GET", "/queue")[1]["jobs"]
        self.active = jobs["queued"] + jobs["scheduled"] + len(jobs["running"])

    def _job(self) -> dict[str, Any]:
        kind, text = self.rng.choice(KINDS), f"Say something about {self.rng.randrange(10_000)}."
        options = {"num_predict": self.rng.choice((5, 20, 80))}
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
            due = time.gmtime(time.time() + self.rng.randrange(1, 8))
            job["run_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", due)
        if self.rng.random() < 0.2:
            job["metadata"] = {"day": str(self.rng.randrange(50))}
        return job | {"priority": self.rng.randrange(10)}

    def _watch(self, began: float, stop: threading.Event, show: Callable[[str], None]) -> None:
        while not stop.wait(1.0):
            with suppress(OSError):
                self.samples.append(
                    jobs_growth.take_sample(self.daemon.pid, self.daemon.database, time.monotonic() - began)
                )
                show(f"{self.submitted} submitted, {self.active} active: {self.samples[-1].words()}")

    def _inject_faults(self, calm: threading.Event) -> None:
        rng = random.Random(7)
        while not calm.wait(FAULT_INTERVAL):
            with suppress(OSError, HTTPException):
                ask(self.target, "POST", "/simulator/misbehave", {"what": rng.choice(FAULTS)})


def outcomes_in(log: Path) -> dict[str, int]:
    """How often the daemon's log names each outcome of a job, and how many ended jobs it says were deleted."""
    words = ("succeeded", "is scheduled", "is failed", "is discarded", "is cancelled")
    found = dict.fromkeys((*words, "deleted"), 0)
    for line in log.read_text("utf-8", "replace").splitlines():
        before, pruned, _ = line.partition(" jobs that ended long ago")
        if pruned:
            found["deleted"] += int(before.rsplit(" ", 1)[-1])
        else:
            for word in words:
                found[word] += f" {word}" in line and "job" in line
    return found


@click.command("soak", help=__doc__)
@click.option("--jobs", type=click.IntRange(20), default=20_000, show_default=True, help="How many jobs are submitted.")
@click.option(
    "--minutes", type=click.FloatRange(0.1), default=20.0, show_default=True, help="When the run is abandoned."
)
@click.option("--keep", default="20s", show_default=True, help="How long ended jobs are kept.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of all random choices.")
def command(*, jobs: int, minutes: float, keep: str, seed: int) -> None:
    """Run the soak test; exit status 1 when something grew or jobs were left over."""
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as name:
        folder, watch = Path(name), OtherLoad()
        settings = {f"keep_{state}": keep for state in ("succeeded", "cancelled", "failed")}
        settings["silence_timeout"] = SILENCE
        with (
            jobs_daemon.simulator(folder) as target,
            jobs_daemon.running(folder, target, settings, every=HOUSEKEEPING) as daemon,
        ):
            test = SoakTest(daemon, target, jobs, minutes, random.Random(seed))
            test.run(lambda text: progress.print(text, style="dim", highlight=False))
            ended = outcomes_in(daemon.log)
            late = daemon.lateness()
        share = watch.share()
    measures = jobs_growth.measures(test.samples)
    console.print(jobs_growth.table(measures))
    took = test.samples[-1].at if test.samples else 0
    console.print(
        f"{test.submitted} jobs in {took:.0f} s, {test.active} left over; reactor late at most {max(late):.3f} s"
    )
    console.print(f"in the log: {', '.join(f'{count} {word}' for word, count in ended.items())}")
    console.print(f"other requests: {', '.join(f'{count} {word}' for word, count in sorted(test.seen.items()))}")
    report.print_other_load(console, [] if share is None else [share], "a late reactor may be due to them")
    if test.active or test.submitted < jobs or not all(measure.flat for measure in measures):
        sys.exit(1)
