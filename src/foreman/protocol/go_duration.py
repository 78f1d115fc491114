"""Parse durations as Go's ``time.ParseDuration`` does: ``1h30m``, ``-1.5s``, ``0``."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_STEP = r"(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"[-+]?(?:0|(?:{_STEP})+)")
_DURATION_STEP = re.compile(_STEP)
#: The largest duration in Go, in nanoseconds; and how many digits a number may have.
_LONGEST = 2**63 - 1
_MAX_DIGITS = 1000


def nanoseconds(duration: str) -> int:
    """The size of ``duration``, without its sign.

    :raises ValueError: where Go refuses it, or it has too many digits.
    """
    if _DURATION.fullmatch(duration) is None:
        raise ValueError(duration)
    total = 0
    for whole, fraction, bare_fraction, unit in _DURATION_STEP.findall(duration):
        digits = fraction or bare_fraction
        if len(whole) > _MAX_DIGITS or len(digits) > _MAX_DIGITS:
            raise ValueError(duration)
        total += int(whole or 0) * _UNITS[unit] + int(digits or 0) * _UNITS[unit] // 10 ** len(digits)
    if total > _LONGEST:
        raise ValueError(duration)
    return total
