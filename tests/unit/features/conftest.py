import datetime as dt
from collections.abc import Callable
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

UTC = pl.Datetime("us", "UTC")
FLIGHTS = {
    "flight_id": pl.String,
    "day": pl.Date,
    "carrier": pl.String,
    "flight": pl.Int32,
    "origin": pl.String,
    "dest": pl.String,
    "tailnum": pl.String,
    "planned_tailnum": pl.String,
    "sched_dep_utc": UTC,
    "sched_arr_utc": UTC,
    "distance_mi": pl.Float32,
    "dep_delay_min": pl.Float32,
    "arr_delay_min": pl.Float32,
    "cancelled": pl.Boolean,
    "diverted": pl.Boolean,
    "departed_at_utc": UTC,
    "landed_at_utc": UTC,
    "known_at_utc": UTC,
    "event_time": UTC,
    "ingested_at": UTC,
}


def make_flights(*rows: dict[str, Any]) -> pa.Table:
    """Flights of two hours from `sched_dep_utc` and the delays given; whatever a row states wins."""
    full = []
    for number, row in enumerate(rows):
        sched = row["sched_dep_utc"]
        cancelled = row.get("cancelled", False)
        dep_delay, arr_delay = (
            (None, None) if cancelled else (row.get("dep_delay_min", 0.0), row.get("arr_delay_min", 0.0))
        )
        departed = None if cancelled else sched + dt.timedelta(minutes=dep_delay)
        landed = None if cancelled else sched + dt.timedelta(hours=2, minutes=arr_delay)
        known = sched + dt.timedelta(hours=1) if cancelled else landed
        full.append(
            {
                "flight_id": f"f{number}",
                "day": sched.date(),
                "carrier": "UA",
                "flight": number + 1,
                "origin": "EWR",
                "dest": "IAH",
                "tailnum": "N1",
                "planned_tailnum": "N1",
                "sched_arr_utc": sched + dt.timedelta(hours=2),
                "distance_mi": 1400.0,
                "dep_delay_min": dep_delay,
                "arr_delay_min": arr_delay,
                "cancelled": cancelled,
                "diverted": False,
                "departed_at_utc": departed,
                "landed_at_utc": landed,
                "known_at_utc": known,
                "event_time": sched,
                "ingested_at": row.get("ingested_at", known),
                **row,
            }
        )
    return pl.DataFrame(full, schema=FLIGHTS).to_arrow()


@pytest.fixture(scope="session")
def flights() -> Callable[..., pa.Table]:
    return make_flights
