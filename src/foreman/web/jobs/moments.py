"""Moments as people and programs write them (RFC 3339), and as the store has them: milliseconds since the epoch."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,20}))?(?:([Zz])|([+-][0-9]{2}:[0-9]{2}))"
)


def read(text: str) -> int | None:
    """The moment that ``text`` names; None where it is none, or has no offset and so could be any of many."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    day, time, fraction, utc, offset = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}.{(fraction or '')[:6]:0<6}{'+00:00' if utc else offset}")
        return (moment - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None


def shown(moment: int | None) -> str | None:
    """``moment`` in UTC, with milliseconds."""
    if moment is None:
        return None
    return (_EPOCH + moment * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")
