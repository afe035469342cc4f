"""Set-based feature builders as Ibis expressions: the same code on DuckDB here and on Spark when the data outgrow it.

Inside the expressions every timestamp is naive and means UTC; `pipelines.features.build` takes the zone off at the edge
and puts it back. Each builder obeys one rule: a row with `event_timestamp` T uses only what was known at T.

* History (carrier, route, plane): a snapshot at 09:00 UTC of each day, over the flights whose outcome became known in
  the last 7 and 30 days, `known_at_utc` in (T - window, T], in the newest version delivered by T (`ingested_at`).
  A key has a row while a flight of it became known within 30 days.
* Weather: a row per hourly observation, at the time it is known (`ingested_at`); none when a newer
  hour is known by then.
* Congestion: a snapshot every 30 minutes per origin, over departures and cancellations in (T - 1 h, T], (T - 3 h, T].
  A departure is known when it happens, long before the flight's row arrives with its landing, and is not revised: the
  first delivered version counts. `rowwise.CongestionWindow` is the streaming form of the same; a test demands equality.
* Overdue: a snapshot every 30 minutes per origin, of the flights that should have left 15 minutes before T or earlier
  and have not. The schedule is known ahead, a departure when it happens; `rowwise.OverdueFlights` is the streaming
  form.

A row never holds NaN or infinity, and null only where the docstring of its builder says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import ibis
import ibis.expr.types as ir

from feature_repo.rowwise import (
    CANCELLATION_KNOWN_AFTER,
    CONGESTION_WINDOWS_H,
    LATE_AFTER_MIN,
    ORIGINS,
    OVERDUE_AFTER,
    OVERDUE_FEATURES,
    OVERDUE_FORGOTTEN_AFTER,
)
from feature_repo.view_build import Grid, Knowledge, ViewBuild, ratio, running_sums

DAY = dt.timedelta(days=1)
HISTORY_WINDOWS_DAYS = (7, 30)
STANDARD_PRESSURE_MB = 1013.25  # ICAO standard atmosphere at sea level

HISTORY_MEASURES = (
    "flights_7d",
    "flights_30d",
    "late_share_7d",
    "late_share_30d",
    "cancelled_share_7d",
    "cancelled_share_30d",
    "mean_dep_delay_min_7d",
    "mean_dep_delay_min_30d",
)
CARRIER_FEATURES = tuple(f"carrier_{name}" for name in HISTORY_MEASURES)
ROUTE_FEATURES = (*(f"route_{name}" for name in HISTORY_MEASURES), "route_distance_mi")
PLANE_FEATURES = (*(f"plane_{name}" for name in HISTORY_MEASURES), "plane_age_years", "plane_seats")
WEATHER_FEATURES = (
    "temp_f",
    "dewp_f",
    "humid_pct",
    "wind_dir_deg",
    "wind_speed_mph",
    "wind_gust_mph",
    "precip_in",
    "pressure_mb",
    "visib_mi",
    "precip_in_3h",
    "visib_mi_min_3h",
)
CONGESTION_FEATURES = tuple(
    f"{name}_{hours}h"
    for hours in CONGESTION_WINDOWS_H
    for name in ("departures", "mean_dep_delay_min", "late_dep_share", "cancellations")
)


def carrier_history(flights: ir.Table, snapshots: Grid) -> ir.Table:
    """Key carrier, features `CARRIER_FEATURES`."""
    return _history(flights, snapshots, ["carrier"], "carrier")


def route_history(flights: ir.Table, snapshots: Grid) -> ir.Table:
    """Keys origin and dest, features `ROUTE_FEATURES`. The distance is that of the route: it does not change."""
    distance = flights.group_by(["origin", "dest"]).agg(route_distance_mi=flights.distance_mi.min())
    return _history(flights, snapshots, ["origin", "dest"], "route").left_join(distance, ["origin", "dest"])


def plane_history(flights: ir.Table, planes: ir.Table, snapshots: Grid) -> ir.Table:
    """Key tailnum, features `PLANE_FEATURES`; age and seats are null for planes that the register lacks."""
    history = _history(flights.filter(flights.tailnum.notnull()), snapshots, ["tailnum"], "plane")
    register = planes.select("tailnum", built="year", plane_seats="seats").distinct(on="tailnum")
    joined = history.left_join(register, "tailnum")
    return joined.mutate(plane_age_years=joined.event_timestamp.year() - joined.built).drop("built")


def weather(observations: ir.Table) -> ir.Table:
    """Key origin, features `WEATHER_FEATURES`; `event_timestamp` is when the observation is known.

    A value the station lacks is the mean of the other airports in the same hour, a gust the wind speed, the pressure at
    last the standard atmosphere's; null is left only where no airport reports a value.
    """
    version = ibis.row_number().over(group_by=["origin", "observed_hour_utc"], order_by=observations.ingested_at.asc())
    first = observations.mutate(version=version).filter(lambda t: t.version == 0)
    measured = [name for name in WEATHER_FEATURES if not name.endswith("_3h")]
    # Windows run over `ingested_at`, so that a late observation never reaches a row that was known before it.
    same_hour = ibis.range_window(group_by="observed_hour_utc", order_by="ingested_at", preceding=None, following=0)
    filled = first.mutate(
        **{
            name: ibis.coalesce(first[name], first[name].mean().over(same_hour)).cast("float64")
            for name in measured
            if name != "wind_gust_mph"
        }
    )
    filled = filled.mutate(wind_gust_mph=ibis.coalesce(filled.wind_gust_mph.cast("float64"), filled.wind_speed_mph))
    filled = filled.mutate(pressure_mb=filled.pressure_mb.fill_null(STANDARD_PRESSURE_MB))
    # A healed day comes all at once, and late: no old hour may stand as the newest weather.
    until_then = ibis.range_window(group_by="origin", order_by="ingested_at", preceding=None, following=0)
    filled = filled.mutate(newest_hour=filled.observed_hour_utc.max().over(until_then))
    filled = filled.filter(filled.observed_hour_utc == filled.newest_hour)
    three_hours = ibis.range_window(
        group_by="origin", order_by="ingested_at", preceding=ibis.interval(hours=2), following=ibis.interval(hours=0)
    )
    return filled.select(
        "origin",
        *measured,
        event_timestamp=filled.ingested_at,
        precip_in_3h=filled.precip_in.sum().over(three_hours),
        visib_mi_min_3h=filled.visib_mi.min().over(three_hours),
    )


def congestion(flights: ir.Table, snapshots: Grid) -> ir.Table:
    """Key origin, features `CONGESTION_FEATURES`; means and shares are 0 when nothing departed in the window."""
    first = _first_version(flights)
    departed = first.filter(first.departed_at_utc.notnull()).select(
        "origin",
        at=first.departed_at_utc,
        departures=ibis.literal(1.0),
        delay_sum=first.dep_delay_min.cast("float64"),
        late=(first.dep_delay_min >= LATE_AFTER_MIN).cast("float64"),
        cancellations=ibis.literal(0.0),
    )
    cancelled = first.filter(first.cancelled & first.departed_at_utc.isnull()).select(
        "origin",
        at=first.sched_dep_utc + _interval(CANCELLATION_KNOWN_AFTER),
        departures=ibis.literal(0.0),
        delay_sum=ibis.literal(0.0),
        late=ibis.literal(0.0),
        cancellations=ibis.literal(1.0),
    )
    events = departed.union(cancelled)
    windows = {f"{hours}h": dt.timedelta(hours=hours) for hours in CONGESTION_WINDOWS_H}
    origins = ibis.memtable({"origin": list(ORIGINS)})
    sums = ("departures", "delay_sum", "late", "cancellations")
    running = running_sums(
        events.mutate(visible_from=events["at"], visible_until=ibis.null("timestamp(6)")),
        snapshots,
        keys=["origin"],
        sums=sums,
        windows=windows,
        key_table=origins,
    )
    features = {
        f"{name}_{suffix}": value
        for suffix in windows
        for name, value in (
            ("departures", running[f"departures_{suffix}"]),
            ("mean_dep_delay_min", ratio(running, "delay_sum", "departures", suffix).fill_null(0.0)),
            ("late_dep_share", ratio(running, "late", "departures", suffix).fill_null(0.0)),
            ("cancellations", running[f"cancellations_{suffix}"]),
        )
    }
    return running.select("origin", "event_timestamp", **features)


def overdue(flights: ir.Table, snapshots: Grid) -> ir.Table:
    """Key origin, features `OVERDUE_FEATURES`: flights still here 15 minutes and up to 6 hours after their schedule.

    A cancelled flight is waited for until its cancellation is known.
    """
    first = _first_version(flights)
    cancellation = first.sched_dep_utc + _interval(CANCELLATION_KNOWN_AFTER)
    events = first.select(
        "origin",
        at=first.sched_dep_utc,
        visible_from=first.sched_dep_utc + _interval(OVERDUE_AFTER),
        visible_until=ibis.ifelse(first.cancelled.fill_null(False), cancellation, first.departed_at_utc),
        waiting=ibis.literal(1.0),
    )
    running = running_sums(
        events,
        snapshots,
        keys=["origin"],
        sums=("waiting",),
        windows={"all": OVERDUE_FORGOTTEN_AFTER},
        key_table=ibis.memtable({"origin": list(ORIGINS)}),
    )
    everywhere = running.waiting_all.sum().over(ibis.window(group_by="event_timestamp"))
    features = dict(zip(OVERDUE_FEATURES, (running.waiting_all, everywhere), strict=True))
    return running.select("origin", "event_timestamp", **features)


def _first_version(flights: ir.Table) -> ir.Table:
    """What is seen happening is not revised: of each flight the version that was delivered first."""
    order = ibis.row_number().over(group_by="flight_id", order_by=flights.ingested_at.asc())
    return flights.mutate(version=order).filter(lambda table: table.version == 0)


def _interval(length: dt.timedelta) -> ir.IntervalValue:
    return ibis.interval(seconds=int(length.total_seconds()))


def _history(flights: ir.Table, snapshots: Grid, keys: list[str], prefix: str) -> ir.Table:
    """`HISTORY_MEASURES` per key and snapshot; a 7-day share without flights falls back to the 30-day one."""
    versions = flights.mutate(
        visible_until=flights.ingested_at.lead().over(group_by="flight_id", order_by=flights.ingested_at.asc())
    )
    flown = versions.dep_delay_min.notnull() & ~versions.cancelled
    late = versions.cancelled | versions.diverted | (versions.arr_delay_min >= LATE_AFTER_MIN).fill_null(False)
    events = versions.select(
        *keys,
        at=versions.known_at_utc,
        visible_from=ibis.greatest(versions.known_at_utc, versions.ingested_at),
        visible_until=versions.visible_until,
        flights=ibis.literal(1.0),
        late=late.cast("float64"),
        cancelled=versions.cancelled.cast("float64"),
        flown=flown.cast("float64"),
        delay_sum=ibis.ifelse(flown, versions.dep_delay_min.cast("float64"), 0.0),
    )
    windows = {f"{days}d": days * DAY for days in HISTORY_WINDOWS_DAYS}
    sums = ("flights", "late", "cancelled", "flown", "delay_sum")
    running = running_sums(
        events, snapshots, keys=keys, sums=sums, windows=windows, key_table=events.select(*keys).distinct()
    )
    running = running.filter(running.flights_30d > 0)
    long = {
        "late_share": ratio(running, "late", "flights", "30d"),
        "cancelled_share": ratio(running, "cancelled", "flights", "30d"),
        "mean_dep_delay_min": ratio(running, "delay_sum", "flown", "30d").fill_null(0.0),
    }
    short = {
        "late_share": ratio(running, "late", "flights", "7d"),
        "cancelled_share": ratio(running, "cancelled", "flights", "7d"),
        "mean_dep_delay_min": ratio(running, "delay_sum", "flown", "7d"),
    }
    return running.select(
        *keys,
        "event_timestamp",
        **{f"{prefix}_flights_{window}": running[f"flights_{window}"] for window in windows},
        **{f"{prefix}_{name}_30d": value for name, value in long.items()},
        **{f"{prefix}_{name}_7d": ibis.coalesce(value, long[name]) for name, value in short.items()},
    )


# Of a flight still to land, the plan is known, and its departure once it has left.
FLIGHTS_KNOWN = {
    "flights": Knowledge(
        planned=(
            *("flight_id", "day", "carrier", "flight", "origin", "dest", "planned_tailnum"),
            *("sched_dep_utc", "sched_arr_utc", "distance_mi", "event_time"),
        ),
        early={"departed_at_utc": ("departed_at_utc", "dep_delay_min")},
    ),
}


def _history_build(
    name: str, keys: tuple[str, ...], features: tuple[str, ...], tables: tuple[str, ...], build: Callable[..., ir.Table]
) -> ViewBuild:
    return ViewBuild(
        name=name,
        description=f"Delays and cancellations by {', '.join(keys)} over 7 and 30 days, each day at 09:00 UTC.",
        keys=keys,
        features=features,
        tables=tables,
        expression=build,
        lookback=max(HISTORY_WINDOWS_DAYS) * DAY,
        ttl=2 * DAY,  # one missed daily run; whole days, or less than one: Feast's Ibis join cannot read 36 hours
        period=DAY,
        offset=dt.timedelta(hours=9),
        knowledge=FLIGHTS_KNOWN,
    )


BUILDS = {
    build.name: build
    for build in (
        _history_build("carrier_history", ("carrier",), CARRIER_FEATURES, ("flights",), carrier_history),
        _history_build("route_history", ("origin", "dest"), ROUTE_FEATURES, ("flights",), route_history),
        _history_build("plane_history", ("tailnum",), PLANE_FEATURES, ("flights", "planes"), plane_history),
        ViewBuild(
            name="weather",
            description="Hourly observation at the origin, known at the end of its hour.",
            keys=("origin",),
            features=WEATHER_FEATURES,
            tables=("weather",),
            expression=weather,
            lookback=dt.timedelta(hours=6),
            ttl=dt.timedelta(hours=6),
        ),
        ViewBuild(
            name="congestion",
            description="Departures and cancellations at the origin in the last 1 and 3 hours, every 30 minutes.",
            keys=("origin",),
            features=CONGESTION_FEATURES,
            tables=("flights",),
            expression=congestion,
            lookback=dt.timedelta(hours=max(CONGESTION_WINDOWS_H)),
            ttl=dt.timedelta(hours=2),
            period=dt.timedelta(minutes=30),
            settle=dt.timedelta(hours=24),  # a flight's row arrives with its landing
            streamed=True,
            knowledge=FLIGHTS_KNOWN,
        ),
        ViewBuild(
            name="overdue",
            description="Flights that should have left and have not, at the origin and at all, every 30 minutes.",
            keys=("origin",),
            features=OVERDUE_FEATURES,
            tables=("flights",),
            expression=overdue,
            lookback=OVERDUE_FORGOTTEN_AFTER,
            ttl=dt.timedelta(hours=2),
            period=dt.timedelta(minutes=30),
            settle=dt.timedelta(hours=24),  # as congestion
            streamed=True,
            knowledge=FLIGHTS_KNOWN,
        ),
    )
}
