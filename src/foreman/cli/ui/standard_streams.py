"""Make standard input, output and error usable, whatever the process was started with."""

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
    """Standard output cannot be written: its reader has left, the disk is full, or it was closed from the start.

    It is no OSError, since click and rich catch some of those, and end the process in ways of their own.

    :ivar errno: what the system says; :ivar reason: the same in words.
    """

    def __init__(self, errno: int | None, reason: str | None) -> None:
        super().__init__(errno, reason)
        self.errno = errno
        self.reason = reason


class _Output(io.FileIO):
    """Standard output: a failure is told apart from that of any other file, and a non-blocking one is waited for."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write_some(super().write, data, self.fileno())
        except OSError as problem:
            raise OutputLost(problem.errno, problem.strerror) from None


class _Errors(io.FileIO):
    """Standard error: where it cannot be written there is nobody left to tell, and the exit status says the rest."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write_some(super().write, data, self.fileno())
        except OSError:
            return memoryview(data).nbytes


def prepare() -> None:
    """Replace the three streams of this process.

    A closed descriptor is opened, so that no socket or file takes its number and receives what is printed; it fails all
    the same when it is used, as a closed one does. What an encoding does not have is written as an escape.
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
    """Print what is good to know, in a program that goes on where it cannot be printed."""
    with contextlib.suppress(OutputLost):
        click.echo(text)


def echo_stderr(sentence: str) -> None:
    """Print a sentence on standard error; in a terminal between words that it would break."""
    if sys.stderr.isatty():
        width = min(max(shutil.get_terminal_size().columns, 20), 100)
        sentence = textwrap.fill(sentence, width, break_long_words=False, break_on_hyphens=False)
    click.echo(sentence, err=True)


def abandon_output() -> None:
    """Let what is left in the buffers go nowhere: the interpreter flushes them once more when it ends."""
    with contextlib.suppress(OSError, ValueError):
        raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
        if isinstance(raw, _Output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=raw.isatty()
    )


def _write_some(write: Callable[[ReadableBuffer], int | None], data: ReadableBuffer, descriptor: int) -> int:
    """Write what fits; where the reader of a non-blocking descriptor is slow, wait for it."""
    while True:
        written = write(data)
        if written is not None:
            return written
        select.select([], [descriptor], [])
