from __future__ import annotations

import datetime as dt

import pytest

from flightdeck.lab.replay import Batches, Congestion, Due, Overdue, time_of
from flightdeck.lab.users import microseconds

T0 = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)


def at(minutes: float) -> int:
    return microseconds(T0 + dt.timedelta(minutes=minutes))


def test_each_position_is_due_once_and_not_before_its_time():
    due = Due([10, 20, 20, 30])
    assert list(due.until(9)) == []
    assert list(due.until(20)) == [0, 1, 2]
    assert list(due.until(20)) == []
    assert list(due.until(99)) == [3]


def test_a_limit_takes_the_oldest_and_leaves_the_rest_for_later():
    due = Due([1, 2, 3])
    assert list(due.until(9, limit=2)) == [0, 1]
    assert list(due.until(9, limit=2)) == [2]


def test_a_snapshot_holds_what_happened_until_its_time_and_nothing_later():
    departures = [(at(-40), "EWR", 10.0, at(-50)), (at(-10), "EWR", 20.0, at(-30)), (at(5), "EWR", 90.0, at(-85))]
    congestion = Congestion(departures, ("EWR", "JFK"))
    rows = {row["origin"]: row for row in congestion.rows(at(29))}
    assert rows["EWR"]["event_timestamp"] == T0, "snapshots are on the half hour"
    assert rows["EWR"]["departures_1h"] == 2
    assert rows["EWR"]["mean_dep_delay_min_1h"] == pytest.approx(15)
    assert rows["JFK"]["departures_1h"] == 0
    later = {row["origin"]: row for row in congestion.rows(at(31))}
    assert later["EWR"]["departures_1h"] == 2, "the first has left the hour, the third has come"
    assert later["EWR"]["mean_dep_delay_min_1h"] == pytest.approx(55)


def test_a_snapshot_is_told_once_and_a_late_streamer_tells_only_the_newest():
    congestion = Congestion([], ("EWR",))
    assert len(congestion.rows(at(0))) == 1
    assert congestion.rows(at(29)) == []
    (row,) = congestion.rows(at(125))
    assert row["event_timestamp"] == T0 + dt.timedelta(minutes=120)
    assert congestion.skipped == 3


def test_a_cancellation_counts_an_hour_after_its_schedule():
    congestion = Congestion([(at(0), "LGA", None, at(-60))], ("LGA",))
    (row,) = congestion.rows(at(0))
    assert row["cancellations_1h"] == 1
    assert row["departures_1h"] == 0


def test_overdue_flights_are_those_on_the_schedule_that_have_not_gone():
    scheduled = [(at(-40), "a", "EWR"), (at(-20), "b", "EWR"), (at(-10), "c", "EWR"), (at(5), "d", "LGA")]
    overdue = Overdue(scheduled, [(at(-1), "d"), (at(0), "a"), (at(20), "b")])
    now = {row["origin"]: row for row in overdue.rows(T0)}
    assert now["EWR"] == {
        "origin": "EWR", "event_timestamp": T0, "overdue_flights": 1, "overdue_flights_all_origins": 1
    }  # fmt: skip
    assert now["LGA"]["overdue_flights_all_origins"] == 1
    later = {row["origin"]: row["overdue_flights"] for row in overdue.rows(T0 + dt.timedelta(minutes=30))}
    assert later == {"EWR": 1, "JFK": 0, "LGA": 0}, "b has left, c is overdue, d left before its time"


def test_chunks_take_the_first_view_with_something_due():
    rows = {"carrier": [(5, {"n": 1}), (5, {"n": 2})], "plane": [(5, {"n": 3})]}
    batches = Batches(rows)
    assert batches.chunk(4, 10) == ("", [])
    assert batches.chunk(5, 1) == ("carrier", [{"n": 1}])
    assert batches.chunk(5, 10) == ("carrier", [{"n": 2}])
    assert batches.chunk(5, 10) == ("plane", [{"n": 3}])
    assert batches.chunk(5, 10) == ("", [])


def test_times_survive_microseconds():
    assert time_of(at(7)) == T0 + dt.timedelta(minutes=7)
