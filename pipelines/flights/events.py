"""The world as events, for a replay: what the airports would announce, by the time it becomes known.

The source's side of the clock, as replay.py. The same period gives the same events, to the byte and in one order.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import msgspec
import polars as pl

from feature_repo.streaming import Cancelled, Departed, FlightEvent, Landed, Scheduled, Weather
from flightdeck.contracts.events import microseconds
from pipelines.flights import replay, source

CHUNK = dt.timedelta(days=1)
WEATHER_MEASURES = (
    "temp_f", "dewp_f", "humid_pct", "wind_dir_deg", "wind_speed_mph", "wind_gust_mph", "precip_in", "pressure_mb",
    "visib_mi",
)  # fmt: skip


def events_between(from_utc: dt.datetime, until_utc: dt.datetime) -> Iterator[tuple[int, bytes]]:
    """Events that become known in [from, until), ordered by time and then id, made a day at a time.

    A plan is announced at prediction time, a departure and a landing when they happen, a cancellation 60 minutes after
    its schedule, the weather of an hour at its end. Nothing is left out: the source's one impossible wind is told too.

    Returns:
        (when it becomes known in microseconds since 1970, the event's JSON).
    Raises:
        ValueError: a time without time zone.
    """
    encode = msgspec.json.Encoder().encode
    while from_utc < until_utc:
        end_utc = min(from_utc + CHUNK, until_utc)
        events = [
            *_plans(from_utc, end_utc),
            *_departures(from_utc, end_utc),
            *_landings(from_utc, end_utc),
            *_weather(from_utc, end_utc),
        ]
        events.sort(key=lambda event: (event.at_us, event.id))
        yield from ((event.at_us, encode(event)) for event in events)
        from_utc = end_utc


def _of_flight(kind: str, row: dict[str, Any], at_utc: dt.datetime) -> dict[str, Any]:
    return {
        "id": f"{kind}:{row['entity_id']}",
        "at_us": microseconds(at_utc),
        "flight_id": row["entity_id"],
        "origin": row["origin"],
        "sched_dep_us": microseconds(row["sched_dep_utc"]),
    }


def _plans(from_utc: dt.datetime, until_utc: dt.datetime) -> Iterator[FlightEvent]:
    for row in replay.schedule_between(from_utc, until_utc).iter_rows(named=True):
        yield Scheduled(**_of_flight("scheduled", row, row["predict_at_utc"]))


def _departures(from_utc: dt.datetime, until_utc: dt.datetime) -> Iterator[FlightEvent]:
    for row in replay.departures_between(from_utc, until_utc).iter_rows(named=True):
        if row["cancelled"]:
            yield Cancelled(**_of_flight("cancelled", row, row["at_utc"]))
        else:
            yield Departed(**_of_flight("departed", row, row["at_utc"]), dep_delay_min=row["dep_delay_min"])


def _landings(from_utc: dt.datetime, until_utc: dt.datetime) -> Iterator[FlightEvent]:
    landed = replay.outcomes_between(from_utc, until_utc).filter(~pl.col("cancelled"))
    for row in landed.iter_rows(named=True):
        yield Landed(
            **_of_flight("landed", row, row["known_at_utc"]),
            diverted=row["diverted"],
            arr_delay_min=row["arr_delay_min"],
        )


def _weather(from_utc: dt.datetime, until_utc: dt.datetime) -> Iterator[FlightEvent]:
    days = (until_utc.date() - from_utc.date()).days + 2  # the source's day may begin the day before
    for number in range(days):
        of_day = source.weather_of(from_utc.date() + dt.timedelta(days=number - 1))
        known = of_day.filter((pl.col("ingested_at") >= from_utc) & (pl.col("ingested_at") < until_utc))
        for row in known.iter_rows(named=True):
            hour_us = microseconds(row["observed_hour_utc"])
            yield Weather(
                id=f"weather:{row['origin']}:{row['observed_hour_utc']:%Y-%m-%dT%H}",
                at_us=microseconds(row["ingested_at"]),
                origin=row["origin"],
                observed_hour_us=hour_us,
                **{name: row[name] for name in WEATHER_MEASURES},
            )
