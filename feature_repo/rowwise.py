"""Features computed one row or one event at a time: plain functions that build, stream and predictor share.

Imports the standard library only, so that the hot path of the predictor stays light.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo

LOCAL_TIME = zoneinfo.ZoneInfo("America/New_York")  # of all three origins

# Stable codes: append only. Reordering or removing an entry changes what trained models see.
ORIGINS = ("EWR", "JFK", "LGA")
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
UNKNOWN_CODE = -1.0
_CARRIER_CODE = {carrier: float(code) for code, carrier in enumerate(CARRIERS)}

CALENDAR_FEATURES = (
    "dep_minute_of_day",
    "dep_day_of_week",
    "dep_day_of_year",
    "is_holiday_window",
    "origin_ewr",
    "origin_jfk",
    "origin_lga",
    "carrier_code",
)


def calendar_features(carrier: str, origin: str, sched_dep_utc: dt.datetime) -> dict[str, float]:
    """What the schedule alone tells of a flight, in the order of `CALENDAR_FEATURES`.

    Local time is New York's, where all origins are. A carrier outside the table has code -1.

    Raises:
        ValueError: `sched_dep_utc` has no time zone.
    """
    if sched_dep_utc.tzinfo is None:
        raise ValueError(f"sched_dep_utc must be timezone-aware; got {sched_dep_utc.isoformat()}")
    local = sched_dep_utc.astimezone(LOCAL_TIME)
    return {
        "dep_minute_of_day": float(local.hour * 60 + local.minute),
        "dep_day_of_week": float(local.isoweekday()),
        "dep_day_of_year": float(local.timetuple().tm_yday),
        "is_holiday_window": float(is_holiday_window(local.date())),
        "origin_ewr": float(origin == "EWR"),
        "origin_jfk": float(origin == "JFK"),
        "origin_lga": float(origin == "LGA"),
        "carrier_code": _CARRIER_CODE.get(carrier, UNKNOWN_CODE),
    }


def local_day(sched_dep_utc: dt.datetime) -> dt.date:
    """The day a flight belongs to: that of its scheduled departure in New York."""
    return sched_dep_utc.astimezone(LOCAL_TIME).date()


@functools.lru_cache(maxsize=4096)
def is_holiday_window(day: dt.date) -> bool:
    """Whether US travel is unusually heavy: within two days of a long-weekend holiday, or 20 December to 3 January."""
    if (day.month, day.day) >= (12, 20) or (day.month, day.day) <= (1, 3):
        return True
    return any(abs((day - holiday).days) <= 2 for holiday in _travel_holidays(day.year))


@functools.lru_cache(maxsize=64)
def _travel_holidays(year: int) -> tuple[dt.date, ...]:
    """Memorial Day, Independence Day, Labor Day and Thanksgiving (5 U.S.C. 6103)."""
    last_of_may = dt.date(year, 5, 31)
    first_of_september = dt.date(year, 9, 1)
    first_of_november = dt.date(year, 11, 1)
    return (
        last_of_may - dt.timedelta(days=last_of_may.weekday()),
        dt.date(year, 7, 4),
        first_of_september + dt.timedelta(days=-first_of_september.weekday() % 7),
        first_of_november + dt.timedelta(days=(3 - first_of_november.weekday()) % 7 + 21),
    )
