"""Parse times as people write them: a time of day, a date, RFC 3339, or a delay; without a zone they are local."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from foreman.config.parsers import seconds

_DELAY = re.compile(r"\+?((?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+)")
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ Tt]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d)?)?")

_NO_SUCH_TIME = "is a date or a time that does not exist"


def parse_future(text: str, now: datetime) -> datetime:
    """Parse a time in the future: a delay counts from ``now``, a time of day is its next occurrence.

    :param now: with a time zone.
    :raises ValueError: with a phrase, as the parsers of ``config.parsers``.
    """
    return _parse_checked(text, now, 1)


def parse_past(text: str, now: datetime) -> datetime:
    """Parse a time in the past: a delay counts back from ``now``, a time of day is its last occurrence.

    :param now: with a time zone.
    :raises ValueError: with a phrase, as the parsers of ``config.parsers``.
    """
    return _parse_checked(text, now, -1)


def to_rfc3339(moment: datetime) -> str:
    """The time in RFC 3339, in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_rfc3339(text: object) -> datetime | None:
    """Parse a time that foreman has written; None if it is not one."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def local(moment: datetime) -> datetime:
    """``moment`` in the local time zone; unchanged if that is out of the range of years."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):
        return moment


def _parse_checked(text: str, now: datetime, direction: int) -> datetime:
    try:
        moment = _parse(text, now, direction)
        to_rfc3339(moment)  # the year must be 1 to 9999 in UTC, too
    except OverflowError:
        raise ValueError(_NO_SUCH_TIME) from None
    return moment


def _parse(text: str, now: datetime, direction: int) -> datetime:
    text = text.strip()
    if delay := _DELAY.fullmatch(text):
        return now + direction * timedelta(seconds=seconds(delay[1]))
    if clock := _TIME_OF_DAY.fullmatch(text):
        of_day = time(int(clock[1]), int(clock[2]), int(clock[3] or 0))
        date = now.astimezone().date()
        today = datetime.combine(date, of_day).astimezone()
        if (today - now).total_seconds() * direction >= 0:
            return today
        return datetime.combine(date + direction * timedelta(days=1), of_day).astimezone()
    if _DATE.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper())
            return moment if moment.tzinfo is not None else moment.astimezone()
        except ValueError:
            raise ValueError(_NO_SUCH_TIME) from None
    raise ValueError("is not a time, such as 22:30, '2026-11-28 22:30', 2026-11-28T22:30:00Z or 10m")
