"""The throttle on guessing tokens: an address that sends many unknown tokens has to wait, longer with each of them."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

from attrs import define, field
from twisted.logger import Logger

#: How many unknown tokens of one address are answered at once; one more is allowed every ``SECONDS_PER_GUESS``.
FREE_GUESSES = 10
SECONDS_PER_GUESS = 6.0
#: The longest wait of an address, in seconds.
MAX_WAIT = 300.0
#: How many addresses are kept; the one whose last guess is the oldest is dropped first.
MAX_ADDRESSES = 4096
#: Between two log lines about guesses, in seconds.
LOG_INTERVAL = 60.0


@define(eq=False)
class GuessThrottle:
    """Counts unknown tokens for each client address. Known tokens are not counted."""

    _guesses: OrderedDict[str, tuple[float, float]] = field(factory=OrderedDict, init=False)
    _unlogged: int = field(default=0, init=False)
    _logged_at: float | None = field(default=None, init=False)
    _log = Logger()

    def count_guess(self, address: str, now: float) -> int:
        """Count an unknown token from ``address``.

        :param now: in seconds, by the reactor's clock.
        :return: how long the address must wait, in seconds; 0: not at all, and the answer is that the token is unknown.
        """
        count, at = self._guesses.pop(address, (0.0, now))
        count = min(max(0.0, count - (now - at) / SECONDS_PER_GUESS) + 1, FREE_GUESSES + MAX_WAIT / SECONDS_PER_GUESS)
        self._guesses[address] = count, now
        if len(self._guesses) > MAX_ADDRESSES:
            self._guesses.popitem(last=False)
        if count <= FREE_GUESSES:
            return 0
        self._log_guesses(address, now)
        return ceil((count - FREE_GUESSES) * SECONDS_PER_GUESS)

    def _log_guesses(self, address: str, now: float) -> None:
        self._unlogged += 1
        if self._logged_at is None or now - self._logged_at >= LOG_INTERVAL:
            self._log.warn(
                "{count} requests with unknown tokens were refused with 429, most recently one from {address}",
                count=self._unlogged,
                address=address,
            )
            self._unlogged, self._logged_at = 0, now
