"""Experiments with a long queue: the memory of a waiting client, and 2,000 clients that are answered, or leave at once."""

from __future__ import annotations

import time
from itertools import accumulate, pairwise
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.bench import Aim, Bench, DoesNotApply, Experiment, Row, Samples
from benchmarks.programs import Ask

if TYPE_CHECKING:
    from benchmarks.subjects import Running

MS = 1_000_000  # nanoseconds

#: Microseconds between two arrivals, and the duration of a chat that outlasts every experiment.
STAGGER, LONG = 2_000, 120_000_000


def _crowd(count: int, first_us: int = LONG) -> list[Ask]:
    """``count`` clients with a connection each, one after the other."""
    return [Ask(slot=slot, wait_us=slot * STAGGER, first_us=first_us) for slot in range(count)]


def _until_quiet(subject: Running) -> None:
    """Return when the subject has used under 2 ms of CPU in 100 ms twice, or after 15 s."""
    deadline, quiet, before = time.monotonic() + 15, 0, subject.cpu_ns()
    while quiet < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        now = subject.cpu_ns()
        quiet = quiet + 1 if now - before < 2 * MS else 0
        before = now


def memory(bench: Bench, subject: Running) -> Samples:
    """Private memory for each client that waits for its first byte, over many of them, after a warm-up."""
    if subject.pid is None:
        raise DoesNotApply("no proxy")
    if not machine.COUNTS:
        raise DoesNotApply("needs Linux's /proc")
    bench.ask(subject, _crowd(50, first_us=1_000))
    _until_quiet(subject)
    before = machine.private_bytes(subject.pids())
    crowd = _crowd(bench.sizes.memory_waiters)
    clients = bench.clients(subject, crowd, seconds=100)
    try:
        clients.all_sent()
        _until_quiet(subject)
        more = machine.private_bytes(subject.pids()) - before
        clients.leave()
        bench.checked(subject, clients.answers(), {ask.id for ask in crowd})
    finally:
        clients.stop()
    return {"memory": more / len(crowd) / 1024}


def answered(bench: Bench, subject: Running) -> Samples:
    """Many clients are queued behind one chat, and answered: how many, how many at once, and the idle time between two."""
    since, count = bench.seen(), bench.sizes.waiters
    running = Ask(slot=count, first_us=count * STAGGER + 500_000)
    crowd = [Ask(slot=slot, wait_us=20_000 + slot * STAGGER, lines=2) for slot in range(count)]
    answers = bench.clients(subject, [running, *crowd], seconds=90).answers()
    records = sorted(bench.target.records(since).values(), key=lambda record: record.whole)
    steps = sorted([(record.whole, 1) for record in records] + [(record.over, -1) for record in records if record.over])
    most = max(accumulate(step for _, step in steps))
    whole = sum(answers[ask.id].outcome == "whole" for ask in crowd)
    if whole < count:
        bench.problem(subject, f"not all of {count} queued clients were answered")
    samples: Samples = {"crowd answered": 100 * whole / count, "crowd at once": most}
    if most == 1:
        samples["crowd idle"] = median((b.whole - a.over) / MS for a, b in pairwise(records))
    return samples


def leaving(bench: Bench, subject: Running) -> Samples:
    """All queued clients leave at once, while another client requests the version again and again."""
    crowd, since = _crowd(bench.sizes.waiters), bench.seen()
    clients = bench.clients(subject, crowd, seconds=100)
    try:
        clients.all_sent()
        _until_quiet(subject)
        probes = bench.clients(subject, [Ask(wait_us=1_000, path="/api/version") for _ in range(600)])
        time.sleep(0.2)
        clients.leave()
        bench.checked(subject, clients.answers(), {ask.id for ask in crowd})
        waits = [(answer.end - answer.sent) / MS for answer in bench.checked(subject, probes.answers()).values()]
    finally:
        clients.stop()
    return {"crowd left, stall": max(waits), "crowd left, seen": len(bench.target.records(since)) - 1}


def half_leaving(bench: Bench, subject: Running) -> Samples:
    """Every second queued client leaves; then the turn is free, and the others are answered."""
    since, half = bench.seen(), bench.sizes.waiters // 2
    leaves = _crowd(half)
    stays = [Ask(slot=slot, wait_us=slot * STAGGER, lines=2) for slot in range(half)]
    running = bench.clients(subject, [Ask(first_us=LONG)], seconds=100)
    running.all_sent()
    leavers, stayers = (bench.clients(subject, crowd, seconds=100) for crowd in (leaves, stays))
    try:
        leavers.all_sent()
        stayers.all_sent()
        _until_quiet(subject)
        leavers.leave()
        bench.checked(subject, leavers.answers(), {ask.id for ask in leaves})
        running.leave()
        whole = sum(answer.outcome == "whole" for answer in stayers.answers().values())
    finally:
        for clients in (running, leavers, stayers):
            clients.stop()
    if whole < half:
        bench.problem(subject, f"not all of {half} clients who stayed in the queue were answered")
    ran = bench.target.records(since).keys() & {ask.id for ask in leaves}
    return {"half left, ran": len(ran), "half stayed, answered": 100 * whole / half}


MEMORY = Experiment("memory", (Row("memory", "memory per waiting client", "kB", (Aim(10),), 1),), memory, fresh=True)
ANSWERED = Experiment(
    "waiters-answered",
    (
        Row("crowd answered", "waiters answered", "%", (Aim(100, direction="≥"),), 1),
        Row("crowd at once", "most of them at the target at once", "chats", (Aim(1),)),
        Row("crowd idle", "target idle between them", "ms", (Aim(1),), 2),
    ),
    answered,
    fresh=True,
    by_name=True,
)
LEAVING = Experiment(
    "waiters-leave",
    (
        Row("crowd left, stall", "waiters leave at once: longest wait of others", "ms", (Aim(100),), 1),
        Row("crowd left, seen", "waiters leave at once: reached the target", "chats", (Aim(0),)),
    ),
    leaving,
    fresh=True,
    by_name=True,
)
HALF_LEAVING = Experiment(
    "waiters-half-leave",
    (
        Row("half left, ran", "every second waiter leaves: their chats at the target", "chats", (Aim(0),)),
        Row("half stayed, answered", "every second waiter leaves: others answered", "%", (Aim(100, direction="≥"),), 1),
    ),
    half_leaving,
    fresh=True,
    by_name=True,
)
