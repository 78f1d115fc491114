"""Run commands of foreman in processes that begin in odd ways, many of them quickly: each is a fork of this program.

It reads a JSON array of cases from standard input, and writes an array of what came of each:
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

# What the commands import when they run; not the reactor, of which each process needs one of its own.
import treq  # noqa: F401

from foreman.cli.main import main

#: No command takes so long, in seconds.
PATIENCE = 60


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


def _left() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def _folder_gone() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    shutil.rmtree(gone)


def _bytes() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"\xff\xfe\x00")
    os.close(writer)
    os.dup2(reader, 0)


#: How a process begins.
HOW: dict[str, Callable[[], None]] = {
    "plain": lambda: None,
    "stdin-closed": _closed(0),
    "stdin-no-text": _bytes,
    "stdout-closed": _closed(1),
    "stderr-closed": _closed(2),
    "all-closed": _closed(0, 1, 2),
    "stdout-full": _full(1),
    "stderr-full": _full(2),
    "both-full": _full(1, 2),
    "reader-left": _left,
    "folder-gone": _folder_gone,
}


def run(words: list[str], how: str) -> dict[str, object]:
    """Run one command, and wait for it."""
    folder = Path(tempfile.mkdtemp())
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        for descriptor, name, flags in ((0, os.devnull, os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
            opened = os.open(folder / name, flags | os.O_CREAT if descriptor else flags)
            os.dup2(opened, descriptor)
            os.close(opened)
        HOW[how]()
        # As the interpreter does for a descriptor that is closed.
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
