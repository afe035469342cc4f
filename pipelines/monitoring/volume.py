"""How many rows a day brings, against the weeks before it. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np

from flightdeck.contracts.alarm import Check, Kind, Remedy, Status
from pipelines.monitoring.finding import Finding, Found, no_data
from pipelines.monitoring.watch import Watch


def volume(of: Watch, day: int, rows_of_days: Mapping[int, int]) -> Found:
    """Far fewer rows than on such a day; judged by the traffic of the last five weeks, since training is no traffic.

    Args:
        day: ordinal; without rows it counts as 0.
        rows_of_days: rows of the days before, and of this one.
    """
    before = {at: rows for at, rows in rows_of_days.items() if day - 35 <= at < day}
    same = [rows for at, rows in before.items() if (day - at) % 7 == 0]
    usual = same if len(same) >= 2 else list(before.values())
    if len(before) < 7:
        return no_data(Kind.VOLUME, "rows", f"{len(before)} earlier days with rows; 7 are needed to say what is usual")
    expected, rows = float(np.median(usual)), rows_of_days.get(day, 0)
    value, threshold = rows / expected, of.least_volume / 2
    reason = f"{rows:,} rows; {expected:,.0f} are usual"
    short = value < threshold
    check = Check(
        kind=Kind.VOLUME,
        subject="rows",
        status=Status.ALARM if short else Status.OK,
        value=value,
        threshold=threshold,
        reason=reason,
    )
    finding = Finding(
        kind=Kind.VOLUME, subject="rows", since=_volume_since(before, expected * threshold, day), rows=rows,
        value=value, threshold=threshold, sentence=reason,
        how_sure=f"the thinnest training day had {of.least_volume:.0%} of its weekday's rows, the limit is half of it",
        what_to_do="look whether users are cut off, a replica is gone or the prediction log drops rows",
        remedy=Remedy.INCIDENT,
    )  # fmt: skip
    return Found([check], [finding] if short else [])


def _volume_since(before: Mapping[int, int], least: float, day: int) -> dt.date:
    while day - 1 in before and before[day - 1] < least:
        day -= 1
    return dt.date.fromordinal(day)
