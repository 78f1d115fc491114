"""The unchanged foreman, with each turn of its reactor measured: ``python -m benchmarks.stalls_launch FILE``.

At each SIGUSR1 the longest turns since the last time are written to FILE as JSON: the CPU time of the reactor's thread between
two waits for events, in seconds, and where the thread was in the longest of them. CPU time, so that other programs on the
machine have no influence. The settings are those of the environment.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.signal_dump import dump_on_signal
from foreman.cli.reactor import choose_reactor
from foreman.cli.ui.setting_options import configure

#: A turn longer than this is sampled, in seconds; and how often.
LONG = 0.02
EVERY = 0.005
KEPT = 20


class Turns:
    """The turns of a reactor that waits in ``doPoll``."""

    def __init__(self, reactor: Any) -> None:
        self._poll = reactor.doPoll
        reactor.doIteration = self._wait
        self._thread = threading.get_ident()
        self._cpu = time.pthread_getcpuclockid(self._thread)
        self._began = time.thread_time()
        self._longest: list[float] = []
        self._where = ""
        self._seen = ""

    def _wait(self, delay: float | None) -> None:
        # A turn is from one call of doPoll to the next: it waits, which takes no CPU time, and handles what came.
        now = time.thread_time()
        took = now - self._began
        if not self._longest or took > self._longest[0]:
            self._where = self._seen
        self._longest = sorted([took, *self._longest], reverse=True)[:KEPT]
        self._began, self._seen = now, ""
        self._poll(delay)

    def watch(self) -> None:
        """Record where the reactor's thread is during a long turn; runs in a thread of its own."""
        while True:
            time.sleep(EVERY)
            if not self._seen and time.clock_gettime(self._cpu) - self._began > LONG:
                frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - there is no other way
                stack = traceback.extract_stack(frame)
                self._seen = " < ".join(
                    f"{line.name} {Path(line.filename).name}:{line.lineno}" for line in stack[:-7:-1]
                )

    def take(self) -> dict[str, Any]:
        """The longest turns since the last time, and where the longest was."""
        result = {"turns": self._longest, "where": self._where}
        self._longest, self._where = [], ""
        return result


def main(file: Path) -> None:
    """Serve until a signal."""
    config = configure(os.environ, {})
    choose_reactor()
    from twisted.internet import reactor

    from foreman.tap import run

    turns = Turns(reactor)

    threading.Thread(target=turns.watch, daemon=True).start()
    dump_on_signal(file, turns.take)
    run(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
