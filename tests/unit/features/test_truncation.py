"""Planted leaks are found by taking the future away; honest views pass."""

import dataclasses
import datetime as dt

import pytest

from feature_repo.transforms import BUILDS, congestion
from pipelines.features.truncation import future_use

NOON = dt.datetime(2013, 5, 20, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
KEYS = {"flights": ["flight_id"]}


@pytest.fixture(scope="module")
def busy_day(flights):
    """A flight every 20 minutes around noon, half of them late, some cancelled, one corrected a day later."""
    rows = [
        {
            "sched_dep_utc": NOON + n * dt.timedelta(minutes=20),
            "origin": ("EWR", "JFK")[n % 2],
            "dep_delay_min": None if n % 7 == 0 else float(n % 5 * 10),
            "arr_delay_min": None if n % 7 == 0 else float(n % 4 * 10),
            "cancelled": n % 7 == 0,
        }
        for n in range(-120, 120)
    ]
    first = {"flight_id": "x", "sched_dep_utc": NOON - 12 * HOUR, "arr_delay_min": 0.0}
    corrected = {**first, "arr_delay_min": 60.0, "ingested_at": NOON + 20 * HOUR}
    return {"flights": flights(*rows, first, corrected)}


@pytest.mark.parametrize("view", ["carrier_history", "route_history", "congestion", "overdue"])
@pytest.mark.parametrize("hours", [-3, 0, 5])
def test_the_views_do_not_look_ahead(busy_day, view, hours):
    assert future_use(BUILDS[view], busy_day, KEYS, NOON + hours * HOUR) == []


def test_a_congestion_window_that_looks_ahead_is_found(busy_day):
    def ahead(flights, snapshots):
        shifted = flights.mutate(departed_at_utc=flights.departed_at_utc - dt.timedelta(minutes=45))
        return congestion(shifted, snapshots)

    leaky = dataclasses.replace(BUILDS["congestion"], expression=ahead)
    found = future_use(leaky, busy_day, KEYS, NOON)
    assert any("congestion.departures_1h" in words and "12:00" in words for words in found)


def test_a_count_of_waiting_flights_that_knows_when_they_will_leave_is_found(busy_day):
    overdue = BUILDS["overdue"]

    def ahead(flights, snapshots):
        long_waits = flights.filter(flights.departed_at_utc.delta(flights.sched_dep_utc, unit="minute") >= 30)
        return overdue.expression(long_waits, snapshots)

    leaky = dataclasses.replace(overdue, expression=ahead)
    assert any("overdue.overdue_flights" in words for words in future_use(leaky, busy_day, KEYS, NOON))


def test_a_history_that_counts_outcomes_of_the_same_day_is_found(busy_day):
    history = BUILDS["carrier_history"]

    def same_day(flights, snapshots):
        early = flights.mutate(
            ingested_at=flights.sched_dep_utc - dt.timedelta(hours=3),
            known_at_utc=flights.sched_dep_utc - dt.timedelta(hours=3),
        )
        return history.expression(early, snapshots)

    leaky = dataclasses.replace(history, expression=same_day)
    found = future_use(leaky, busy_day, KEYS, NOON.replace(hour=9))
    assert any("carrier_history.carrier_late_share_7d" in words for words in found)


def test_a_history_that_ignores_when_a_correction_came_is_found(busy_day):
    history = BUILDS["carrier_history"]

    def newest_only(flights, snapshots):
        newest = flights.group_by("flight_id").agg(ingested_at=flights.ingested_at.max())
        return history.expression(flights.semi_join(newest, ["flight_id", "ingested_at"]), snapshots)

    leaky = dataclasses.replace(history, expression=newest_only)
    assert future_use(leaky, busy_day, KEYS, NOON.replace(hour=9))


def test_without_data_after_the_time_nothing_can_be_told(busy_day):
    with pytest.raises(ValueError, match="nothing can be told"):
        future_use(BUILDS["congestion"], busy_day, KEYS, NOON + 300 * HOUR)
