"""Moments as people and programs write them (RFC 3339), and as the store has them: milliseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
#: RFC 3339 has four digits for a year, and so has every program that reads it.
EARLIEST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
LATEST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // _MILLISECOND
#: What is said of a text that is no moment.
MUST_BE = "must be a moment of RFC 3339 with its offset, such as 2026-11-28T22:00:00Z, in the years 1 to 9999 of UTC"
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,20}))?(?:([Zz])|([+-][0-9]{2}:[0-9]{2}))"
)


def read(text: str) -> int | None:
    """The moment that ``text`` names; None where it is none, or has no offset and so could be any of many.

    A moment outside of the years 1 to 9999 of UTC, which the offset can bring about, is none: it could not be shown.
    """
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    day, time, fraction, utc, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}.{(fraction or '')[:6]:0<6}{'+00:00' if utc else offset}")
        milliseconds = (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None
    return milliseconds if EARLIEST <= milliseconds <= LATEST else None


def shown(moment: int | None) -> str | None:
    """``moment`` in UTC, with milliseconds; one that no year of four digits has is shown as the nearest that has one."""
    if moment is None:
        return None
    return (
        (_EPOCH + min(max(moment, EARLIEST), LATEST) * _MILLISECOND)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
