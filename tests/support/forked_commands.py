"""Run commands of foreman in processes with unusual standard streams. Each is a fork of this program, which is fast.

It reads a JSON array of cases from standard input, and writes an array of their results:
``{"words": [...], "how": "stdout-closed"}`` becomes ``{"status": 1, "out": "...", "err": "..."}``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# What the commands import, but not the reactor: each process needs its own.
import treq  # noqa: F401

from foreman.cli.main import main

#: After so long a command is killed, in seconds.
TIMEOUT = 60


def _closed(*descriptors: int) -> Callable[[], None]:
    def prepare() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return prepare


def _full(*descriptors: int) -> Callable[[], None]:
    def prepare() -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        for descriptor in descriptors:
            os.dup2(full, descriptor)

    return prepare


def _reader_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def _directory_removed() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    shutil.rmtree(gone)


def _binary_input() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"\xff\xfe\x00")
    os.close(writer)
    os.dup2(reader, 0)


#: How the streams of a process are prepared.
SETUPS: dict[str, Callable[[], None]] = {
    "plain": lambda: None,
    "stdin-closed": _closed(0),
    "stdin-no-text": _binary_input,
    "stdout-closed": _closed(1),
    "stderr-closed": _closed(2),
    "all-closed": _closed(0, 1, 2),
    "stdout-full": _full(1),
    "stderr-full": _full(2),
    "both-full": _full(1, 2),
    "reader-left": _reader_gone,
    "folder-gone": _directory_removed,
}


def run(words: list[str], how: str) -> dict[str, object]:
    """Run one command and wait for it."""
    folder = Path(tempfile.mkdtemp())
    child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT)
        for descriptor, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
            opened = os.open(folder / name, flags | os.O_CREAT if descriptor else flags)
            os.dup2(opened, descriptor)
            os.close(opened)
        SETUPS[how]()
        # As the interpreter does for a closed descriptor.
        if how in {"stdin-closed", "all-closed"}:
            sys.stdin = None
        if how in {"stdout-closed", "all-closed"}:
            sys.stdout = None
        if how in {"stderr-closed", "all-closed"}:
            sys.stderr = None
        sys.argv = ["foreman", *words]
        main()
    _, status = os.waitpid(child, 0)
    texts = {name: (folder / name).read_text("utf-8", "replace") for name in ("out", "err")}
    shutil.rmtree(folder)
    return {"status": os.waitstatus_to_exitcode(status), **texts}


if __name__ == "__main__":
    results = [run(case["words"], case["how"]) for case in json.load(sys.stdin.buffer)]
    sys.stdout.buffer.write(json.dumps(results).encode())
