"""Adapter: the source, made from a seed so that every run sees the same city."""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo

import numpy as np
import polars as pl

ZONE = zoneinfo.ZoneInfo("Europe/Copenhagen")
FIRST_DAY, LAST_DAY = dt.date(2024, 3, 1), dt.date(2024, 4, 29)  # summer time begins on 31 March
STATIONS = 20
KNOWN_AFTER = dt.timedelta(minutes=5)
SEED = 20240301


@functools.cache
def stations_of(_day: dt.date) -> pl.DataFrame:
    """All stations, known since the first day."""
    start = pl.lit(dt.datetime.combine(FIRST_DAY, dt.time(), ZONE)).dt.convert_time_zone("UTC")
    return pl.DataFrame(
        {
            "station": [f"S{number:02d}" for number in range(STATIONS)],
            "docks": pl.Series([12 + number % 5 * 4 for number in range(STATIONS)], dtype=pl.Int32),
        }
    ).with_columns(day=pl.lit(FIRST_DAY), event_time=start, ingested_at=start)


def readings_of(day: dt.date) -> pl.DataFrame:
    """Hourly readings of the local `day`."""
    return _days()[day]


@functools.cache
def _days() -> dict[dt.date, pl.DataFrame]:
    start = dt.datetime.combine(FIRST_DAY, dt.time(), ZONE).astimezone(dt.UTC)
    end = dt.datetime.combine(LAST_DAY + dt.timedelta(days=1), dt.time(), ZONE).astimezone(dt.UTC)
    hours = [start + dt.timedelta(hours=number) for number in range(int((end - start) / dt.timedelta(hours=1)))]
    local = [hour.astimezone(ZONE) for hour in hours]
    daytime = np.array([np.cos((hour.hour - 13) / 24 * 2 * np.pi) for hour in local])
    workday = np.array([1.0 if hour.isoweekday() < 6 else 0.3 for hour in local])
    generator = np.random.default_rng(SEED)
    stations, frames = stations_of(FIRST_DAY), []
    for number, (name, docks) in enumerate(stations.select("station", "docks").iter_rows()):
        sways = np.zeros(len(hours))  # what the clock does not tell: it fades over hours, so the newest reading helps
        for at in range(1, len(hours)):
            sways[at] = 0.9 * sways[at - 1] + generator.normal(0, 0.1)
        office = 1 if number % 2 else -1  # offices fill by day, homes by night
        level = np.clip(0.6 + 0.3 * office * daytime * workday + sways, 0, 1)
        bikes = np.rint(level * docks).astype(np.int32)
        frames.append(
            pl.DataFrame(
                {"station": [name] * len(hours), "hour_utc": hours, "bikes": bikes, "full": bikes == docks},
                schema_overrides={"hour_utc": pl.Datetime("us", "UTC")},
            )
        )
    hour = pl.col("hour_utc")
    table = pl.concat(frames).with_columns(
        day=hour.dt.convert_time_zone(ZONE.key).dt.date(), event_time=hour, ingested_at=hour + KNOWN_AFTER
    )
    return {key[0]: part for key, part in table.sort("hour_utc", "station").partition_by("day", as_dict=True).items()}
