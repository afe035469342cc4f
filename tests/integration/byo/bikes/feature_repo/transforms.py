"""Set-based feature builders as Ibis expressions. A row with `event_timestamp` T uses only what was known at T."""

from __future__ import annotations

import datetime as dt

import ibis
import ibis.expr.types as ir

from feature_repo.view_build import Grid, ViewBuild, ratio, running_sums

NOW_FEATURES = ("filled_share", "filled_share_3h", "filled_change_1h", "docks")
WEEK_FEATURES = ("full_share_1d", "full_share_7d")


def station_now(readings: ir.Table, stations: ir.Table) -> ir.Table:
    """Key station, features `NOW_FEATURES`: the newest reading, known minutes after its hour."""
    joined = readings.join(stations.select("station", "docks"), "station")
    rows = joined.mutate(share=joined.bikes.cast("float64") / joined.docks)
    hours = ibis.window(group_by="station", order_by="ingested_at", preceding=2, following=0)
    before = rows.share.lag().over(group_by="station", order_by="ingested_at")
    return rows.select(
        "station",
        "docks",
        event_timestamp=rows.ingested_at,
        filled_share=rows.share,
        filled_share_3h=rows.share.mean().over(hours),
        filled_change_1h=(rows.share - before).fill_null(0.0),
    )


def station_week(readings: ir.Table, snapshots: Grid) -> ir.Table:
    """Key station, features `WEEK_FEATURES`: how often it was full, as of each morning."""
    windows = {"1d": dt.timedelta(days=1), "7d": dt.timedelta(days=7)}
    events = readings.select(
        "station",
        at=readings.ingested_at,
        visible_from=readings.ingested_at,
        visible_until=ibis.null("timestamp(6)"),
        hours=ibis.literal(1.0),
        full=readings.full.cast("float64"),
    )
    running = running_sums(
        events,
        snapshots,
        keys=["station"],
        sums=("hours", "full"),
        windows=windows,
        key_table=events.select("station").distinct(),
    )
    running = running.filter(running.hours_1d > 0)
    shares = {f"full_share_{window}": ratio(running, "full", "hours", window) for window in windows}
    return running.select("station", "event_timestamp", **shares)


BUILDS = {
    build.name: build
    for build in (
        ViewBuild(
            name="station_now",
            description="Share of docks that hold a bike, hourly.",
            keys=("station",),
            features=NOW_FEATURES,
            tables=("readings", "stations"),
            expression=station_now,
            lookback=dt.timedelta(hours=4),
            ttl=dt.timedelta(hours=3),
        ),
        ViewBuild(
            name="station_week",
            description="How often the station was full in the last day and week, each day at 03:00 UTC.",
            keys=("station",),
            features=WEEK_FEATURES,
            tables=("readings",),
            expression=station_week,
            lookback=dt.timedelta(days=7),
            ttl=dt.timedelta(days=2),
            period=dt.timedelta(days=1),
            offset=dt.timedelta(hours=3),
        ),
    )
}
