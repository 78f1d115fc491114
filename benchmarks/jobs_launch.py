"""foreman as it is, with a clock in its reactor that is watched: ``python -m benchmarks.jobs_launch FILE EVERY``.

How late that clock was, in seconds, goes to FILE as JSON whenever SIGUSR1 asks. EVERY is how often foreman keeps its store
small, in seconds, for a day in a few minutes; 0 leaves that as it is. The settings are those of the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.signal_dump import answer_signals
from foreman.cli.ui.setting_options import choose_reactor, configure


def main(file: Path, every: float) -> None:
    """Serve until a signal."""
    config = configure(os.environ, {})
    choose_reactor()
    from twisted.internet import reactor

    from benchmarks.jobs_stats import Ticker
    from foreman.tap import run
    from foreman.worker import retention

    ticker = Ticker(reactor)
    if every:
        retention.EVERY = every
    reactor.callWhenRunning(ticker.start)
    answer_signals(file, ticker.take)
    run(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
