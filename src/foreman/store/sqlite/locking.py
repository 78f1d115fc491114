"""Locks that keep two foremen from using one database, by whatever name each of them opens the file."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from pathlib import Path

from attrs import define, field

from foreman.store.errors import StoreInUse, StoreUnavailable

#: The byte of the database file that is locked: far beyond all that SQLite locks or writes (its files end at 2**48).
_BYTE = 2**62
#: Open file description locks (fcntl(2)), which a fork inherits and no other close releases; None except on Linux.
_OPEN_FILE_LOCK: int | None = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
_TAKEN = {errno.EACCES, errno.EAGAIN}


@define(eq=False)
class Lock:
    """The locks of one database, held until ``release`` or the end of the process.

    No SQLite connection may be open in this process at ``release``: closing a file releases SQLite's own locks of it.
    """

    _name: int
    _file: int | None = field(default=None, init=False)

    def take_file(self, path: Path) -> None:
        """Also lock the file itself, which must exist: a process that opens it by another name uses another lock file.

        :raises StoreInUse: when a foreman uses it by another name; this lock stays as it is.
        """
        if _OPEN_FILE_LOCK is None:
            return
        try:
            if self._file is not None and not os.path.samestat(os.fstat(self._file), path.stat()):
                os.close(self._file)  # the name is another file's now
                self._file = None
            # Once open it stays open until ``release``, even where it cannot be locked.
            if self._file is None:
                self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return  # SQLite will report what is wrong with it
        try:
            lock_byte(self._file)
        except OSError as problem:
            if problem.errno in _TAKEN:
                raise StoreInUse(
                    f"another foreman uses the jobs in {path} by another name of this file; stop it, or give this one a "
                    "file of its own with FOREMAN_DB_PATH"
                ) from None
            # Otherwise the file system has no such locks; the lock file has to do.

    def release(self) -> None:
        """Release the locks."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        os.close(self._name)


def real_path(path: Path) -> Path:
    """``path`` with symbolic links resolved: SQLite keeps its log beside the file that a link points to."""
    return Path(os.path.realpath(path))


def check_single_name(path: Path) -> None:
    """Check that the database at ``path`` has no other name; it need not exist.

    SQLite keeps its write-ahead log beside the name by which the file was opened. Opened by another name after a crash, it
    would not find the log: jobs would be missing, and the next writes would damage the file.

    :param path: as from ``real_path``.
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
    """Whether a file is itself a mount point, as far as the system tells."""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return False
    name = os.fsencode(file)
    for character in b"\\ \t\n":  # the escapes of proc(5)
        name = name.replace(bytes((character,)), b"\\%03o" % character)
    return any(line.split(b" ", 5)[4:5] == [name] for line in mounts.split(b"\n"))


def take_lock(path: Path, *, only_name: bool = False) -> Lock:
    """Lock the database at ``path``, which need not exist yet, against other foremen.

    :param only_name: do not open the file itself; ``Lock.take_file`` does that later.
    :raises StoreInUse: when another foreman holds the lock.
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
    """Lock the byte of an open database that stands for the whole file, without waiting.

    :raises OSError: when it is locked already, or the file system has no such locks.
    """
    assert _OPEN_FILE_LOCK is not None
    # struct flock of Linux: type, whence, start, length, process (0 for these locks), and its padding.
    lock = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
    fcntl.fcntl(file, _OPEN_FILE_LOCK, lock)
