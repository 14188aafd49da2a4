"""When a digest comes next. Pure: the time is an argument."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo


def next_time(now: int, every: str, minute_of_day: int, zone: str) -> int:
    """The first time after `now` at which it is that many minutes after midnight by the zone's clock: on any day
    ("day"), or on the day of a week ("week:0", a Monday).

    A time that the clock leaves out in spring is taken an hour later, one that comes twice in autumn the first time.
    """
    place = ZoneInfo(zone)
    today = datetime.fromtimestamp(now / 1000, UTC).astimezone(place).date()
    weekday = int(every.partition(":")[2]) if every.startswith("week:") else None
    for days in range(-1, 9):
        day = today + timedelta(days=days)
        if weekday is not None and day.weekday() != weekday:
            continue
        moment = datetime.combine(day, time(minute_of_day // 60, minute_of_day % 60), place)
        ts = int(moment.astimezone(UTC).timestamp() * 1000)
        if ts > now:
            return ts
    raise AssertionError("every day comes within nine days")
