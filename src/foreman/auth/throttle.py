"""A brake on guessing tokens: whoever sends many that are not known is told to wait, for longer and longer."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

from attrs import define, field
from twisted.logger import Logger

#: So many unknown tokens of one address are answered at once; one more every ``PAUSE`` seconds.
FREE = 10
PAUSE = 6.0
#: The longest that an address is told to wait, in seconds.
LONGEST = 300.0
#: The most addresses that are remembered; the one that has guessed least recently is forgotten first.
ADDRESSES = 4096
#: How often it is logged that somebody guesses, in seconds.
BETWEEN_LINES = 60.0


@define(eq=False)
class GuessThrottle:
    """Counts unknown tokens by the address that they come from. Known tokens are none of its business."""

    _guesses: OrderedDict[str, tuple[float, float]] = field(factory=OrderedDict, init=False)
    _unsaid: int = field(default=0, init=False)
    _said_at: float | None = field(default=None, init=False)
    _log = Logger()

    def guessed(self, address: str, now: float) -> int:
        """An unknown token has come from ``address``.

        :param now: in seconds, by a clock that does not step.
        :return: how long the address is to wait, in seconds; 0: it is told that its token is unknown.
        """
        count, at = self._guesses.pop(address, (0.0, now))
        count = min(max(0.0, count - (now - at) / PAUSE) + 1, FREE + LONGEST / PAUSE)
        self._guesses[address] = count, now
        if len(self._guesses) > ADDRESSES:
            self._guesses.popitem(last=False)
        if count <= FREE:
            return 0
        self._say(address, now)
        return ceil((count - FREE) * PAUSE)

    def _say(self, address: str, now: float) -> None:
        self._unsaid += 1
        if self._said_at is None or now - self._said_at >= BETWEEN_LINES:
            self._log.warn(
                "{count} requests with unknown tokens were told to wait, the last one from {address}",
                count=self._unsaid,
                address=address,
            )
            self._unsaid, self._said_at = 0, now
