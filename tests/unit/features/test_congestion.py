"""Congestion in its two forms: set-based over a table, and event by event."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.rowwise import CongestionWindow
from feature_repo.transforms import BUILDS, CONGESTION_FEATURES
from pipelines.features.build import build_view

NOON = dt.datetime(2013, 5, 20, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)


def set_based(table, from_utc=NOON, until_utc=NOON):
    rows = pl.from_arrow(build_view(BUILDS["congestion"], {"flights": table}, from_utc, until_utc))
    return {(row["origin"], row["event_timestamp"]): row for row in rows.to_dicts()}


def test_congestion_by_hand(flights):
    table = flights(
        {"sched_dep_utc": NOON - 30 * MINUTE, "dep_delay_min": 20.0},
        {"sched_dep_utc": NOON - 40 * MINUTE, "dep_delay_min": 0.0},
        {"sched_dep_utc": NOON - 2 * HOUR, "dep_delay_min": 40.0},
        {"sched_dep_utc": NOON - 90 * MINUTE, "cancelled": True},  # known 30 minutes ago
        {"sched_dep_utc": NOON - 30 * MINUTE, "cancelled": True},  # known in 30 minutes
        {"sched_dep_utc": NOON - 10 * MINUTE, "dep_delay_min": 30.0},  # still at the gate
    )
    row = set_based(table)["EWR", NOON]
    assert [row[name] for name in CONGESTION_FEATURES[:4]] == [2, 10, 0.5, 1]  # the last hour
    assert [row[name] for name in CONGESTION_FEATURES[4:]] == pytest.approx([3, 20, 2 / 3, 1])  # the last three


def test_every_origin_has_a_row_and_zeros_when_nothing_left(flights):
    found = set_based(flights({"sched_dep_utc": NOON - 30 * MINUTE}))
    assert {origin for origin, _ in found} == {"EWR", "JFK", "LGA"}
    assert all(found["JFK", NOON][name] == 0 for name in CONGESTION_FEATURES)


def test_a_departure_is_known_before_its_row_arrives_and_is_not_revised(flights):
    left = {"flight_id": "x", "sched_dep_utc": NOON - 30 * MINUTE, "dep_delay_min": 20.0}
    table = flights(
        {**left, "ingested_at": NOON + 3 * HOUR},
        {**left, "dep_delay_min": 90.0, "ingested_at": NOON + 30 * HOUR},
    )
    assert set_based(table)["EWR", NOON]["mean_dep_delay_min_1h"] == 20


def test_events_may_arrive_out_of_order():
    ordered, shuffled = CongestionWindow(), CongestionWindow()
    events = [(NOON - n * MINUTE, float(n)) for n in range(100, 0, -1)]
    for at, delay in events:
        ordered.departed(at, delay)
    for at, delay in events[50:] + events[:50]:
        shuffled.departed(at, delay)
    assert ordered.snapshot(NOON) == shuffled.snapshot(NOON)


def test_an_event_after_the_snapshot_waits_for_a_later_one():
    window = CongestionWindow()
    window.departed(NOON + MINUTE, 5.0)
    assert window.snapshot(NOON)["departures_3h"] == 0
    assert window.snapshot(NOON + HOUR)["departures_1h"] == 1


def test_the_window_forgets_what_no_later_snapshot_needs():
    window = CongestionWindow()
    for hour in range(500):
        window.departed(NOON + hour * HOUR, 0.0)
        window.snapshot(NOON + hour * HOUR)
    assert len(window._events) <= 4


FLIGHT = st.fixed_dictionaries(
    {
        "sched_dep_utc": st.integers(-300, 300).map(lambda minutes: NOON + minutes * MINUTE),
        "origin": st.sampled_from(["EWR", "JFK", "LGA"]),
        "cancelled": st.booleans(),
        "dep_delay_min": st.integers(-20, 200).map(float),
    }
)


@settings(max_examples=8, deadline=None)
@given(st.lists(FLIGHT, min_size=1, max_size=40))
def test_the_streaming_form_equals_the_set_based_one(flights, rows):
    table = flights(*({**row, "dep_delay_min": None if row["cancelled"] else row["dep_delay_min"]} for row in rows))
    windows = {origin: CongestionWindow() for origin in ("EWR", "JFK", "LGA")}
    for row in pl.from_arrow(table).to_dicts():
        if row["cancelled"]:
            windows[row["origin"]].cancelled(row["sched_dep_utc"])
        else:
            windows[row["origin"]].departed(row["departed_at_utc"], row["dep_delay_min"])
    expected = set_based(table, NOON - 4 * HOUR, NOON + 4 * HOUR)
    for (origin, at), row in sorted(expected.items(), key=lambda item: item[0][1]):
        streamed = windows[origin].snapshot(at)
        assert list(streamed) == list(CONGESTION_FEATURES)
        assert [float(pl.Series([value], dtype=pl.Float32)[0]) for value in streamed.values()] == [
            row[name] for name in CONGESTION_FEATURES
        ]
