"""Make standard input, output and error usable, even if the process was started with some of them closed."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


#: The longest sentence that is printed about a problem, in characters: others write into them.
MAX_MESSAGE = 2_000


class OutputLost(Exception):
    """Standard output cannot be written: its reader has gone, the disk is full, or it was closed from the start.

    It is not an OSError, since click and rich catch some of those and end the process in their own ways.

    :ivar errno: of the system; :ivar reason: the same as text.
    """

    def __init__(self, errno: int | None, reason: str | None) -> None:
        super().__init__(errno, reason)
        self.errno = errno
        self.reason = reason


class _Output(io.FileIO):
    """Standard output: a failure has an exception of its own, and a non-blocking descriptor is waited for."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write_some(super().write, data, self.fileno())
        except OSError as problem:
            raise OutputLost(problem.errno, problem.strerror) from None


class _Errors(io.FileIO):
    """Standard error: if it cannot be written, the message is dropped; the exit status remains."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write_some(super().write, data, self.fileno())
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Replace the three streams of this process.

    A closed descriptor is opened so that no socket or file gets its number and receives the output; using it still fails,
    as with a closed one. Characters that the encoding lacks are written as escapes.
    """
    for descriptor, unusable in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, unusable)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)


def try_echo(text: str) -> None:
    """Print a hint; ignore it if standard output cannot be written."""
    with contextlib.suppress(OutputLost):
        click.echo(text)


def echo_stderr(sentence: str) -> None:
    """Print a sentence on standard error; in a terminal it is wrapped between words."""
    if sys.stderr.isatty():
        width = min(max(shutil.get_terminal_size().columns, 20), 100)
        sentence = textwrap.fill(sentence, width, break_long_words=False, break_on_hyphens=False)
    click.echo(sentence, err=True)


def abandon_output() -> None:
    """Redirect standard output to /dev/null: the interpreter flushes the buffers once more when it exits."""
    with contextlib.suppress(OSError, ValueError):
        raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
        if isinstance(raw, _Output):
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.close(devnull)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=raw.isatty()
    )


def _write_some(write: Callable[[ReadableBuffer], int | None], data: ReadableBuffer, descriptor: int) -> int:
    """Write as much as fits; wait while a non-blocking descriptor is full."""
    while True:
        written = write(data)
        if written is not None:
            return written
        select.select([], [descriptor], [])
