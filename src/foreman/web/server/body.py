"""The body of a request while it arrives and waits: in memory while it is small and memory is free, else in a file without a name."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import BinaryIO, cast

from attrs import define, field, frozen

#: A body up to this many bytes is held in memory.
IN_MEMORY = 1024 * 1024
#: Where all bodies in memory have more than ``MEMORY_CROWDED`` bytes, one goes to a file beyond this many.
IN_CROWDED_MEMORY = 64 * 1024
MEMORY_CROWDED = 16 * 1024 * 1024
#: The most bytes of all bodies in memory.
MEMORY_IN_ALL = 64 * 1024 * 1024
#: How much room is made at once, in bytes, so that it is not looked for at each chunk of a body.
MADE_AT_ONCE = 1024 * 1024
#: The most requests that are refused at once to make room: each takes a third of a millisecond.
REFUSED_AT_ONCE = 32
FULL = "the request bodies that wait take up all of the memory and of the files that there are for them"
#: How many files there may be depends on that setting, see ``web.site``.
NO_FILE = "too many large request bodies are waiting in files"
TOO_SLOW = "the body came too slowly, and others wait for its place; try again soon"


class BodyRefused(Exception):
    """There is no place for a body.

    :ivar status: 413 when it is too large by itself, 503 when there are too many.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@frozen
class Arriving:
    """A body that arrives, and how its request is refused with a status and a text."""

    body: SpooledBody
    refuse: Callable[[int, str], None]


