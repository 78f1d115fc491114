"""Request bodies while they arrive and wait: small ones in memory while there is room, the others in unnamed temporary files."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import BinaryIO, cast

from attrs import define, field, frozen

#: A body up to this many bytes is kept in memory.
MAX_IN_MEMORY = 1024 * 1024
#: While all bodies in memory have more than ``CROWDED_MEMORY`` bytes, a body goes to a file beyond this many.
MAX_IN_CROWDED_MEMORY = 64 * 1024
CROWDED_MEMORY = 16 * 1024 * 1024
#: The most bytes of all bodies in memory together.
MAX_MEMORY = 64 * 1024 * 1024
#: The least room that is made at once, in bytes, so that it is not made for each chunk of a body.
MIN_ROOM_MADE = 1024 * 1024
#: The most requests that are refused at once to make room: a refusal takes a third of a millisecond.
MAX_REFUSED_AT_ONCE = 32
NO_MEMORY = "the waiting request bodies take up all of their memory and all of their files"
#: The number of files depends on FOREMAN_MAX_CONNECTIONS, see ``web.server.factory``.
NO_FILE = "too many large request bodies are waiting in files"
TOO_SLOW = "the body arrived too slowly, and others wait for its place; try again soon"


class BodyRefused(Exception):
    """There is no room for a body.

    :ivar status: 413 when it is too large by itself, 408 or 503 when there are too many.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@frozen
class ArrivingBody:
    """A body that is arriving; ``refuse`` refuses its request with a status and a text."""

    body: SpooledBody
    refuse: Callable[[int, str], None]


