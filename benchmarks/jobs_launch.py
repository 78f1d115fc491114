"""The unchanged foreman, with a measurement of its reactor's latency: ``python -m benchmarks.jobs_launch FILE EVERY``.

At each SIGUSR1 the latencies of a timer in its reactor, in seconds, are written to FILE as JSON. EVERY is the interval of
foreman's housekeeping in seconds, for a soak test of minutes; 0 leaves the default. The settings are those of the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.signal_dump import dump_on_signal
from foreman.cli.reactor import choose_reactor
from foreman.cli.ui.setting_options import configure


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
    dump_on_signal(file, ticker.take)
    run(config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
