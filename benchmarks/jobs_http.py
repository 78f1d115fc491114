"""Experiments with the daemon: jobs submitted over HTTP, chats at the same time, reads of a large store, and the start."""

from __future__ import annotations

import json
import random
import tempfile
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from benchmarks import jobs_daemon, jobs_fill, machine
from benchmarks.jobs_stats import Samples, percentile, spread, stalls
from benchmarks.programs import Ask, Clients, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.jobs_daemon import Daemon
    from benchmarks.programs import Answer

#: Jobs in one array, and arrays at once.
ARRAY, ARRAYS_AT_ONCE = 100, 4
#: Clients that share a rate of requests; seconds after which a client gives up.
PACERS, PATIENCE = 50, 120
#: The duration of a chat that outlasts every experiment, in microseconds.
LONG = 600_000_000

_ids = count(1_000_000)


class WentWrong(Exception):
    """An answer was wrong; the text says how."""


@frozen(kw_only=True)
class Request:
    """One request of a plan, as ``client.c`` reads it: a POST of ``body``, or a GET without one."""

    path: str
    body: str = ""
    slot: int = 0
    wait_us: int = 0
    id: int = field(factory=lambda: next(_ids))

    def line(self) -> str:
        """As ``client.c`` reads it."""
        return f"{self.id} {self.slot} {self.wait_us} 0 - {self.path} {self.body}".rstrip() + "\n"


@frozen
class Ground:
    """What all experiments share.

    :ivar client: the client program; :ivar folder: for files of this run.
    """

    target: Target
    client: Path
    folder: Path

    def ask(self, daemon: Daemon, plan: Sequence[Request | Ask]) -> list[Answer]:
        """Execute a plan to its end, and check every answer.

        :raises WentWrong: an answer is wrong.
        """
        return good(self.clients(daemon, plan).answers())

    def clients(self, daemon: Daemon, plan: Sequence[Request | Ask]) -> Clients:
        """Start to execute a plan."""
        return Clients.start(self.client, daemon.port, plan, PATIENCE)

    @contextmanager
    def busy(self, daemon: Daemon) -> Iterator[None]:
        """Meanwhile an endless chat holds the turn, so that jobs stay queued."""
        chat = self.clients(daemon, [Ask(first_us=LONG)])
        try:
            chat.all_sent()
            time.sleep(0.2)
            yield
        finally:
            chat.stop()

    @contextmanager
    def foreman(self, database: Path | None = None) -> Iterator[Daemon]:
        """A fresh daemon in front of the target."""
        with (
            tempfile.TemporaryDirectory(dir=self.folder) as folder,
            jobs_daemon.running(Path(folder), self.target.port, database=database) as daemon,
        ):
            yield daemon


def good(answers: dict[int, Answer]) -> list[Answer]:
    """The answers, if each is complete and has status 200 or 201."""
    for answer in answers.values():
        # The client program reports every status but 200 as refused.
        if answer.status not in {200, 201} or answer.outcome not in {"whole", "refused"}:
            raise WentWrong(f"an answer was {answer.outcome}, with status {answer.status}")
    return list(answers.values())


def took(answers: Sequence[Answer]) -> list[float]:
    """Seconds from each request to the end of its answer."""
    return [(answer.end - answer.sent) / 1e9 for answer in answers]


def per_second(answers: Sequence[Answer], each: int = 1) -> float:
    """How many were done per second, from the first request to the last answer."""
    return each * len(answers) * 1e9 / (max(answer.end for answer in answers) - min(answer.sent for answer in answers))


def job(lines: int = 1) -> str:
    """The body of a job."""
    return json.dumps({"endpoint": "/api/chat", "payload": jobs_fill.payload(lines=lines)})


def posts(number: int, together: int) -> list[Request]:
    """So many jobs from so many clients, each submitting the next when the one before is accepted."""
    return [Request(path="/jobs", body=job(), slot=index % together) for index in range(number)]


def paced(number: int, a_second: int, clients: int = PACERS) -> list[Request]:
    """So many jobs at a fixed rate, unless they are accepted more slowly."""
    gap = 1_000_000 * clients // a_second
    return [
        Request(
            path="/jobs", body=job(), slot=index % clients, wait_us=gap if index >= clients else gap * index // clients
        )
        for index in range(number)
    ]


