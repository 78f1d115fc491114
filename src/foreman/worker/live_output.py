"""The lines of a job's answer while it arrives, for the streams that follow it."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from foreman.util.waiters import Waiters


@define(eq=False)
class LiveOutput:
    """The answer of one attempt so far.

    :ivar attempt: the number of the attempt (the claim's fence); :ivar lines: whole, with their line ends;
    :ivar ended: no more lines follow.
    """

    attempt: int
    lines: list[bytes] = field(factory=list)
    ended: bool = False
    _changed: Waiters[None] = field(factory=Waiters, init=False)

    def add(self, line: bytes) -> None:
        """Append the next line."""
        self.lines.append(line)
        self._changed.fire(None)

    def end(self) -> None:
        """No more lines follow."""
        self.ended = True
        self._changed.fire(None)

    def when_more(self, seen: int) -> Deferred[None]:
        """Fires when there are more than ``seen`` lines, or no more follow; at once if that is so already."""
        return succeed(None) if self.ended or len(self.lines) > seen else self._changed.wait()
