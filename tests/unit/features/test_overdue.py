"""Flights that should have left and have not, in two forms: set-based over a table, and event by event."""

import datetime as dt

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.rowwise import OVERDUE_FEATURES, OverdueFlights
from feature_repo.transforms import BUILDS
from pipelines.features.build import build_view

NOON = dt.datetime(2013, 5, 20, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)


def set_based(table, from_utc=NOON, until_utc=NOON):
    rows = pl.from_arrow(build_view(BUILDS["overdue"], {"flights": table}, from_utc, until_utc))
    return {
        (row["origin"], row["event_timestamp"]): {name: row[name] for name in OVERDUE_FEATURES}
        for row in rows.to_dicts()
    }


def told(table) -> OverdueFlights:
    flights = OverdueFlights()
    for row in pl.from_arrow(table).to_dicts():
        flights.scheduled(row["flight_id"], row["origin"], row["sched_dep_utc"])
        if row["cancelled"]:
            flights.cancelled(row["flight_id"], row["sched_dep_utc"])
        else:
            flights.departed(row["flight_id"], row["departed_at_utc"])
    return flights


def test_overdue_by_hand(flights):
    table = flights(
        {"sched_dep_utc": NOON - 15 * MINUTE, "dep_delay_min": 16.0},  # overdue as of now
        {"sched_dep_utc": NOON - 14 * MINUTE, "dep_delay_min": 90.0},  # not yet overdue
        {"sched_dep_utc": NOON - 60 * MINUTE, "dep_delay_min": 60.0},  # leaves this minute
        {"sched_dep_utc": NOON - 59 * MINUTE, "cancelled": True},  # known in a minute
        {"sched_dep_utc": NOON - 60 * MINUTE, "cancelled": True},  # known now
        {"sched_dep_utc": NOON - 359 * MINUTE, "dep_delay_min": 400.0, "origin": "JFK"},
        {"sched_dep_utc": NOON - 360 * MINUTE, "dep_delay_min": 400.0, "origin": "JFK"},  # waited for no longer
    )
    found = set_based(table)
    assert [tuple(found[origin, NOON].values()) for origin in ("EWR", "JFK", "LGA")] == [(2, 3), (1, 3), (0, 3)]
    assert told(table).snapshot(NOON) == {origin: row for (origin, _), row in found.items()}


def test_a_flight_whose_departure_no_row_tells_yet_is_waited_for(flights):
    waiting = flights({"sched_dep_utc": NOON - 30 * MINUTE, "departed_at_utc": None, "cancelled": None})
    assert set_based(waiting)["EWR", NOON]["overdue_flights"] == 1


def test_what_was_seen_is_not_revised(flights):
    left = {"flight_id": "x", "sched_dep_utc": NOON - 30 * MINUTE, "dep_delay_min": 20.0}
    table = flights(
        {**left, "ingested_at": NOON + 3 * HOUR}, {**left, "dep_delay_min": 90.0, "ingested_at": NOON + HOUR * 30}
    )
    assert set_based(table)["EWR", NOON]["overdue_flights"] == 0


def test_telling_twice_or_the_departure_first_changes_nothing():
    flights = OverdueFlights()
    for _ in range(2):
        flights.departed("a", NOON - MINUTE)
        flights.scheduled("a", "EWR", NOON - 40 * MINUTE)
        flights.scheduled("b", "EWR", NOON - 40 * MINUTE)
    assert flights.snapshot(NOON - 2 * MINUTE)["EWR"]["overdue_flights"] == 2
    assert flights.snapshot(NOON)["EWR"]["overdue_flights"] == 1


def test_what_no_later_snapshot_needs_is_forgotten():
    flights = OverdueFlights()
    for hour in range(500):
        at = NOON + hour * HOUR
        flights.scheduled(f"f{hour}", "EWR", at)
        flights.departed(f"f{hour}", at)
        flights.snapshot(at)
    assert len(flights._scheduled) <= 6
    assert len(flights._gone) <= 6


FLIGHT = st.fixed_dictionaries(
    {
        "sched_dep_utc": st.integers(-600, 300).map(lambda minutes: NOON + minutes * MINUTE),
        "origin": st.sampled_from(["EWR", "JFK", "LGA"]),
        "cancelled": st.booleans(),
        "dep_delay_min": st.integers(-20, 500).map(float),
    }
)


@settings(max_examples=8, deadline=None)
@given(st.lists(FLIGHT, min_size=1, max_size=40))
def test_the_streaming_form_equals_the_set_based_one(flights, rows):
    table = flights(*({**row, "dep_delay_min": None if row["cancelled"] else row["dep_delay_min"]} for row in rows))
    streamed = told(table)
    expected = set_based(table, NOON - 4 * HOUR, NOON + 4 * HOUR)
    for at in sorted({at for _, at in expected}):
        assert streamed.snapshot(at) == {origin: row for (origin, when), row in expected.items() if when == at}
