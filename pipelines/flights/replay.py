"""The world as it happens, for the lab's replay: schedules, departures and outcomes by the time they become known.

This is the source's side of the clock, not the lake's: what the airport would announce, minute by minute.
"""

from __future__ import annotations

import datetime as dt
import functools

import polars as pl

from pipelines.flights import source
from pipelines.flights.entities import late
from pipelines.flights.times import CANCELLATION_KNOWN_AFTER, HORIZON


def schedule_between(from_utc: dt.datetime, until_utc: dt.datetime) -> pl.DataFrame:
    """Flights whose prediction time, two hours before scheduled departure, lies in [from, until).

    Returns:
        Ordered by `predict_at_utc`: `entity_id`, `predict_at_utc`, and what the schedule knows by then: `carrier`,
        `flight`, `origin`, `dest`, `tailnum` (the planned plane, null when there is no telling), `sched_dep_utc`,
        `sched_arr_utc`, `distance_mi`. No outcome column.
    """
    return _between(_schedule(), "predict_at_utc", from_utc, until_utc)


def departures_between(from_utc: dt.datetime, until_utc: dt.datetime) -> pl.DataFrame:
    """Departures and cancellations that became known in [from, until): what streaming congestion is made of.

    Returns:
        Ordered by `at_utc`: `at_utc`, `entity_id`, `origin`, `carrier`, `sched_dep_utc`, `cancelled`, `dep_delay_min`
        (null when cancelled). A departure is known when it happens, a cancellation 60 minutes after its schedule.
    """
    return _between(_departures(), "at_utc", from_utc, until_utc)


def outcomes_between(from_utc: dt.datetime, until_utc: dt.datetime) -> pl.DataFrame:
    """Flights whose outcome became known in [from, until): the labels, as they arrive.

    Returns:
        Ordered by `known_at_utc`: `known_at_utc`, `entity_id`, `sched_dep_utc`, `carrier`, `origin`, `dest`,
        `cancelled`, `diverted`, `label_late` int8, `label_dep_delay_min` (null when cancelled), `arr_delay_min`.
    """
    return _between(_outcomes(), "known_at_utc", from_utc, until_utc)


def _between(events: pl.DataFrame, column: str, from_utc: dt.datetime, until_utc: dt.datetime) -> pl.DataFrame:
    if from_utc.tzinfo is None or until_utc.tzinfo is None:
        raise ValueError(f"the replay needs timezone-aware times; got {from_utc}, {until_utc}")
    first = events[column].search_sorted(from_utc, side="left")
    last = events[column].search_sorted(until_utc, side="left")
    return events.slice(first, max(0, last - first))


@functools.cache
def _schedule() -> pl.DataFrame:
    return (
        source.all_flights()
        .select(
            "carrier",
            "flight",
            "origin",
            "dest",
            "sched_dep_utc",
            "sched_arr_utc",
            "distance_mi",
            entity_id="flight_id",
            predict_at_utc=pl.col("sched_dep_utc") - HORIZON,
            tailnum="planned_tailnum",
        )
        .sort("predict_at_utc", "entity_id")
    )


@functools.cache
def _departures() -> pl.DataFrame:
    cancelled_at = pl.col("sched_dep_utc") + CANCELLATION_KNOWN_AFTER
    return (
        source.all_flights()
        .select(
            "origin",
            "carrier",
            "sched_dep_utc",
            "cancelled",
            "dep_delay_min",
            entity_id="flight_id",
            at_utc=pl.when("cancelled").then(cancelled_at).otherwise("departed_at_utc"),
        )
        .sort("at_utc", "entity_id")
    )


@functools.cache
def _outcomes() -> pl.DataFrame:
    return (
        source.all_flights()
        .select(
            "known_at_utc",
            "sched_dep_utc",
            "carrier",
            "origin",
            "dest",
            "cancelled",
            "diverted",
            "arr_delay_min",
            entity_id="flight_id",
            label_late=late().cast(pl.Int8),
            label_dep_delay_min="dep_delay_min",
        )
        .sort("known_at_utc", "entity_id")
    )
