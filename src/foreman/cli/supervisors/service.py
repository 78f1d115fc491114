"""What the unit of systemd and the property list of launchd are made from."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from attrs import frozen

#: How much longer than the drain timeout a supervisor waits before it kills foreman, in seconds.
STOP_MARGIN = 10.0


@frozen
class Service:
    """A foreman that runs as a service.

    :ivar command: the program; :ivar settings: the environment file; :ivar drain: how long running answers may take at
        shutdown, in seconds; :ivar token: the file with the token of all callers, None for no token.
    """

    command: Path
    settings: Path
    drain: float = 30.0
    token: Path | None = None

    @property
    def stop_timeout(self) -> float:
        """How long the supervisor waits for foreman to stop, in seconds."""
        return self.drain + STOP_MARGIN


def foreman_executable() -> Path | None:
    """The ``foreman`` executable of this installation, by a path that an upgrade does not change."""
    folders = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    candidates = [folder / "foreman" for folder in folders if (folder / "foreman").is_file()]
    executable = candidates[0] if candidates else shutil.which("foreman")
    return None if executable is None else Path(executable).absolute()