@define(eq=False)
class BodySpool:
    """The room that all bodies share, in memory and in files. Only bytes that have arrived take room, not announced ones.

    Where there is no room for what arrives, slow bodies are refused: the one that needs the room, or else the slowest.

    :ivar limit: of all bodies, in bytes; :ivar caller_limit: of the bodies of one caller, in bytes; :ivar files: the most
        bodies in files; :ivar slow_bodies: returns the bodies that arrive slowly, the slowest first; :ivar used: bytes of
        all bodies now; :ivar in_memory: bytes of those in memory; :ivar in_files: the number of those in files.
    """

    limit: int
    caller_limit: int
    files: int = 1024
    slow_bodies: Callable[[], Iterable[ArrivingBody]] = list
    used: int = field(default=0, init=False)
    in_memory: int = field(default=0, init=False)
    in_files: int = field(default=0, init=False)
    _by_caller: Counter[str] = field(factory=Counter, init=False)

    def expect(self, body: SpooledBody, count: int) -> None:
        """``count`` more bytes are announced for ``body``.

        :raises BodyRefused: when there would be no room for them even if all slow bodies were refused.
        """
        if self._fits(body, count):
            return
        slow = [arriving.body for arriving in self.slow_bodies()]
        own = sum(waiting.length for waiting in slow if waiting.caller == body.caller)
        if self.used - sum(waiting.length for waiting in slow) + count > self.limit:
            raise BodyRefused(503, "too many request bodies are waiting; try again soon (FOREMAN_BODY_BUDGET)")
        if self._by_caller[body.caller] - own + count > self.caller_limit:
            raise BodyRefused(
                503, "too many request bodies of this caller are waiting; try again soon (FOREMAN_BODY_BUDGET)"
            )

    def reserve(self, body: SpooledBody, count: int) -> None:
        """``count`` bytes have arrived for ``body``: take room for them.

        :raises BodyRefused: when there is none; then none is taken.
        """
        fits_memory = body.in_file or self.has_memory(count)
        if not (fits_memory and self._fits(body, count)) and body.is_slow():
            raise BodyRefused(503, TOO_SLOW)
        if not self._fits(body, count):
            self.expect(body, count)
            is_full_for_all = self.used + count > self.limit
            room = max(count, min(MIN_ROOM_MADE, self.limit // 16))
            enough = self.limit - room, self.caller_limit - room

            def has_room() -> bool:
                return self.used <= enough[0] and self._by_caller[body.caller] <= enough[1]

            def weight(slow: SpooledBody) -> int:
                return slow.length if is_full_for_all or slow.caller == body.caller else 0

            self._refuse_slow(body, has_room, weight)
        if not fits_memory:
            enough_memory = MAX_MEMORY - max(count, MIN_ROOM_MADE)
            self._refuse_slow(
                body, lambda: self.in_memory <= enough_memory, lambda slow: 0 if slow.in_file else slow.length
            )
        if not self._fits(body, count):
            raise BodyRefused(503, "too many request bodies are waiting; try again soon (FOREMAN_BODY_BUDGET)")
        if not (body.in_file or self.has_memory(count)):
            raise BodyRefused(503, f"{NO_MEMORY}; try again soon")
        self.used += count
        self._by_caller[body.caller] += count
        if not body.in_file:
            self.in_memory += count

    def release(self, body: SpooledBody) -> None:
        """``body`` is no longer needed: give back its room."""
        self.used -= body.length
        self._by_caller[body.caller] -= body.length
        if not self._by_caller[body.caller]:
            del self._by_caller[body.caller]
        if body.in_file:
            self.in_files -= 1
        else:
            self.in_memory -= body.length

    def has_memory(self, count: int) -> bool:
        """Whether there is memory for ``count`` more bytes."""
        return self.in_memory + count <= MAX_MEMORY

    def open_file(self, body: SpooledBody) -> BinaryIO | None:
        """A file for ``body``, which has been in memory; None: too many bodies are in files.

        :raises OSError: when it cannot be made.
        """
        if self.in_files >= self.files:
            self._refuse_slow(body, lambda: self.in_files < self.files, lambda slow: slow.in_file)
        if self.in_files >= self.files:
            return None
        return cast("BinaryIO", tempfile.TemporaryFile(buffering=0))

    def moved_to_file(self, body: SpooledBody) -> None:
        """``body`` is in its file now, and no longer in memory."""
        self.in_files += 1
        self.in_memory -= body.length

    def _fits(self, body: SpooledBody, count: int) -> bool:
        return self.used + count <= self.limit and self._by_caller[body.caller] + count <= self.caller_limit

    def _refuse_slow(
        self, body: SpooledBody, is_enough: Callable[[], bool], weight: Callable[[SpooledBody], int]
    ) -> None:
        refused = 0
        for arriving in self.slow_bodies():
            if refused == MAX_REFUSED_AT_ONCE or is_enough():
                return
            if arriving.body is not body and weight(arriving.body):
                arriving.refuse(408, TOO_SLOW)
                refused += 1


@define(eq=False)
class SpooledBody:
    """The body of one request; ``close`` gives its room back.

    :ivar limit: its most bytes; :ivar caller: whose it is; :ivar is_slow: returns whether it arrives slowly; :ivar length:
        its bytes so far; :ivar in_file: whether it is in a file.
    """

    limit: int
    _spool: BodySpool
    caller: str = ""
    is_slow: Callable[[], bool] = lambda: False
    length: int = field(default=0, init=False)
    in_file: bool = field(default=False, init=False)
    _content: BinaryIO = field(factory=BytesIO, init=False)
    _closed: bool = field(default=False, init=False)

    def expect(self, length: int) -> None:
        """The body is announced to have ``length`` bytes.

        :raises BodyRefused: when there is no room for them.
        """
        if length > self.limit:
            raise BodyRefused(
                413, f"a request body may have {self.limit} bytes, this one announces {length} (FOREMAN_MAX_BODY)"
            )
        self._spool.expect(self, length - self.length)

    def add(self, data: bytes) -> None:
        """Add the bytes that arrived.

        :raises BodyRefused: when there is no room for them.
        """
        if self._closed:
            return
        length = self.length + len(data)
        if length > self.limit:
            self.expect(length)
        try:
            if not self.in_file and (
                length > MAX_IN_MEMORY
                or (length > MAX_IN_CROWDED_MEMORY and self._spool.in_memory > CROWDED_MEMORY)
                or not self._spool.has_memory(len(data))
            ):
                self._move_to_file(needed=length > MAX_IN_MEMORY)
            self._spool.reserve(self, len(data))
            self.length = length
            _write(self._content, data)
        except OSError as problem:
            raise BodyRefused(503, f"there is no space to store this body: {problem.strerror or problem}") from None

    def value(self) -> bytes | BinaryIO:
        """The whole body, or the file that holds it, positioned at its beginning."""
        content = self._content
        if isinstance(content, BytesIO):
            return content.getvalue()
        content.seek(0)
        return content

    def close(self) -> None:
        """Drop the body, and give its room back."""
        if not self._closed:
            self._closed = True
            self.is_slow = lambda: False
            try:
                with contextlib.suppress(OSError):  # a full disk: the rest is not needed
                    self._content.close()
            finally:
                self._spool.release(self)

    def _move_to_file(self, *, needed: bool) -> None:
        file = self._spool.open_file(self)
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
        self._spool.moved_to_file(self)
        self.in_file = True


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of ``data``: an unbuffered file may take only a part of it, and reports a full disk at the next write."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
