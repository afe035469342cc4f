"""What a good day of each table looks like. Every day of 2013 is one, but for the one that docs/data.md tells of."""

from __future__ import annotations

import datetime as dt

import polars as pl

from pipelines.data.checks import ColumnRule, Freshness, RowRule, TableRules, Volume
from pipelines.flights.times import UTC

ORIGINS = ("EWR", "JFK", "LGA")
AIRPORT = r"^[A-Z]{3}$"

FLIGHTS = TableRules(
    columns={
        "flight_id": ColumnRule(pl.String, pattern=r"^\d{4}-\d{2}-\d{2}-[A-Z0-9]{2}\d{1,4}-[A-Z]{3}$"),
        "day": ColumnRule(pl.Date),
        "carrier": ColumnRule(pl.String, pattern=r"^[A-Z0-9]{2}$"),
        "flight": ColumnRule(pl.Int32, low=1, high=9999),
        "origin": ColumnRule(pl.String, allowed=ORIGINS),
        "dest": ColumnRule(pl.String, pattern=AIRPORT),
        "tailnum": ColumnRule(pl.String, null_share=0.5),  # cancelled flights often have none
        "planned_tailnum": ColumnRule(pl.String, null_share=0.1),
        "sched_dep_utc": ColumnRule(UTC),
        "sched_arr_utc": ColumnRule(UTC),
        "distance_mi": ColumnRule(pl.Float32, low=10, high=6000),
        "dep_delay_min": ColumnRule(pl.Float32, low=-60, high=2000, null_share=0.9),  # the snow of 8 February: 51 %
        "arr_delay_min": ColumnRule(pl.Float32, low=-120, high=2000, null_share=0.9),
        "cancelled": ColumnRule(pl.Boolean),
        "diverted": ColumnRule(pl.Boolean),
        "departed_at_utc": ColumnRule(UTC, null_share=0.9),
        "landed_at_utc": ColumnRule(UTC, null_share=0.9),
        "known_at_utc": ColumnRule(UTC),
        "event_time": ColumnRule(UTC),
        "ingested_at": ColumnRule(UTC),
    },
    unique=("flight_id",),
    rows=(
        RowRule(
            "cancelled means not departed",
            pl.col("cancelled") == pl.col("departed_at_utc").is_null(),
            "a cancelled flight has no departure, every other flight has one",
        ),
        RowRule(
            "delay means departed",
            pl.col("dep_delay_min").is_null() == pl.col("departed_at_utc").is_null(),
            "departure delay and departure time are there together",
        ),
        RowRule(
            "diverted means no arrival delay",
            pl.col("arr_delay_min").is_null() == (pl.col("cancelled") | pl.col("diverted")),
            "arrival delay is missing for cancelled and diverted flights only",
        ),
        RowRule(
            "lands after departing",
            pl.col("landed_at_utc") > pl.col("departed_at_utc"),
            "landing is after departure",
        ),
        RowRule(
            "arrives after departing, as scheduled",
            pl.col("sched_arr_utc") > pl.col("sched_dep_utc"),
            "scheduled arrival is after scheduled departure",
        ),
        RowRule(
            "not known before it happened",
            (pl.col("ingested_at") >= pl.col("known_at_utc"))
            & (pl.col("known_at_utc") >= pl.coalesce("landed_at_utc", "departed_at_utc", "sched_dep_utc")),
            "ingested_at >= known_at_utc >= landing",
        ),
    ),
    volume=Volume(min_rows=400, max_rows=1600),
    freshness=Freshness(max_lag=dt.timedelta(hours=24)),
)

WEATHER = TableRules(
    columns={
        "origin": ColumnRule(pl.String, allowed=ORIGINS),
        "observed_hour_utc": ColumnRule(UTC),
        "day": ColumnRule(pl.Date),
        "temp_f": ColumnRule(pl.Float32, low=-40, high=130, null_share=0.2),
        "dewp_f": ColumnRule(pl.Float32, low=-60, high=100, null_share=0.2),
        "humid_pct": ColumnRule(pl.Float32, low=0, high=100, null_share=0.2),
        "wind_dir_deg": ColumnRule(pl.Float32, low=0, high=360, null_share=0.5),
        # The strongest wind ever measured at the ground is 253 mph (Barrow Island, 1996; WMO).
        "wind_speed_mph": ColumnRule(pl.Float32, low=0, high=253, null_share=0.2),
        "wind_gust_mph": ColumnRule(pl.Float32, low=0, high=253, null_share=1.0),  # absent when there is no gust
        "precip_in": ColumnRule(pl.Float32, low=0, high=12, null_share=0.2),
        "pressure_mb": ColumnRule(pl.Float32, low=870, high=1085, null_share=0.8),  # the records on earth
        "visib_mi": ColumnRule(pl.Float32, low=0, high=20, null_share=0.2),
        "event_time": ColumnRule(UTC),
        "ingested_at": ColumnRule(UTC),
    },
    unique=("origin", "observed_hour_utc"),
    volume=Volume(
        min_rows=45, max_rows=75, high_factor=1.5, low_factor=0.6
    ),  # 3 airports x 23 to 25 hours, some missing
    freshness=Freshness(max_lag=dt.timedelta(hours=2)),
)

PLANES = TableRules(
    columns={
        "tailnum": ColumnRule(pl.String, pattern=r"^N[0-9A-Z]{1,5}$"),
        "year": ColumnRule(pl.Int32, low=1903, high=2013, null_share=0.2),
        "type": ColumnRule(pl.String),
        "manufacturer": ColumnRule(pl.String),
        "model": ColumnRule(pl.String),
        "engines": ColumnRule(pl.Int32, low=1, high=8),
        "seats": ColumnRule(pl.Int32, low=1, high=900),
        "speed": ColumnRule(pl.Int32, low=1, high=1000, null_share=1.0),
        "engine": ColumnRule(pl.String),
        "day": ColumnRule(pl.Date),
        "event_time": ColumnRule(UTC),
        "ingested_at": ColumnRule(UTC),
    },
    unique=("tailnum",),
    volume=Volume(min_rows=1000, max_rows=100_000),
    freshness=Freshness(max_lag=dt.timedelta(0)),
)
