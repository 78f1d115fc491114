"""What a supervisor has to know to run foreman."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from attrs import frozen

#: How much longer than foreman drains a supervisor has to wait before it kills, in seconds.
STOP_MARGIN = 10.0


@frozen
class Service:
    """A foreman that is to be run for good.

    :ivar command: the program; :ivar settings: the file with its environment; :ivar drain: seconds that running answers
        may take at the end; :ivar token: the file with a token for all callers, None where there is none.
    """

    command: Path
    settings: Path
    drain: float = 30.0
    token: Path | None = None

    @property
    def stop_timeout(self) -> float:
        """How long its supervisor waits for its end, in seconds."""
        return self.drain + STOP_MARGIN


def foreman_executable() -> Path | None:
    """The ``foreman`` of this installation, by a path that stays the same when it is upgraded."""
    folders = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    beside = [folder / "foreman" for folder in folders if (folder / "foreman").is_file()]
    found = beside[0] if beside else shutil.which("foreman")
    return None if found is None else Path(found).absolute()
