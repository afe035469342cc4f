"""A tiny second use case, small enough to check by hand: buses that pass a stop."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Callable

import polars as pl
import pytest

from pipelines.data.checks import ColumnRule, Freshness, RowRule, TableRules, Volume
from pipelines.data.lake import Lake
from pipelines.use_case import SourceTable, UseCase

UTC = pl.Datetime("us", "UTC")
FIRST, LAST = dt.date(2020, 1, 1), dt.date(2020, 1, 20)

RULES = TableRules(
    columns={
        "bus": ColumnRule(pl.String, pattern=r"^b\d+$"),
        "day": ColumnRule(pl.Date),
        "riders": ColumnRule(pl.Int32, low=0, high=90, null_share=0.5),
        "event_time": ColumnRule(UTC),
        "ingested_at": ColumnRule(UTC),
    },
    unique=("bus", "day"),
    rows=(RowRule("known after", pl.col("ingested_at") > pl.col("event_time"), "ingested_at is after event_time"),),
    volume=Volume(min_rows=3, max_rows=20, min_history=3),
    freshness=Freshness(max_lag=dt.timedelta(hours=12), lag_share=0.9, complete_after=dt.timedelta(hours=6)),
)


def bus_day(day: dt.date, riders: int | None = 10, buses: int = 10) -> pl.DataFrame:
    """Bus i passes at 10:00 UTC plus i minutes and is reported an hour later."""
    start = dt.datetime.combine(day, dt.time(10), dt.UTC)
    passed = [start + dt.timedelta(minutes=number) for number in range(buses)]
    return pl.DataFrame(
        {
            "bus": [f"b{number}" for number in range(buses)],
            "day": [day] * buses,
            "riders": [riders] * buses,
            "event_time": passed,
            "ingested_at": [at + dt.timedelta(hours=1) for at in passed],
        },
        schema={name: rule.dtype for name, rule in RULES.columns.items()},
    )


def use_case(read_day: Callable[[dt.date], pl.DataFrame] = bus_day, table: str = "buses") -> UseCase:
    return UseCase(
        name="buses",
        tables=(SourceTable(table, ("bus", "day"), read_day, RULES),),
        first_day=FIRST,
        last_day=LAST,
        time_zone=zoneinfo.ZoneInfo("Europe/Berlin"),
        entity_frame=lambda *_: pl.DataFrame(),
    )


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def quarantine_root(tmp_path):
    return tmp_path / "quarantine"


@pytest.fixture
def buses() -> Callable[..., UseCase]:
    """`buses(read_day)` is the use case whose days `read_day` gives."""
    return use_case


@pytest.fixture
def bus_frame() -> Callable[..., pl.DataFrame]:
    return bus_day


@pytest.fixture
def bus_rules() -> TableRules:
    return RULES


@pytest.fixture(scope="session")
def buses_of() -> Callable[[tuple[int, ...]], UseCase]:
    """`buses_of((7, 0, 2))` is the use case in which bus 0 has 7 riders, bus 1 none and bus 2 two, on every day."""

    def with_riders(riders: tuple[int, ...]) -> UseCase:
        column = pl.Series("riders", riders, dtype=pl.Int32)
        return use_case(lambda day: bus_day(day, buses=len(riders)).with_columns(column))

    return with_riders
