"""The lines of a job's answer while it comes, for those who follow it."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class LiveOutput:
    """What one try of a job has said so far.

    :ivar attempt: the number of the try (the claim's fence); :ivar lines: whole, with their line ends;
    :ivar ended: nothing more comes.
    """

    attempt: int
    lines: list[bytes] = field(factory=list)
    ended: bool = False
    _waiting: dict[Deferred[None], None] = field(factory=dict, init=False)

    def add(self, line: bytes) -> None:
        """The next line."""
        self.lines.append(line)
        self._ring()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = True
        self._ring()

    def when_more(self, seen: int) -> Deferred[None]:
        """Fires when there are more than ``seen`` lines, or there will be none, at once if that is so already."""
        more: Deferred[None] = Deferred(lambda _: self._waiting.pop(more, None))
        if self.ended or len(self.lines) > seen:
            more.callback(None)
        else:
            self._waiting[more] = None
        return more

    def _ring(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if not one.called:  # an earlier one, on hearing it, may have made this one leave
                one.callback(None)
