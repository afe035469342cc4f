import typing

import pytest

from feature_repo.rowwise import ORIGINS
from feature_repo.streaming import CONGESTION, OVERDUE, FlightEvent, FlightFold, Origin
from flightdeck.contracts.events import Fold, microseconds, time_of
from tests.unit.ingestor.told import START, at, cancelled, departed, scheduled


def overdue(fold: FlightFold, minutes: float) -> float:
    return next(
        row.features["overdue_flights"]
        for row in fold.snapshot(at(minutes))
        if row.view == OVERDUE and row.keys == {"origin": "EWR"}
    )


def test_the_kinds_are_the_tags_and_the_origins_those_of_the_features():
    tags = tuple(kind.__struct_config__.tag for kind in typing.get_args(FlightEvent))
    assert tags == FlightFold.kinds
    assert typing.get_args(Origin) == ORIGINS


def test_the_views_and_their_period_are_those_of_the_offline_build():
    from feature_repo.transforms import BUILDS

    assert {name for name, build in BUILDS.items() if build.streamed} == set(FlightFold.views)
    fold: Fold = FlightFold()
    for row in fold.snapshot(at(0)):
        build = BUILDS[row.view]
        assert (build.period, build.offset.total_seconds()) == (fold.period, 0)
        assert (tuple(row.keys), tuple(row.features)) == (build.keys, build.features)


def test_a_flight_is_waited_for_until_it_left():
    fold = FlightFold()
    assert fold.add(scheduled("UA1", 10))
    assert overdue(fold, 30) == 1.0
    assert fold.add(departed("UA1", 40, sched_min=10))
    assert overdue(fold, 60) == 0.0


def test_a_plan_that_comes_after_the_departure_makes_no_flight_overdue():
    fold = FlightFold()
    fold.add(departed("UA1", -5, sched_min=31))
    for minutes in range(30, 391, 30):
        assert overdue(fold, minutes) == 0.0
    fold.add(scheduled("UA1", 31))  # hours late
    assert overdue(fold, 390) == 0.0


def test_a_cancellation_counts_from_an_hour_after_the_schedule_whenever_it_is_told():
    fold = FlightFold()
    fold.add(scheduled("UA1", 0))
    fold.add(cancelled("UA1", 0))
    assert overdue(fold, 30) == 1.0
    [row] = [row for row in fold.snapshot(at(60)) if row.view == CONGESTION and row.keys["origin"] == "EWR"]
    assert row.features["cancellations_1h"] == 1.0


@pytest.mark.parametrize("event", [scheduled("UA1", 100), departed("UA1", 100), cancelled("UA1", 100)])
def test_no_snapshot_knows_an_event_that_is_needed_no_more(event):
    fold = FlightFold()
    nothing = [row.features for row in FlightFold().snapshot(at(0))]
    fold.add(event)
    before_us = fold.needed_until_us(event)
    assert [row.features for row in fold.snapshot(before_us)] == nothing


def test_times_are_whole_microseconds():
    assert time_of(microseconds(START)) == START
