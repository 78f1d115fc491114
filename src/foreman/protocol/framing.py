"""Split a stream of bytes into whole lines of NDJSON, or whole events of an event stream.

Only a newline ends a line: ``splitlines`` would also split at U+2028 and others, which JSON allows in a string.
"""

from __future__ import annotations

from typing import Literal, Protocol

BodyFraming = Literal["ndjson", "sse", "other"]

#: The longest line that Ollama's own client reads, in bytes; a longer one is passed on as it arrives.
LONGEST_LINE = 8_000_000


class Framer(Protocol):
    """Splits a body into the pieces that are passed on.

    :ivar whole: no part of an unfinished piece has been passed on.
    """

    whole: bool

    def feed(self, data: bytes) -> list[bytes]:
        """Take ``data``, and return the pieces that can be passed on now."""

    def rest(self) -> bytes:
        """The bytes that were held back, at the end of the body."""


class LineFramer:
    """Each line with its newline is a piece."""

    def __init__(self) -> None:
        self.whole = True
        self._tail: list[bytes] = []
        self._tail_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes."""
        if not self._tail_bytes and self.whole and data.find(b"\n") == len(data) - 1 >= 0:
            return [data]  # the ordinary case: exactly one line has arrived
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
        """The last line, if it has no newline."""
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


#: How many bytes of a blank line may have arrived before its end.
_SEAM = 2


class EventFramer:
    """All events of ``text/event-stream`` up to the last blank line are one piece."""

    def __init__(self) -> None:
        self.whole = True
        self._tail = bytearray()
        self._passed = 0  # bytes of the tail that were passed on, kept because a blank line may begin in them

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes."""
        tail = self._tail
        if not tail and data.endswith(b"\n\n"):
            return [data]
        searched = max(0, len(tail) - _SEAM)
        tail += data
        end = max(_behind(tail, b"\n\n", searched), _behind(tail, b"\n\r\n", searched))
        if end:
            piece = bytes(tail[self._passed : end])
            del tail[:end]
            self._passed = 0
            self.whole = True
            return [piece]
        if self.whole and len(tail) <= LONGEST_LINE:
            return []
        piece = bytes(tail[self._passed :])
        del tail[:-_SEAM]
        self._passed = len(tail)
        self.whole = False
        return [piece] if piece else []

    def rest(self) -> bytes:
        """The last event, if it is incomplete."""
        rest = bytes(self._tail[self._passed :])
        self._tail.clear()
        self._passed = 0
        return rest


def _behind(data: bytearray, blank_line: bytes, start: int) -> int:
    found = data.rfind(blank_line, start)
    return found + len(blank_line) if found >= 0 else 0


class Passthrough:
    """Each chunk is passed on as it arrives. Such a body has no pieces, so that it is never between two."""

    whole = False

    def feed(self, data: bytes) -> list[bytes]:
        """``data`` itself."""
        return [data]

    def rest(self) -> bytes:
        """Nothing: no bytes are held back."""
        return b""


def framing_of(content_type: bytes) -> BodyFraming:
    """The framing of a body with this Content-Type: lines, events, or none."""
    media = content_type.partition(b";")[0].strip().lower()
    if media == b"application/x-ndjson":
        return "ndjson"
    return "sse" if media == b"text/event-stream" else "other"


def framer_for(kind: BodyFraming) -> Framer:
    """A new framer for a body of ``kind``."""
    if kind == "ndjson":
        return LineFramer()
    return EventFramer() if kind == "sse" else Passthrough()