def enqueues(ground: Ground, number: int) -> Samples:
    """Submit jobs one by one, concurrently, in arrays, and at a fixed rate, and measure the latency of the reactor."""
    samples = Samples()
    with ground.foreman() as daemon, ground.busy(daemon):
        ground.ask(daemon, posts(number // 4, 64))  # nothing is measured cold
        daemon.lateness()
        time.sleep(1)
        samples |= stalls("stall, idle daemon", daemon.lateness())
        for together in (1, 64, 256):
            cpu = machine.cpu_ns([daemon.pid])
            answers = ground.ask(daemon, posts(number if together > 1 else number // 4, together))
            cpu = machine.cpu_ns([daemon.pid]) - cpu
            samples |= {f"post {together}": per_second(answers), **spread(f"post {together}", took(answers))}
            samples |= {f"post {together} cpu": cpu / len(answers) / 1000}
        samples |= stalls("stall, posts flat out", daemon.lateness())
        array = f"[{','.join([job()] * ARRAY)}]"
        plan = [Request(path="/jobs", body=array, slot=index % ARRAYS_AT_ONCE) for index in range(number // 50)]
        answers = ground.ask(daemon, plan)
        samples |= {"post arrays": per_second(answers, ARRAY), **spread("post arrays", took(answers))}
        samples |= stalls("stall, arrays flat out", daemon.lateness())
        answers = ground.ask(daemon, paced(number, 500))
        samples |= spread("post at 500/s", took(answers)) | {"post at 500/s rate": per_second(answers)}
        samples |= stalls("stall, 500/s", daemon.lateness())
    return samples


def chats(ground: Ground, number: int) -> Samples:
    """The time to a chat's first token, alone, and while 200 jobs a second arrive and one is always running."""
    plan = [Ask(wait_us=20_000, lines=2) for _ in range(number)]
    with ground.foreman() as daemon:
        ground.ask(daemon, plan[:20])
        alone = [(answer.first - answer.sent) / 1e9 for answer in ground.ask(daemon, plan[20:])]
        stock = f"[{','.join([job()] * 1000)}]"
        ground.ask(daemon, [Request(path="/jobs", body=stock) for _ in range(1 + number // 50)])
        jobs = ground.clients(daemon, paced(200 * 60, 200))
        try:
            time.sleep(0.5)
            began, done = time.monotonic(), ground.target.progress()[0]
            beside = [
                (answer.first - answer.sent) / 1e9
                for answer in ground.ask(daemon, [Ask(wait_us=20_000, lines=2) for _ in plan])
            ]
            ran = (ground.target.progress()[0] - done - len(plan)) / (time.monotonic() - began)
            left = daemon.ask("GET", "/jobs?state=queued&limit=1")[1]["jobs"]
        finally:
            jobs.stop()
    if not left:
        raise WentWrong("no jobs were left while the time to a chat's first token was measured")
    more = percentile(beside, 0.5) / percentile(alone, 0.5)
    return {**spread("chat alone", alone), **spread("chat beside jobs", beside), "chat ratio": more, "jobs beside": ran}


def looks(ground: Ground, number: int, database: Path) -> Samples:
    """Read pages and jobs of a large store over HTTP."""
    chance, samples = random.Random(1), Samples()
    with ground.foreman(database) as daemon, ground.busy(daemon):
        daemon.quiet()
        step = daemon.ask("GET", "/jobs?state=succeeded&limit=200")[1]["jobs"]
        ids = [job["id"] for job in step]
        ends = [f"{int(time.time() * 1000) - chance.randrange(18_000_000)}" for _ in range(number)]
        middles = [jobs_fill.id_of(int(end), 0) for end in ends]
        kinds = {
            "GET first page": ["/jobs"] * number,
            "GET middle page": [f"/jobs?before={middle}" for middle in middles],
            "GET page of a state": [f"/jobs?state=failed&before={middle}" for middle in middles],
            "GET job": [f"/jobs/{chance.choice(ids)}" for _ in range(number)],
        }
        for name, paths in kinds.items():
            samples |= spread(name, took(ground.ask(daemon, [Request(path=path) for path in paths])))
    return samples


def start(ground: Ground, database: Path, log_bytes: int) -> Samples:
    """The time from the start after a crash, with a large log, to the first answer."""
    left = jobs_fill.crash(database, log_bytes)
    with ground.foreman(database) as daemon:
        seconds = daemon.took
        daemon.quiet()
    return {"start after a crash": seconds, "start, log": left / 1e6}
