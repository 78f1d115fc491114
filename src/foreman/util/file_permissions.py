"""Whether other users could write or read foreman's files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

#: How many symbolic links of a path are followed, as on Linux.
_MAX_LINKS = 40


def why_writable_by_others(path: Path) -> str | None:
    """Why another user of this machine could change the content of the file ``path``, as a phrase; None where nobody could.

    The file is examined, every symbolic link of its path, and every directory that contains one of these. In a directory
    with the sticky bit, such as ``/tmp``, nobody can replace a file of another user; but anybody could have created it
    first, so that it must belong to root or to foreman's own user.
    """
    try:
        components = list(_components(path))
    except OSError:
        return None  # a relative path, and the working directory is gone: reading the file will fail
    for component in components:
        try:
            found = component.lstat()
        except OSError:
            continue  # reading the file will fail
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & stat.S_IWOTH and not _is_sticky(found):
            return (
                f"every user of this machine may write {component} "
                f"(mode {stat.S_IMODE(found.st_mode):04o}); chmod o-w {component}"
            )
        if found.st_uid not in {0, os.geteuid()} and _is_shared(component.parent):
            return (
                f"{component} belongs to another user (uid {found.st_uid}), and every user may create files in "
                f"{component.parent}; move it into a directory of foreman's own"
            )
    return None


def _components(path: Path) -> Iterator[Path]:
    """The file, every directory on the way to it, and every symbolic link that is followed; each once."""
    seen: dict[Path, None] = {}
    here, left, links = Path("/"), list(reversed(path.absolute().parts[1:])), 0
    seen[here] = None
    while left:
        name = left.pop()
        if name == "..":
            here = here.parent
            continue
        component = here / name
        seen[component] = None
        try:
            target = component.readlink()
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                break  # it does not exist, or cannot be read
            here = component  # not a link
        else:
            links += 1
            if links > _MAX_LINKS:
                break
            here = Path("/") if target.is_absolute() else here
            left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    yield from reversed(seen)


def _is_shared(folder: Path) -> bool:
    """Whether every user may create files in a directory."""
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def _is_sticky(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)


def database_problems(path: Path) -> Iterator[str]:
    """What is wrong with the permissions of the database at ``path``, one sentence for each problem."""
    if (why := why_writable_by_others(path)) is not None:
        yield f"other users can change the jobs in {path}: {why}"
    try:
        mode = Path(os.path.realpath(path)).stat().st_mode
    except OSError:
        return
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        yield (
            f"other users can read the jobs in {path}, with their prompts and answers "
            f"(mode {stat.S_IMODE(mode):04o}); chmod 600 {path}"
        )
