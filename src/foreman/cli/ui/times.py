"""Read a moment as people write it: a time of day, a day, RFC 3339, or a delay; what has no zone is local."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from foreman.config.parsers import seconds

_DELAY = re.compile(r"\+?((?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+)")
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ Tt]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d)?)?")

_NO_SUCH_TIME = "is a day or a time that does not exist"


def parse_future(text: str, now: datetime) -> datetime:
    """A moment to come: a delay counts from ``now`` on, and a time of day is its next one.

    :param now: with a time zone.
    :raises ValueError: with a phrase, as in ``spellings``.
    """
    return _parse_checked(text, now, 1)


def parse_past(text: str, now: datetime) -> datetime:
    """A moment gone by: a delay counts from ``now`` back, and a time of day is its last one.

    :param now: with a time zone.
    :raises ValueError: with a phrase, as in ``spellings``.
    """
    return _parse_checked(text, now, -1)


def to_rfc3339(moment: datetime) -> str:
    """As foreman reads it: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_rfc3339(text: object) -> datetime | None:
    """A moment as foreman writes it; None for what is none."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def local(moment: datetime) -> datetime:
    """``moment`` in the time zone of this machine; where that would lead out of the years that there are, as it is."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError):
        return moment


def _parse_checked(text: str, now: datetime, direction: int) -> datetime:
    try:
        moment = _parse(text, now, direction)
        to_rfc3339(moment)  # as foreman reads it: there is no year 0 or 10000 in UTC
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
    raise ValueError("is not a moment, such as 22:30, '2026-11-28 22:30', 2026-11-28T22:30:00Z or 10m")
