"""Features computed one row at a time: plain functions that build and predictor share."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Sequence

LOCAL_TIME = zoneinfo.ZoneInfo("Europe/Copenhagen")
STATIONS = tuple(f"S{number:02d}" for number in range(20))

CLOCK_FEATURES = ("hour_of_day", "day_of_week", "is_weekend")


def clock_features(at_utc: dt.datetime) -> dict[str, float]:
    """What the local clock tells of an hour, in the order of `CLOCK_FEATURES`."""
    local = at_utc.astimezone(LOCAL_TIME)
    return {
        "hour_of_day": float(local.hour),
        "day_of_week": float(local.isoweekday()),
        "is_weekend": float(local.isoweekday() >= 6),
    }


def clock_columns(at_utc: Sequence[dt.datetime]) -> dict[str, list[float]]:
    """`clock_features` of many hours, as columns; Feast hands its own times over without a zone, they mean UTC."""
    rows = [clock_features(time if time.tzinfo else time.replace(tzinfo=dt.UTC)) for time in at_utc]
    return {name: [row[name] for row in rows] for name in CLOCK_FEATURES}
