"""The entities to predict, and their labels, out of the lake. The rules are told in docs/data.md."""

from __future__ import annotations

import datetime as dt

import polars as pl

from pipelines.data.lake import Lake
from pipelines.flights.times import HORIZON, LATE_FROM_MIN, SOURCE_ZONE

UNKNOWN_PLANE = "UNKNOWN"
COLUMNS = [
    "flight_id", "carrier", "flight", "origin", "dest", "planned_tailnum", "sched_dep_utc", "sched_arr_utc",
    "distance_mi", "dep_delay_min", "arr_delay_min", "cancelled", "diverted", "known_at_utc", "ingested_at",
]  # fmt: skip


def entity_frame(lake: Lake, from_utc: dt.datetime, until_utc: dt.datetime, known_by_utc: dt.datetime) -> pl.DataFrame:
    """Flights whose prediction time lies in [from, until) and whose outcome was known by `known_by_utc`.

    Returns:
        One row per flight, ordered by (event_timestamp, entity_id): `row_id` int64 from 0, `entity_id`, the join keys
        `carrier`, `origin`, `dest`, `tailnum` (the planned plane), the on-demand inputs `flight`, `sched_dep_utc`,
        `sched_arr_utc`, `distance_mi`, the slice column `hour` (New York clock of scheduled departure),
        `event_timestamp` (two hours before scheduled departure), `label_late` int8, `label_dep_delay_min` float32
        (null when cancelled), `label_known_at_utc`. No other outcome column.
    Raises:
        LakeError: there is no table `flights` yet.
        ValueError: a time without time zone.
    """
    for name, value in (("from_utc", from_utc), ("until_utc", until_utc), ("known_by_utc", known_by_utc)):
        if value.tzinfo is None:
            raise ValueError(f"entity_frame: {name} needs a time zone; got {value}")
    first, last = ((value + HORIZON).date() for value in (from_utc, until_utc))
    margin = dt.timedelta(days=1)  # the local day may be the day before the UTC one
    flights = pl.from_arrow(
        lake.as_of(
            "flights", known_by_utc, ["flight_id"], columns=COLUMNS,
            filters=[("day", ">=", first - margin), ("day", "<=", last + margin)],
        )
    )  # fmt: skip
    assert isinstance(flights, pl.DataFrame)
    event = pl.col("sched_dep_utc") - HORIZON
    return (
        flights.filter((event >= from_utc) & (event < until_utc), pl.col("known_at_utc") <= known_by_utc)
        .select(
            "carrier", "origin", "dest", "flight", "sched_dep_utc", "sched_arr_utc", "distance_mi",
            entity_id="flight_id",
            tailnum=pl.col("planned_tailnum").fill_null(UNKNOWN_PLANE),
            hour=pl.col("sched_dep_utc").dt.convert_time_zone(SOURCE_ZONE).dt.hour().cast(pl.Int32),
            event_timestamp=event,
            label_late=late().cast(pl.Int8),
            label_dep_delay_min=pl.col("dep_delay_min"),
            label_known_at_utc=pl.max_horizontal("known_at_utc", "ingested_at"),
        )
        .sort("event_timestamp", "entity_id")
        .with_columns(row_id=pl.int_range(pl.len(), dtype=pl.Int64))
        .select("row_id", "entity_id", pl.exclude("row_id", "entity_id"))
    )  # fmt: skip


def late() -> pl.Expr:
    """Whether a flight counts as late: 15 minutes or more at arrival, or cancelled, or diverted."""
    return pl.col("cancelled") | pl.col("diverted") | (pl.col("arr_delay_min") >= LATE_FROM_MIN).fill_null(value=False)
