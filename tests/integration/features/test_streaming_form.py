"""The streaming forms on real days: fed event by event, they give the rows that the lake's build gives."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from feature_repo.rowwise import (
    CANCELLATION_KNOWN_AFTER,
    ORIGINS,
    OVERDUE_FEATURES,
    CongestionWindow,
    OverdueFlights,
)
from feature_repo.transforms import CONGESTION_FEATURES
from pipelines.features.build import feature_table

pytestmark = pytest.mark.xdist_group("feast")  # its import and the state folder cost seconds, once

FROM, UNTIL = dt.datetime(2013, 1, 6, tzinfo=dt.UTC), dt.datetime(2013, 1, 10, tzinfo=dt.UTC)


def test_streamed_congestion_equals_the_built_one_on_four_real_days(lake):
    flights = pl.from_arrow(
        lake.read("flights", columns=["origin", "sched_dep_utc", "departed_at_utc", "dep_delay_min"])
    )
    events = sorted(
        (departed or sched + CANCELLATION_KNOWN_AFTER, origin, sched, departed, delay)
        for origin, sched, departed, delay in flights.iter_rows()
    )
    built = pl.from_arrow(lake.read(feature_table("congestion"))).filter(
        pl.col("event_timestamp").is_between(FROM, UNTIL)
    )
    windows = {origin: CongestionWindow() for origin in ORIGINS}
    told = 0
    for row in built.sort("event_timestamp").iter_rows(named=True):
        while told < len(events) and events[told][0] <= row["event_timestamp"]:
            _, origin, sched, departed, delay = events[told]
            if departed is None:
                windows[origin].cancelled(sched)
            else:
                windows[origin].departed(departed, delay)
            told += 1
        streamed = windows[row["origin"]].snapshot(row["event_timestamp"])
        assert {name: np.float32(value) for name, value in streamed.items()} == {
            name: np.float32(row[name]) for name in CONGESTION_FEATURES
        }, row
    assert built.height == 3 * (4 * 48 + 1)
    assert built["cancellations_3h"].sum() > 0
    assert told > 2000


def test_streamed_overdue_flights_equal_the_built_ones_on_four_real_days(lake):
    flights = pl.from_arrow(lake.read("flights", columns=["flight_id", "origin", "sched_dep_utc", "departed_at_utc"]))
    built = pl.from_arrow(lake.read(feature_table("overdue"))).filter(pl.col("event_timestamp").is_between(FROM, UNTIL))
    streamed = OverdueFlights()
    for flight, origin, sched, departed in flights.iter_rows():
        streamed.scheduled(flight, origin, sched)
        if departed is None:
            streamed.cancelled(flight, sched)
        else:
            streamed.departed(flight, departed)
    for (at,), rows in built.sort("event_timestamp").group_by("event_timestamp", maintain_order=True):
        assert streamed.snapshot(at) == {
            row["origin"]: {name: row[name] for name in OVERDUE_FEATURES} for row in rows.iter_rows(named=True)
        }, at
    assert built.height == 3 * (4 * 48 + 1)
    assert built["overdue_flights"].max() > 5
