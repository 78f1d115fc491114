"""The experiments with each subject: each function takes a sample of its rows, in the unit of the row.

:raises DoesNotApply: (each of them) the figure has no meaning for this subject.
"""

from __future__ import annotations

import time
from itertools import pairwise
from math import inf
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.bench import Aim, Bench, DoesNotApply, Experiment, Row, Samples
from benchmarks.programs import Ask, Record
from benchmarks.waiters import ANSWERED, HALF_LEAVING, LEAVING, MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.subjects import Running

US, MS = 1_000, 1_000_000  # nanoseconds

#: Chats that are queued together, and microseconds between two requests of one client.
LINE, GAP = 8, 2_000


def first_token(bench: Bench, subject: Running) -> Samples:
    """From the request to the first byte of the body, one request after the other on one connection."""
    plan = [Ask(wait_us=GAP, lines=2) for _ in range(bench.sizes.first_tokens)]
    answers = bench.ask(subject, plan).values()
    return {"first token": median((answer.first - answer.sent) / US for answer in answers)}


def _line_cost(bench: Bench, subject: Running, pace_ms: int, window: float) -> float:
    """CPU of the subject between two lines in the middle of one stream, in microseconds for each line."""
    if subject.pid is None:
        raise DoesNotApply("no proxy")
    if not machine.COUNTS:
        raise DoesNotApply("needs Linux's /proc")
    before = max(3, 20 // pace_ms)
    lines = before + int(window * 1.2 * 1000 / pace_ms) + 3
    began = bench.target.progress()[1]
    clients = bench.clients(subject, [Ask(lines=lines, pace_us=pace_ms * 1000)])
    try:
        bench.lines_reach(began + before)
        pids = subject.pids()
        cpu, line = machine.cpu_ns(pids), bench.target.progress()[1]
        time.sleep(window)
        cpu, line = machine.cpu_ns(pids) - cpu, bench.target.progress()[1] - line
        bench.checked(subject, clients.answers())
    finally:
        clients.stop()
    return cpu / line / US


def line_1ms(bench: Bench, subject: Running) -> Samples:
    """CPU for each relayed line, one each millisecond."""
    return {"line 1 ms": _line_cost(bench, subject, 1, bench.sizes.window_1ms)}


def line_20ms(bench: Bench, subject: Running) -> Samples:
    """CPU for each relayed line, one each 20 ms."""
    return {"line 20 ms": _line_cost(bench, subject, 20, bench.sizes.window_20ms)}


def _gaps(records: list[Record]) -> list[float]:
    """Milliseconds that the target was idle between chats; negative where two overlapped."""
    in_order = sorted(records, key=lambda record: record.whole)
    return [(after.whole - before.over) / MS for before, after in pairwise(in_order)]


def idle(bench: Bench, subject: Running) -> Samples:
    """The target's idle time between two queued chats."""
    gaps: list[float] = []
    for _ in range(bench.sizes.bursts):
        since = bench.seen()
        bench.ask(subject, [Ask(slot=slot, first_us=5_000, lines=5, pace_us=1_000) for slot in range(LINE)])
        gaps += _gaps(list(bench.target.records(since).values()))
    if min(gaps) < 0:
        if subject.subject.queues:
            bench.problem(subject, "two chats were at the target at once")
        raise DoesNotApply("no queue")
    return {"idle": median(gaps)}


def leave_line(bench: Bench, subject: Running) -> Samples:
    """One client has the turn, the next in the queue leaves, and a third waits behind that one."""
    seen, gaps = 0, []
    for _ in range(bench.sizes.leavers):
        since = bench.seen()
        running = Ask(first_us=150_000)
        leaving = Ask(slot=1, wait_us=30_000, first_us=300_000, leave="t60000")
        waiting = Ask(slot=2, wait_us=60_000)
        bench.ask(subject, [running, leaving, waiting])
        records = bench.target.records(since)
        if records[waiting.id].whole < records[running.id].end:
            raise DoesNotApply("no queue")
        seen += leaving.id in records
        gaps.append((records[waiting.id].whole - records[running.id].end) / MS)
    return {"left in line, seen": seen, "left in line, idle": median(gaps)}


def _freed(bench: Bench, subject: Running, chat: Callable[[], Ask]) -> float:
    """Milliseconds from a client's leaving to the end of its connection at the target; infinite if the target went on to the last line."""
    took = []
    for _ in range(bench.sizes.leavers):
        since = bench.seen()
        ask = chat()
        left = bench.ask(subject, [ask])[ask.id].end
        record = bench.record(since, ask.id)
        if record is None:
            bench.problem(subject, "a chat had not reached the target when its client left, 100 ms after its request")
            raise DoesNotApply("arrived too late")
        took.append((record.closed - left) / MS if record.closed else inf)
    return median(took)


def leave_head(bench: Bench, subject: Running) -> Samples:
    """A client leaves before the target's headers."""
    return {"left before headers": _freed(bench, subject, lambda: Ask(first_us=700_000, leave="t100000"))}


def leave_stream(bench: Bench, subject: Running) -> Samples:
    """A client leaves after the fifth line."""
    return {"left streaming": _freed(bench, subject, lambda: Ask(lines=35, pace_us=20_000, leave="l5"))}


def leave_unstreamed(bench: Bench, subject: Running) -> Samples:
    """A client that requested an unstreamed answer leaves before it."""
    return {"left unstreamed": _freed(bench, subject, lambda: Ask(first_us=700_000, stream=False, leave="t100000"))}


def flat_out(bench: Bench, subject: Running) -> Samples:
    """Lines without a pause: each is one send of the target; target and client run on one core, the subject on another."""
    ask = Ask(lines=bench.sizes.flat_out)
    clients = bench.clients(subject, [Ask(wait_us=100_000, lines=2), ask])
    try:
        with machine.pinned({0: [bench.target.pid, clients.pid], 1: subject.pids()}):
            answer = bench.checked(subject, clients.answers())[ask.id]
    finally:
        clients.stop()
    return {
        "flat out": answer.lines / max(answer.end - answer.sent, 1) * 1e9,
        "flat out, chunks": answer.chunks / max(answer.lines, 1),
    }


LEAVER = (Aim(10),)
IDLE = (Aim(1),)

EXPERIMENTS = (
    Experiment(
        "first-token",
        (
            Row(
                "first token",
                "added time to first token",
                "µs",
                (Aim(15, "nginx"), Aim(0.7, "naive")),
                over_direct=True,
            ),
        ),
        first_token,
    ),
    Experiment("line-1ms", (Row("line 1 ms", "CPU per line, 1 ms apart", "µs", (Aim(3.7, "nginx"),)),), line_1ms),
    Experiment("line-20ms", (Row("line 20 ms", "CPU per line, 20 ms apart", "µs", (Aim(4, "nginx"),)),), line_20ms),
    Experiment("idle", (Row("idle", "target idle between queued chats", "ms", IDLE, 2),), idle),
    Experiment(
        "leave-line",
        (
            Row("left in line, seen", "left the queue: reached the target", "chats", (Aim(0),)),
            Row("left in line, idle", "left the queue: target idle until the next", "ms", IDLE, 2),
        ),
        leave_line,
    ),
    Experiment(
        "leave-head", (Row("left before headers", "left before headers: target freed", "ms", LEAVER, 2),), leave_head
    ),
    Experiment(
        "leave-stream", (Row("left streaming", "left while streaming: target freed", "ms", LEAVER, 2),), leave_stream
    ),
    Experiment(
        "leave-unstreamed",
        (Row("left unstreamed", "left, unstreamed: target freed", "ms", LEAVER, 2),),
        leave_unstreamed,
    ),
    Experiment(
        "flat-out",
        (
            Row("flat out", "lines/s flat out, one by one", "lines/s", (Aim(0.7, "nginx", "≥"),)),
            Row("flat out, chunks", "chunks per line, flat out", "", (), 2),
        ),
        flat_out,
    ),
    MEMORY,
    ANSWERED,
    HALF_LEAVING,
    LEAVING,
)
