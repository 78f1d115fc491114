"""Whether files that must be foreman's alone are: who else the system lets write or read them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: How many symbolic links are followed on the way to a file, as Linux does.
_MAX_LINKS = 40


def written_by_anybody(path: Path) -> str | None:
    """Why another user of this machine could put something else into the file ``path``, as a phrase; None where nobody could.

    Looked at are the file, every link on the way to it, and every folder that one of these is in. In a folder with the
    sticky bit, such as ``/tmp``, nobody replaces what is another's; but whoever came first may have made it, so that it
    has to be root's or foreman's own.
    """
    try:
        on_the_way = list(_on_the_way(path))
    except OSError:
        return None  # a relative path, and the working directory is gone: whoever reads the file will hear of it
    for one in on_the_way:
        try:
            found = one.lstat()
        except OSError:
            continue  # who reads the file will hear what is wrong
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & stat.S_IWOTH and not _is_sticky(found):
            return (
                f"everybody on this machine may write {one} (mode {stat.S_IMODE(found.st_mode):04o}); chmod o-w {one}"
            )
        if found.st_uid not in {0, os.geteuid()} and _is_shared(one.parent):
            return (
                f"{one} belongs to another user (uid {found.st_uid}), and everybody may make files in {one.parent}; "
                "put it into a folder of its own"
            )
    return None


def _on_the_way(path: Path) -> Iterator[Path]:
    """The file, every folder that is gone through to reach it, and every symbolic link that is followed; each once."""
    seen: dict[Path, None] = {}
    here, left, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    seen[here] = None
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        one = here / name
        seen[one] = None
        try:
            target = one.readlink()
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                break  # nothing is there, or nobody gets beyond it
            here = one  # no link
        else:
            links += 1
            if links > _MAX_LINKS:
                break
            here = Path("/") if target.is_absolute() else here
            left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    yield from reversed(seen)


def _is_shared(folder: Path) -> bool:
    """Whether everybody may make files in a folder."""
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def _is_sticky(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)


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
