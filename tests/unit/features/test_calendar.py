import datetime as dt

import pytest

from feature_repo.rowwise import (
    CALENDAR_FEATURES,
    CARRIERS,
    calendar_columns,
    calendar_features,
    is_holiday_window,
)

NEW_YEAR = dt.datetime(2013, 1, 1, 10, 15, tzinfo=dt.UTC)  # 05:15 in New York, a Tuesday


def test_calendar_features_by_hand():
    assert calendar_features("UA", "EWR", NEW_YEAR) == {
        "dep_minute_of_day": 315.0,
        "dep_day_of_week": 2.0,
        "dep_day_of_year": 1.0,
        "is_holiday_window": 1.0,
        "origin_ewr": 1.0,
        "origin_jfk": 0.0,
        "origin_lga": 0.0,
        "carrier_code": 11.0,
    }


def test_local_time_follows_the_clock_change():
    winter = calendar_features("UA", "EWR", dt.datetime(2013, 3, 10, 6, 30, tzinfo=dt.UTC))
    summer = calendar_features("UA", "EWR", dt.datetime(2013, 3, 10, 7, 30, tzinfo=dt.UTC))
    assert winter["dep_minute_of_day"] == 90  # 01:30 EST
    assert summer["dep_minute_of_day"] == 210  # 03:30 EDT: there was no 02:30


def test_a_new_carrier_has_the_unknown_code():
    assert calendar_features("ZZ", "EWR", NEW_YEAR)["carrier_code"] == -1


def test_carrier_codes_never_move():
    assert CARRIERS[:3] == ("9E", "AA", "AS")
    assert len(set(CARRIERS)) == len(CARRIERS) == 16


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="timezone-aware"):
        calendar_features("UA", "EWR", dt.datetime(2013, 1, 1))


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (dt.date(2013, 11, 28), True),  # Thanksgiving
        (dt.date(2013, 11, 30), True),
        (dt.date(2013, 12, 1), False),
        (dt.date(2013, 5, 27), True),  # Memorial Day
        (dt.date(2013, 9, 2), True),  # Labor Day
        (dt.date(2013, 7, 4), True),
        (dt.date(2013, 12, 20), True),
        (dt.date(2013, 2, 14), False),
        (dt.date(2013, 10, 15), False),
    ],
)
def test_holiday_windows(day, expected):
    assert is_holiday_window(day) is expected


def test_columns_are_the_rows_and_a_time_without_zone_means_utc():
    columns = calendar_columns(["UA", "B6"], ["EWR", "JFK"], [NEW_YEAR, NEW_YEAR.replace(tzinfo=None)])
    assert list(columns) == list(CALENDAR_FEATURES)
    assert [columns[name][1] for name in CALENDAR_FEATURES] == list(calendar_features("B6", "JFK", NEW_YEAR).values())
