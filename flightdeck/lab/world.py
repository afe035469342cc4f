"""What happens during a replay, prepared before its clock starts: requests, feature rows, events. Knows flights.

Rows of the batch views are computed here once instead of once a virtual day: a snapshot at T depends only on what was
known at T (feature_repo.transforms), so computing it early and writing it at T is the same as computing it at T.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from flightdeck.lab.users import Arrival, microseconds
from pipelines.data.lake import Lake
from pipelines.use_case import UseCase

REQUEST_FIELDS = ("carrier", "flight", "origin", "dest", "sched_dep_utc", "tailnum")
BATCH_VIEWS = ("weather", "carrier_history", "route_history", "plane_history")
STREAMED_VIEW = "congestion"
OVERDUE_VIEW = "overdue"  # streamed too
WARM_UP = dt.timedelta(hours=7)  # the longest that a flight is waited for, and an hour for flights that leave early


class Feed(msgspec.Struct, frozen=True):
    """Everything the streamer will tell the world, in the order of time.

    Args:
        batch: view -> rows by the time they become known, [(at_us, row), ...].
        departures: (at_us, origin, delay in minutes or None when cancelled, scheduled departure in us).
        scheduled: (scheduled departure in us, entity_id, origin).
        gone: (at_us, entity_id) of departures and cancellations.
        outcomes: (known_at_us, entity_id, late 0/1, departure delay in minutes or None).
    """

    batch: dict[str, list[tuple[int, dict[str, Any]]]]
    departures: list[tuple[int, str, float | None, int]]
    scheduled: list[tuple[int, str, str]]
    gone: list[tuple[int, str]]
    outcomes: list[tuple[int, str, int, float | None]]


def arrivals(from_utc: dt.datetime, until_utc: dt.datetime) -> list[Arrival]:
    """One request per flight, at its prediction time."""
    from pipelines.flights.replay import schedule_between

    encode = msgspec.json.Encoder().encode
    return [
        Arrival(
            microseconds(row["predict_at_utc"]),
            row["entity_id"],
            encode({"rows": [{name: row[name] for name in REQUEST_FIELDS}]}),
        )
        for row in schedule_between(from_utc, until_utc).iter_rows(named=True)
    ]


def feed(use_case: UseCase, lake: Lake, from_utc: dt.datetime, until_utc: dt.datetime) -> Feed:
    """What the streamer tells between `from_utc` and `until_utc`. The lake ends before; the rest is the source's."""
    from pipelines.flights import replay
    from pipelines.flights.times import HORIZON

    departures = replay.departures_between(from_utc - WARM_UP, until_utc)
    schedule = replay.schedule_between(from_utc - WARM_UP - HORIZON, until_utc - HORIZON)
    outcomes = replay.outcomes_between(from_utc, until_utc)
    return Feed(
        batch={view: list(_batch_rows(use_case, lake, view, from_utc, until_utc)) for view in BATCH_VIEWS},
        departures=[
            (microseconds(at), origin, None if cancelled else delay, microseconds(scheduled))
            for at, origin, delay, cancelled, scheduled in departures.select(
                "at_utc", "origin", "dep_delay_min", "cancelled", "sched_dep_utc"
            ).iter_rows()
        ],
        scheduled=[
            (microseconds(scheduled), entity, origin)
            for scheduled, entity, origin in schedule.select("sched_dep_utc", "entity_id", "origin").iter_rows()
        ],
        gone=[(microseconds(at), entity) for at, entity in departures.select("at_utc", "entity_id").iter_rows()],
        outcomes=[
            (microseconds(known), entity, late, delay)
            for known, entity, late, delay in outcomes.select(
                "known_at_utc", "entity_id", "label_late", "label_dep_delay_min"
            ).iter_rows()
        ],
    )


def _batch_rows(
    use_case: UseCase, lake: Lake, view: str, from_utc: dt.datetime, until_utc: dt.datetime
) -> Iterator[tuple[int, dict[str, Any]]]:
    from feature_repo.transforms import BUILDS
    from pipelines.features.build import build_view, read_source

    build = BUILDS[view]
    tables = {}
    for name in build.tables:
        past = read_source(use_case, lake, name, build, from_utc=from_utc, until_utc=until_utc)
        table = use_case.table(name)
        if table.static:
            tables[name] = past
            continue
        local = [moment.astimezone(use_case.time_zone).date() for moment in (from_utc, until_utc)]
        days = [table.read_day(day) for day in use_case.days(local[0], local[1])]
        earlier = pl.from_arrow(past)
        assert isinstance(earlier, pl.DataFrame)
        # The lake's records of the first day, if any, come from the same deliveries: once each.
        earlier = earlier.filter(pl.col("day") < local[0])
        coming = pl.concat(days).select(pl.col(name).cast(kind) for name, kind in _types(earlier, days[0]).items())
        tables[name] = pl.concat([earlier.select(coming.columns), coming]).to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
    rows = build_view(build, tables, from_utc, until_utc)
    ordered = rows.sort_by([("event_timestamp", "ascending")])
    names = [name for name in ordered.column_names if name != "created_timestamp"]
    for row in ordered.select(names).to_pylist():
        yield microseconds(row["event_timestamp"]), row


def _types(earlier: pl.DataFrame, coming: pl.DataFrame) -> dict[str, Any]:
    return {name: earlier.schema[name] for name in earlier.columns if name in coming.columns}


def write_feed(path: Path, content: Feed) -> None:
    """Keep it for the streamer's process."""
    path.write_bytes(msgspec.msgpack.encode(content))


def read_feed(path: Path) -> Feed:
    """What `write_feed` kept."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Feed)
