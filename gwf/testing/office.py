"""Count office time: Monday to Friday, 9 to 18 o'clock in Shanghai."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

from gwf.model import microseconds

#: A fixed offset: no summer time there since 1991, and Windows has no zone data of its own.
SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")

#: Office hours of one week.
WEEK_H = 45.0

_OPENING = timedelta(hours=9)
_HOUR_US = 3_600_000_000
_DAY_US = 9 * _HOUR_US


def after_office_hours(start: datetime, hours: float) -> datetime:
    """Return the instant that lies so many office hours later: Monday to Friday, 9 to 18."""
    return _from_office_us(_office_us(start) + round(hours * _HOUR_US))


def _office_us(instant: datetime) -> int:
    """Return the office time from Monday 0001-01-01 to this instant."""
    local = instant.astimezone(SHANGHAI)
    weeks, weekday = divmod(local.toordinal() - 1, 7)
    if weekday >= 5:
        return (weeks + 1) * 5 * _DAY_US
    midnight = datetime(local.year, local.month, local.day, tzinfo=SHANGHAI)
    today = microseconds(midnight + _OPENING, local)
    return (weeks * 5 + weekday) * _DAY_US + min(max(today, 0), _DAY_US)


def _from_office_us(office_us: int) -> datetime:
    days, today = divmod(office_us, _DAY_US)
    weeks, weekday = divmod(days, 5)
    day = date.fromordinal(weeks * 7 + weekday + 1)
    opening = datetime(day.year, day.month, day.day, tzinfo=SHANGHAI) + _OPENING
    return (opening + timedelta(microseconds=today)).astimezone(UTC)
