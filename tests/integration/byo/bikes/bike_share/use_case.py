"""The use case: will a bike station be full, asked half an hour before?"""

from __future__ import annotations

import datetime as dt

import polars as pl

from bike_share import source
from pipelines.data.checks import ColumnRule, Freshness, TableRules, Volume
from pipelines.data.lake import Lake
from pipelines.use_case import SourceTable, UseCase

HORIZON = dt.timedelta(minutes=30)
UTC = pl.Datetime("us", "UTC")

READINGS = TableRules(
    columns={
        "station": ColumnRule(pl.String, pattern=r"^S\d{2}$"),
        "hour_utc": ColumnRule(UTC),
        "bikes": ColumnRule(pl.Int32, low=0, high=40),
        "full": ColumnRule(pl.Boolean),
        "day": ColumnRule(pl.Date),
        "event_time": ColumnRule(UTC),
        "ingested_at": ColumnRule(UTC),
    },
    unique=("station", "hour_utc"),
    volume=Volume(min_rows=23 * source.STATIONS, max_rows=25 * source.STATIONS),
    freshness=Freshness(max_lag=dt.timedelta(hours=1)),
)
STATIONS = TableRules(
    columns={
        "station": ColumnRule(pl.String, pattern=r"^S\d{2}$"),
        "docks": ColumnRule(pl.Int32, low=1, high=40),
        "day": ColumnRule(pl.Date),
        "event_time": ColumnRule(UTC),
        "ingested_at": ColumnRule(UTC),
    },
    unique=("station",),
    volume=Volume(min_rows=1, max_rows=1000),
    freshness=Freshness(max_lag=dt.timedelta(0)),
)


def entity_frame(lake: Lake, from_utc: dt.datetime, until_utc: dt.datetime, known_by_utc: dt.datetime) -> pl.DataFrame:
    """Station hours whose prediction time lies in [from, until) and whose outcome was known by `known_by_utc`."""
    margin = dt.timedelta(days=1)
    days = [("day", ">=", (from_utc - margin).date()), ("day", "<=", (until_utc + margin).date())]
    rows = pl.from_arrow(lake.as_of("readings", known_by_utc, ["station", "hour_utc"], filters=days))
    assert isinstance(rows, pl.DataFrame)
    event = pl.col("hour_utc") - HORIZON
    return (
        rows.filter((event >= from_utc) & (event < until_utc))
        .select(
            "station",
            entity_id=pl.concat_str("station", pl.lit("@"), pl.col("hour_utc").dt.strftime("%Y-%m-%dT%HZ")),
            at_utc="hour_utc",
            hour=pl.col("hour_utc").dt.convert_time_zone(source.ZONE.key).dt.hour().cast(pl.Int32),
            event_timestamp=event,
            label_full=pl.col("full").cast(pl.Int8),
            label_known_at_utc="ingested_at",
        )
        .sort("event_timestamp", "entity_id")
        .with_columns(row_id=pl.int_range(pl.len(), dtype=pl.Int64))
    )


USE_CASE = UseCase(
    name="bikes",
    tables=(
        SourceTable("stations", ("station",), source.stations_of, STATIONS, static=True),
        SourceTable("readings", ("station", "hour_utc"), source.readings_of, READINGS),
    ),
    first_day=source.FIRST_DAY,
    last_day=source.LAST_DAY,
    time_zone=source.ZONE,
    entity_frame=entity_frame,
)
