"""Timestamps in RFC 3339, as people and programs write them, and in milliseconds since the epoch, as the store keeps them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from foreman.util.clock import EpochMs

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
#: RFC 3339 writes a year with four digits, and programs that read it expect no more.
EARLIEST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
LATEST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - _EPOCH) // _MILLISECOND
#: What a text must be that ``parse`` refuses, as a phrase.
EXPECTED = "must be an RFC 3339 timestamp with an offset, such as 2026-11-28T22:00:00Z, in the years 1 to 9999 in UTC"
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,20}))?(?:([Zz])|([+-][0-9]{2}:[0-9]{2}))"
)


def parse(text: str) -> EpochMs | None:
    """The timestamp ``text`` in milliseconds since the epoch; None where it is not one, or has no offset.

    None, too, where its offset leads out of the years 1 to 9999 in UTC: ``format_ms`` could not write it.
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
    return EpochMs(milliseconds) if EARLIEST <= milliseconds <= LATEST else None


def format_ms(moment: int | None) -> str | None:
    """``moment`` (milliseconds since the epoch) in RFC 3339, UTC, with milliseconds; outside of the years 1 to 9999, the
    nearest moment within them.
    """
    if moment is None:
        return None
    return (
        (_EPOCH + min(max(moment, EARLIEST), LATEST) * _MILLISECOND)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