@define(eq=False)
class BodySpool:
    """All bodies, and what they share: bytes that have arrived, in memory and in files. What is announced takes no room.

    Where there is no room for what arrives, those go that come slowly: the one that needs room, or the slowest.

    :ivar limit: bytes of all bodies; :ivar share: bytes of one caller's; :ivar files: how many may be in files;
    :ivar slow: tells which come slowly, the slowest first; :ivar used: bytes of all bodies now.
    """

    limit: int
    share: int
    files: int = 1024
    slow: Callable[[], Iterable[Arriving]] = list
    used: int = field(default=0, init=False)
    in_memory: int = field(default=0, init=False)
    in_files: int = field(default=0, init=False)
    _of: Counter[str] = field(factory=Counter, init=False)

    def expect(self, body: SpooledBody, count: int) -> None:
        """``count`` bytes more are announced for ``body``.

        :raises NotHeld: when there will be no room for them, whoever makes room.
        """
        if self._fits(body, count):
            return
        slow = [one.body for one in self.slow()]
        own = sum(one.length for one in slow if one.caller == body.caller)
        if self.used - sum(one.length for one in slow) + count > self.limit:
            raise BodyRefused(503, "too many request bodies are waiting; try again soon (FOREMAN_BODY_BUDGET)")
        if self._of[body.caller] - own + count > self.share:
            raise BodyRefused(
                503, "too many request bodies of this caller are waiting; try again soon (FOREMAN_BODY_BUDGET)"
            )

    def take(self, body: SpooledBody, count: int) -> None:
        """Count ``count`` bytes in, which have arrived for ``body``.

        :raises NotHeld: when there is no room; then they are not counted.
        """
        fits_memory = body.in_file or self.has_memory(count)
        if not (fits_memory and self._fits(body, count)) and body.is_slow():
            raise BodyRefused(503, TOO_SLOW)
        if not self._fits(body, count):
            self.expect(body, count)
            everybody = self.used + count > self.limit
            room = max(count, min(MADE_AT_ONCE, self.limit // 16))
            enough = self.limit - room, self.share - room

            def has_room() -> bool:
                return self.used <= enough[0] and self._of[body.caller] <= enough[1]

            self._drop_slow(body, has_room, lambda one: one.length if everybody or one.caller == body.caller else 0)
        if not fits_memory:
            enough_memory = MEMORY_IN_ALL - max(count, MADE_AT_ONCE)
            self._drop_slow(body, lambda: self.in_memory <= enough_memory, lambda one: 0 if one.in_file else one.length)
        if not self._fits(body, count):
            raise BodyRefused(503, "too many request bodies are waiting; try again soon (FOREMAN_BODY_BUDGET)")
        if not (body.in_file or self.has_memory(count)):
            raise BodyRefused(503, f"{FULL}; try again soon")
        self.used += count
        self._of[body.caller] += count
        if not body.in_file:
            self.in_memory += count

    def give(self, body: SpooledBody) -> None:
        """``body`` is forgotten: give back what it had."""
        self.used -= body.length
        self._of[body.caller] -= body.length
        if not self._of[body.caller]:
            del self._of[body.caller]
        if body.in_file:
            self.in_files -= 1
        else:
            self.in_memory -= body.length

    def has_memory(self, count: int) -> bool:
        """Whether ``count`` bytes more may be in memory."""
        return self.in_memory + count <= MEMORY_IN_ALL

    def open_file(self, body: SpooledBody) -> BinaryIO | None:
        """A file for ``body``, which is in memory so far; None: too many are in files already.

        :raises OSError: when there can be none.
        """
        if self.in_files >= self.files:
            self._drop_slow(body, lambda: self.in_files < self.files, lambda one: one.in_file)
        if self.in_files >= self.files:
            return None
        return cast("BinaryIO", tempfile.TemporaryFile(buffering=0))

    def moved(self, body: SpooledBody) -> None:
        """``body`` is in its file now, and no longer in memory."""
        self.in_files += 1
        self.in_memory -= body.length

    def _fits(self, body: SpooledBody, count: int) -> bool:
        return self.used + count <= self.limit and self._of[body.caller] + count <= self.share

    def _drop_slow(
        self, body: SpooledBody, is_enough: Callable[[], bool], weight: Callable[[SpooledBody], int]
    ) -> None:
        dropped = 0
        for one in self.slow():
            if dropped == REFUSED_AT_ONCE or is_enough():
                return
            if one.body is not body and weight(one.body):
                one.refuse(408, TOO_SLOW)
                dropped += 1


@define(eq=False)
class SpooledBody:
    """The body of one request; what it takes is given back by ``close``.

    :ivar limit: its most bytes; :ivar caller: whose it is; :ivar is_slow: tells whether it comes slowly; :ivar length: its
        bytes so far; :ivar in_file: whether it is in a file.
    """

    limit: int
    _bodies: BodySpool
    caller: str = ""
    is_slow: Callable[[], bool] = lambda: False
    length: int = field(default=0, init=False)
    in_file: bool = field(default=False, init=False)
    _content: BinaryIO = field(factory=BytesIO, init=False)
    _closed: bool = field(default=False, init=False)

    def expect(self, length: int) -> None:
        """``length`` bytes in all are announced.

        :raises NotHeld: when there is no place for them.
        """
        if length > self.limit:
            raise BodyRefused(
                413, f"a request body may have {self.limit} bytes, this one announces {length} (FOREMAN_MAX_BODY)"
            )
        self._bodies.expect(self, length - self.length)

    def add(self, data: bytes) -> None:
        """The next bytes.

        :raises NotHeld: when there is no place for them.
        """
        if self._closed:
            return
        length = self.length + len(data)
        if length > self.limit:
            self.expect(length)
        try:
            if not self.in_file and (
                length > IN_MEMORY
                or (length > IN_CROWDED_MEMORY and self._bodies.in_memory > MEMORY_CROWDED)
                or not self._bodies.has_memory(len(data))
            ):
                self._move(needed=length > IN_MEMORY)
            self._bodies.take(self, len(data))
            self.length = length
            _write(self._content, data)
        except OSError as problem:
            raise BodyRefused(503, f"there is no room to keep this body: {problem.strerror or problem}") from None

    def value(self) -> bytes | BinaryIO:
        """The whole body, or the file that holds it, with its position at the beginning."""
        content = self._content
        if isinstance(content, BytesIO):
            return content.getvalue()
        content.seek(0)
        return content

    def close(self) -> None:
        """Forget the body, and give its place back."""
        if not self._closed:
            self._closed = True
            self.is_slow = lambda: False
            try:
                with contextlib.suppress(OSError):  # of a full disk: nobody wants the rest
                    self._content.close()
            finally:
                self._bodies.give(self)

    def _move(self, *, needed: bool) -> None:
        file = self._bodies.open_file(self)
        if file is None:
            if needed:
                raise BodyRefused(503, f"{NO_FILE}; try again soon (FOREMAN_MAX_CONNECTIONS)")
            return
        try:
            _write(file, cast("BytesIO", self._content).getvalue())
        except BaseException:
            with contextlib.suppress(OSError):
                file.close()
            raise
        self._content = file
        self._bodies.moved(self)
        self.in_file = True


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of ``data``: a file without a buffer may take a part of it, and says later that the disk is full."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
