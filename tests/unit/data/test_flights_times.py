import datetime as dt
import zoneinfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.flights.times import first_clock_after, per_zone

ZONES = ["America/New_York", "America/Puerto_Rico", "Pacific/Honolulu", "America/Phoenix", "America/Los_Angeles"]


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def first_clock(after: dt.datetime, hhmm: int | None, zone: str) -> dt.datetime | None:
    frame = pl.DataFrame(
        {"after": [after], "clock": [hhmm]}, schema={"after": pl.Datetime("us", "UTC"), "clock": pl.Int32}
    )
    return frame.select(first_clock_after(pl.col("after"), pl.col("clock"), zone)).item()


@pytest.mark.parametrize(
    ("after", "hhmm", "zone", "expected"),
    [
        # The same day, the next day, and midnight written as 2400.
        ("2013-01-15 15:00", 1130, "America/New_York", "2013-01-15 16:30"),
        ("2013-01-16 03:30", 10, "America/New_York", "2013-01-16 05:10"),  # 22:30 -> 00:10, overnight
        ("2013-01-16 03:30", 2400, "America/New_York", "2013-01-16 05:00"),
        ("2013-01-15 15:00", 1000, "America/New_York", "2013-01-15 15:00"),  # at that very minute
        ("2013-01-15 15:01", 1000, "America/New_York", "2013-01-16 15:00"),
        # West: a clock behind New York's. Hawaii and Arizona never change their clocks.
        ("2013-07-01 14:00", 1435, "Pacific/Honolulu", "2013-07-02 00:35"),
        ("2013-01-15 15:00", 1435, "Pacific/Honolulu", "2013-01-16 00:35"),
        ("2013-07-01 14:00", 1000, "America/Phoenix", "2013-07-01 17:00"),
        # Puerto Rico is an hour ahead of New York in winter and level with it in summer.
        ("2013-01-15 13:00", 1330, "America/Puerto_Rico", "2013-01-15 17:30"),
        ("2013-07-15 12:00", 1330, "America/Puerto_Rico", "2013-07-15 17:30"),
        # 10 March 2013, 02:00 -> 03:00: an overnight flight of 9 March arrives by the new clock.
        ("2013-03-10 04:30", 130, "America/New_York", "2013-03-10 06:30"),
        ("2013-03-10 04:30", 315, "America/New_York", "2013-03-10 07:15"),
        ("2013-03-10 04:30", 230, "America/New_York", "2013-03-10 07:30"),  # no clock showed it: the instant of 03:30
        ("2013-03-10 20:00", 1900, "America/New_York", "2013-03-10 23:00"),
        # 3 November 2013, 02:00 -> 01:00: 01:30 comes twice; the first one that is not over yet.
        ("2013-11-03 03:00", 130, "America/New_York", "2013-11-03 05:30"),
        ("2013-11-03 05:40", 130, "America/New_York", "2013-11-03 06:30"),
        ("2013-11-03 06:40", 130, "America/New_York", "2013-11-04 06:30"),
        ("2013-11-03 03:00", 230, "America/New_York", "2013-11-03 07:30"),
    ],
)
def test_a_wall_clock_is_read_as_the_first_such_instant(after, hhmm, zone, expected):
    assert first_clock(utc(after), hhmm, zone) == utc(expected)


def test_no_clock_no_instant():
    assert first_clock(utc("2013-01-15 15:00"), None, "America/New_York") is None


@settings(max_examples=200, deadline=None)
@given(
    after=st.datetimes(dt.datetime(2013, 1, 1), dt.datetime(2013, 12, 31)),
    minutes=st.integers(0, 24 * 60 - 1),
    zone=st.sampled_from(ZONES),
)
def test_the_instant_shows_the_clock_is_not_before_and_is_within_a_day(after, minutes, zone):
    start = after.replace(microsecond=0, tzinfo=dt.UTC)
    found = first_clock(start, minutes // 60 * 100 + minutes % 60, zone)
    local = found.astimezone(zoneinfo.ZoneInfo(zone))
    shown = local.hour * 60 + local.minute
    assert start <= found <= start + dt.timedelta(hours=25)
    assert shown == minutes or (local.date() == dt.date(2013, 3, 10) and shown == minutes + 60)


def test_each_row_is_read_in_its_own_zone_and_stays_in_its_place():
    noon = utc("2013-07-01 16:00")
    frame = pl.DataFrame({"zone": ZONES * 2, "at": [noon] * 10, "clock": [1300] * 10, "row": range(10)})
    read = per_zone(frame, "zone", found=(pl.col("at"), pl.col("clock")))
    hours = [(found - noon).total_seconds() / 3600 for found in read["found"]]
    assert read["row"].to_list() == list(range(10))
    assert hours == [1, 1, 7, 4, 4] * 2
