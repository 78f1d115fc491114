"""The body of a request while it arrives and waits: in memory while it is small, in a file without a name beyond that."""

from __future__ import annotations

import tempfile
from io import BytesIO
from typing import BinaryIO, cast

from attrs import define, field

from foreman.budget import Budget

#: A body up to this many bytes is held in memory.
IN_MEMORY = 1024 * 1024


class NotHeld(Exception):
    """There is no place for a body.

    :ivar status: 413 when it is too large by itself, 503 when there are too many.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@define(eq=False)
class HeldBody:
    """The body of one request.

    :ivar limit: its most bytes; :ivar budget: what all bodies share, given back by ``close``; :ivar length: its bytes so far.
    """

    limit: int
    _budget: Budget
    length: int = field(default=0, init=False)
    _counted: int = field(default=0, init=False)
    _content: BinaryIO = field(factory=BytesIO, init=False)
    _in_file: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)

    def expect(self, length: int) -> None:
        """``length`` bytes in all are announced: keep their place.

        :raises NotHeld: when there is none.
        """
        if length > self.limit:
            raise NotHeld(
                413, f"a request body may have {self.limit} bytes, this one announces {length} (FOREMAN_MAX_BODY)"
            )
        if length > self._counted:
            more, self._counted = length - self._counted, length
            if not self._budget.take(more):
                raise NotHeld(503, "too many request bodies are waiting; try again soon (FOREMAN_BODY_BUDGET)")

    def add(self, data: bytes) -> None:
        """The next bytes.

        :raises NotHeld: when there is no place for them.
        """
        if self._closed:
            return
        length = self.length + len(data)
        if length > self._counted:
            self.expect(length)
        try:
            if length > IN_MEMORY and not self._in_file:
                self._move()
            self._content.write(data)
        except OSError as problem:
            raise NotHeld(503, f"there is no room to keep this body: {problem.strerror}") from None
        self.length = length

    def value(self) -> bytes | BinaryIO:
        """The whole body, or the file that holds it, with its position at the beginning."""
        content = self._content
        if isinstance(content, BytesIO):
            return content.getvalue()
        content.flush()
        content.seek(0)
        return content

    def close(self) -> None:
        """Forget the body, and give its place back."""
        if not self._closed:
            self._closed = True
            self._content.close()
            self._budget.give(self._counted)

    def _move(self) -> None:
        file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - closed with the body
        file.write(cast("BytesIO", self._content).getvalue())
        self._content, self._in_file = file, True
