"""Writes the figures of a measured foreman to a file at each SIGUSR1."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path


def dump_on_signal(file: Path, take: Callable[[], object]) -> None:
    """Write what ``take`` returns to ``file`` as JSON, atomically, at each SIGUSR1."""

    def dump(*_: object) -> None:
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(take()))
        unfinished.rename(file)

    signal.signal(signal.SIGUSR1, dump)
