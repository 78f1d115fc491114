"""The right to use a database: one foreman has it, under whatever name the file is opened."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from pathlib import Path

from attrs import define, field

from foreman.store.errors import StoreInUse, StoreUnavailable

#: The byte that is locked of the database itself: far behind what SQLite locks or writes (its files end at 2**48).
_BYTE = 2**62
#: Locks of an open file (fcntl(2)), which a fork inherits and no other close gives up; elsewhere than on Linux, None.
_OPEN_FILE_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
_TAKEN = {errno.EACCES, errno.EAGAIN}


@define(eq=False)
class Lock:
    """The right to use a database, until the process ends or ``release``.

    Nothing of SQLite's may be open in this process when it is released: to close a file gives up SQLite's locks of it.
    """

    _name: int
    _file: int | None = field(default=None, init=False)

    def take_file(self, path: Path) -> None:
        """Lock the file itself too, which is there: it may have another name, where another lock file stands.

        :raises StoreInUse: when a foreman uses it by another name; this lock stays as it is.
        """
        if _OPEN_FILE_LOCK is None:
            return
        try:
            if self._file is not None and not os.path.samestat(os.fstat(self._file), path.stat()):
                os.close(self._file)  # another file has the name now
                self._file = None
            # Once opened it stays so until ``release``, also where it cannot be locked.
            if self._file is None:
                self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return  # SQLite will say what is wrong with it
        try:
            lock_byte(self._file)
        except OSError as problem:
            if problem.errno in _TAKEN:
                raise StoreInUse(
                    f"another foreman uses the jobs in {path} by another name of this file; stop it, or give this one a "
                    "file of its own with FOREMAN_DB_PATH"
                ) from None
            # Else it is a file system that has no such locks; the one by name is there.

    def release(self) -> None:
        """Give it back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        os.close(self._name)


def real(path: Path) -> Path:
    """The file that ``path`` means: where it is a symbolic link, SQLite keeps its log beside what that points to."""
    return Path(os.path.realpath(path))


def check_names(path: Path) -> None:
    """See that the database at ``path`` has no other name; it need not be there.

    SQLite keeps its log of changes beside the name by which a file was opened. By another name a crash would leave the log
    out of sight: jobs would be missing, and what is then written damages the file.

    :param path: as ``real`` gives it.
    :raises StoreUnavailable: when it has several hard links, or is mounted by itself.
    """
    try:
        links = path.stat().st_nlink
    except FileNotFoundError:
        return
    if links > 1:
        why = f"{path} has {links} names (hard links)"
        cure = f"keep the name that foreman used until now, remove the others (find / -xdev -samefile {path})"
    elif _is_mounted(path):
        why, cure = f"{path} is a file that is mounted by itself", "mount the folder that it is in"
    else:
        return
    raise StoreUnavailable(
        "broken",
        f"there is no job store: {why}, and SQLite would look for its log beside the wrong one after a crash, so that jobs "
        f"would be lost; stop foreman, {cure}, and start foreman again",
    )


def _is_mounted(file: Path) -> bool:
    """Whether a file is itself a place where something is mounted, as far as the system tells."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    name = os.fsencode(file)
    for character in b"\\ \t\n":  # as proc(5) writes them
        name = name.replace(bytes((character,)), b"\\%03o" % character)
    return any(line.split(b" ", 5)[4:5] == [name] for line in mounts.split(b"\n"))


def take_lock(path: Path, *, only_name: bool = False) -> Lock:
    """Keep other foremen away from the database at ``path``, which need not be there yet.

    :param only_name: do not open the file itself; ``Lock.take_file`` does it later.
    :raises StoreInUse: when one has it.
    """
    file = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise StoreInUse(
            f"another foreman uses the jobs in {path}; stop it, or give this one a file of its own with FOREMAN_DB_PATH"
        ) from None
    lock = Lock(file)
    try:
        if path.exists() and not only_name:
            lock.take_file(path)
    except BaseException:
        lock.release()
        raise
    return lock


def lock_byte(file: int) -> None:
    """Lock the byte of an open database that stands for the whole, without waiting.

    :raises OSError: when somebody else has it, or the file system has no such locks.
    """
    assert _OPEN_FILE_LOCK is not None
    # struct flock of Linux: type, whence, start, length, process (0 for these locks), and its padding.
    wanted = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
    fcntl.fcntl(file, _OPEN_FILE_LOCK, wanted)
