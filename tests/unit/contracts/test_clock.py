import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightdeck.contracts.clock import ReplayClock, WallClock, clock_from_mapping

JULY = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)


def test_no_mapping_means_wall_time():
    assert isinstance(clock_from_mapping({}), WallClock)


def test_a_month_in_a_minute():
    clock = ReplayClock(JULY, real_start_s=100.0, speed=43_200)
    assert clock.at(160.0) == JULY + dt.timedelta(days=30)


def test_the_clock_stands_before_its_start_and_after_its_end():
    clock = ReplayClock(JULY, real_start_s=100.0, speed=10, virtual_end=JULY + dt.timedelta(seconds=50))
    assert clock.at(1.0) == JULY
    assert clock.at(1e12) == JULY + dt.timedelta(seconds=50)


@given(
    speed=st.floats(1, 1e5),
    offset_s=st.floats(0, 3e7),
    start_s=st.floats(1e9, 2e9),
)
def test_real_time_of_a_virtual_time_is_the_inverse(speed, offset_s, start_s):
    clock = ReplayClock(JULY, start_s, speed)
    virtual = JULY + dt.timedelta(seconds=offset_s)
    found = clock.at(clock.real_s_of(virtual))
    # a float of Unix seconds resolves about 0.24 microseconds of real time
    assert abs((found - virtual).total_seconds()) <= speed * 1e-6 + 1e-6


def test_a_virtual_time_that_never_comes_is_infinitely_far():
    assert ReplayClock(JULY, 0.0, 0).real_s_of(JULY + dt.timedelta(seconds=1)) == float("inf")
    assert ReplayClock(JULY, 0.0, 1, JULY).real_s_of(JULY + dt.timedelta(seconds=1)) == float("inf")


def test_a_clock_survives_redis():
    clock = ReplayClock(JULY, 1.5, 43_200, JULY + dt.timedelta(days=31))
    assert clock_from_mapping(clock.to_mapping()) == clock


@pytest.mark.parametrize("broken", [{"speed": "1"}, {"virtual_start": "x", "real_start_s": "0", "speed": "1"}])
def test_an_unreadable_clock_says_which_key_and_what_to_do(broken):
    with pytest.raises(ValueError, match=r"flightdeck:clock is unreadable .* delete the key"):
        clock_from_mapping(broken)


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
def test_speed_is_finite_and_not_negative(speed):
    with pytest.raises(ValueError, match="speed"):
        ReplayClock(JULY, 0.0, speed)


def test_naive_times_are_refused():
    with pytest.raises(ValueError, match="timezone-aware"):
        ReplayClock(dt.datetime(2013, 7, 1), 0.0, 1)
