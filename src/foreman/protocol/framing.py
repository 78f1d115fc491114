"""Whole lines out of arriving bytes, and whole events out of an event stream.

Only a newline ends a line: ``splitlines`` would also cut at U+2028 and others, which JSON allows inside a string.
"""

from __future__ import annotations

from typing import Literal, Protocol

BodyFraming = Literal["ndjson", "sse", "other"]

#: The longest line that Ollama's own client reads; a longer one passes as the bytes come.
LONGEST_LINE = 8_000_000


class Framer(Protocol):
    """Cuts what arrives into the pieces that leave.

    :ivar whole: nothing of an unfinished piece has been let out.
    """

    whole: bool

    def feed(self, data: bytes) -> list[bytes]:
        """What may leave now that ``data`` has come."""

    def rest(self) -> bytes:
        """What was held back, now that nothing more comes."""


class LineFramer:
    """One piece for each line, its newline included."""

    def __init__(self) -> None:
        self.whole = True
        self._tail: list[bytes] = []
        self._tail_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` finishes."""
        if not self._tail_bytes and self.whole and data.find(b"\n") == len(data) - 1 >= 0:
            return [data]  # the ordinary case: exactly one line has come
        lines: list[bytes] = []
        start = 0
        end = data.find(b"\n")
        while end >= 0:
            lines.append(self._finished(data[start : end + 1]))
            start = end + 1
            end = data.find(b"\n", start)
        if start < len(data):
            self._hold(data[start:])
            if self._tail_bytes > LONGEST_LINE or not self.whole:
                lines.append(self.rest())
                self.whole = False
        return lines

    def rest(self) -> bytes:
        """A last line without newline."""
        tail = b"".join(self._tail)
        self._tail.clear()
        self._tail_bytes = 0
        return tail

    def _finished(self, end_of_line: bytes) -> bytes:
        self.whole = True
        return self.rest() + end_of_line if self._tail_bytes else end_of_line

    def _hold(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_bytes += len(data)


#: How many bytes of a blank line may have come before its end.
_SEAM = 2


class EventFramer:
    """Everything up to the last blank line in one piece: whole events of ``text/event-stream``."""

    def __init__(self) -> None:
        self.whole = True
        self._tail = bytearray()
        self._left = 0  # bytes of the tail that have left already, kept because a blank line may have begun in them

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` finishes."""
        tail = self._tail
        if not tail and data.endswith(b"\n\n"):
            return [data]
        searched = max(0, len(tail) - _SEAM)
        tail += data
        end = max(_behind(tail, b"\n\n", searched), _behind(tail, b"\n\r\n", searched))
        if end:
            piece = bytes(tail[self._left : end])
            del tail[:end]
            self._left = 0
            self.whole = True
            return [piece]
        if self.whole and len(tail) <= LONGEST_LINE:
            return []
        piece = bytes(tail[self._left :])
        del tail[:-_SEAM]
        self._left = len(tail)
        self.whole = False
        return [piece] if piece else []

    def rest(self) -> bytes:
        """An event that was not finished."""
        rest = bytes(self._tail[self._left :])
        self._tail.clear()
        self._left = 0
        return rest


def _behind(data: bytearray, blank_line: bytes, start: int) -> int:
    found = data.rfind(blank_line, start)
    return found + len(blank_line) if found >= 0 else 0


class Passthrough:
    """Everything as it comes; such a body has no pieces, so it is never between two."""

    whole = False

    def feed(self, data: bytes) -> list[bytes]:
        """What came."""
        return [data]

    def rest(self) -> bytes:
        """Nothing is held back."""
        return b""


def framing_of(content_type: bytes) -> BodyFraming:
    """What a Content-Type says about how a body comes: in lines, in events, or as it is."""
    media = content_type.partition(b";")[0].strip().lower()
    if media == b"application/x-ndjson":
        return "ndjson"
    return "sse" if media == b"text/event-stream" else "other"


def framer_for(kind: BodyFraming) -> Framer:
    """A fresh cutter for a body of ``kind``."""
    if kind == "ndjson":
        return LineFramer()
    return EventFramer() if kind == "sse" else Passthrough()
