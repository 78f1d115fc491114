"""What the machine says of processes: their CPU time, their private memory, and the share of other programs.

All of it is read from Linux's ``/proc``; elsewhere ``COUNTS`` is false, and the figures that need it are left out.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC = Path("/proc")

#: Whether CPU time and memory can be measured here.
COUNTS = (PROC / "self/schedstat").exists() and (PROC / "self/smaps_rollup").exists()


def tree(pid: int) -> list[int]:
    """The process ``pid`` and all that descend from it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for children in (PROC / str(parent) / "task").glob("*/children"):
                found += [int(child) for child in children.read_text().split()]
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """The CPU time that these processes have used in all their threads, in nanoseconds."""
    used = 0
    for pid in pids:
        for schedstat in (PROC / str(pid) / "task").glob("*/schedstat"):
            with suppress(OSError):
                used += int(schedstat.read_text().split()[0])
    return used


def private_bytes(pids: Iterable[int]) -> int:
    """The memory that only these processes have, in bytes: what would be freed if they ended."""
    kilobytes = 0
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in {"Private_Clean", "Private_Dirty"}:
                kilobytes += int(rest.split()[0])
    return kilobytes * 1024


@contextmanager
def pinned(places: dict[int, list[int]]) -> Iterator[None]:
    """Keep processes on a core each: ``{0: pids, 1: others}``; a machine with one core, or without pinning, changes nothing."""
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < len(places):
        yield
        return
    everywhere = os.sched_getaffinity(0)
    cores = sorted(everywhere)
    try:
        for place, pids in places.items():
            _allow(pids, {cores[place]})
        yield
    finally:
        for pids in places.values():
            _allow(pids, everywhere)


def _allow(pids: Iterable[int], cores: set[int]) -> None:
    for pid in pids:
        for task in (PROC / str(pid) / "task").glob("*"):
            with suppress(OSError):
                os.sched_setaffinity(int(task.name), cores)


def _busy_ns() -> tuple[int, int]:
    """The busy and the total CPU time of the whole machine since it started."""
    user, nice, system, idle, iowait, irq, softirq, steal = (int(n) for n in (PROC / "stat").read_text().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return busy * tick, (busy + idle + iowait) * tick


def _own_ns() -> int:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return cpu_ns(tree(os.getpid())) + int((ended.ru_utime + ended.ru_stime) * 1e9)


@frozen
class OtherLoad:
    """The share of the machine's CPU time that other programs than this run have used since this was made."""

    _began: tuple[tuple[int, int], int] | None = field(factory=lambda: (_busy_ns(), _own_ns()) if COUNTS else None)

    def share(self) -> float | None:
        """Between 0 and 1; None when it cannot be measured."""
        if self._began is None:
            return None
        (busy, could), own = self._began
        busy_now, could_now = _busy_ns()
        return max(0.0, (busy_now - busy) - (_own_ns() - own)) / max(1, could_now - could)
