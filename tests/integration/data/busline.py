"""A second, tiny use case in a module of its own, as `FLIGHTDECK_USE_CASE=busline:USE_CASE` names it."""

import datetime as dt
import zoneinfo

import polars as pl

from pipelines.data.checks import ColumnRule, Freshness, TableRules, Volume
from pipelines.use_case import SourceTable, UseCase

RULES = TableRules(
    columns={
        "bus": ColumnRule(pl.Int32, low=0, high=99),
        "day": ColumnRule(pl.Date),
        "riders": ColumnRule(pl.Int32, low=0, high=90),
        "event_time": ColumnRule(pl.Datetime("us", "UTC")),
        "ingested_at": ColumnRule(pl.Datetime("us", "UTC")),
    },
    unique=("bus", "day"),
    volume=Volume(min_rows=3, max_rows=100),
    freshness=Freshness(max_lag=dt.timedelta(hours=12)),
)
BUSES = 50


def read_day(day: dt.date) -> pl.DataFrame:
    start = dt.datetime.combine(day, dt.time(10), dt.UTC)
    return pl.DataFrame(
        {
            "bus": range(BUSES),
            "day": [day] * BUSES,
            "riders": [999 if day == dt.date(2020, 1, 7) and bus == 3 else bus for bus in range(BUSES)],  # a bad day
            "event_time": [start] * BUSES,
            "ingested_at": [start + dt.timedelta(minutes=bus) for bus in range(BUSES)],
        },
        schema={name: rule.dtype for name, rule in RULES.columns.items()},
    )


USE_CASE = UseCase(
    name="busline",
    tables=(SourceTable("rides", ("bus", "day"), read_day, RULES),),
    first_day=dt.date(2020, 1, 1),
    last_day=dt.date(2020, 1, 30),
    time_zone=zoneinfo.ZoneInfo("UTC"),
    entity_frame=lambda *_: pl.DataFrame(),
)
