"""Whether files that must be foreman's alone are: who else the system lets write or read them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def written_by_anybody(path: Path) -> str | None:
    """Why every user of this machine could put something else into the file ``path``, as a phrase; None where nobody could.

    Looked at are the file and every folder on the way to it, by the name that was given and, where links lead elsewhere,
    by that of the file itself. In a folder with the sticky bit, such as ``/tmp``, nobody replaces what is another's.
    """
    try:
        absolute, real = path.absolute(), Path(os.path.realpath(path))
    except OSError:
        return None  # a relative path, and the working directory is gone: whoever reads the file will hear of it
    for one in dict.fromkeys((real, *real.parents, *absolute.parents)):
        try:
            mode = one.stat().st_mode
        except OSError:
            continue  # who reads the file will hear what is wrong
        if mode & stat.S_IWOTH and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            return f"everybody on this machine may write {one} (mode {stat.S_IMODE(mode):04o}); chmod o-w {one}"
    return None


def loose(path: Path) -> Iterator[str]:
    """What is wrong with who may write or read the database at ``path``, one sentence for each thing."""
    if (why := written_by_anybody(path)) is not None:
        yield f"the jobs in {path} can be changed by others: {why}"
    try:
        mode = Path(os.path.realpath(path)).stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        yield (
            f"the jobs in {path}, with their prompts and answers, can be read by others "
            f"(mode {stat.S_IMODE(mode):04o}); chmod 600 {path}"
        )
