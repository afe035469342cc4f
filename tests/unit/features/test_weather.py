import datetime as dt

import polars as pl
import pytest

from feature_repo.transforms import BUILDS, STANDARD_PRESSURE_MB, WEATHER_FEATURES
from pipelines.features.build import build_view

HOUR = dt.timedelta(hours=1)
START = dt.datetime(2013, 5, 20, 6, tzinfo=dt.UTC)
MEASURED = [name for name in WEATHER_FEATURES if not name.endswith("_3h")]
UTC = pl.Datetime("us", "UTC")


def observation(origin, hour, **change):
    at = START + hour * HOUR
    values = dict.fromkeys(MEASURED, 10.0)
    return {"origin": origin, "observed_hour_utc": at, "ingested_at": at + HOUR, **values, **change}


def rows(*observations, until=START + 12 * HOUR):
    schema = {"origin": pl.String, "observed_hour_utc": UTC, "ingested_at": UTC, **dict.fromkeys(MEASURED, pl.Float32)}
    table = pl.DataFrame(list(observations), schema=schema).to_arrow()
    built = pl.from_arrow(build_view(BUILDS["weather"], {"weather": table}, START, until))
    return {(row["origin"], row["event_timestamp"]): row for row in built.to_dicts()}


def test_an_observation_is_known_at_the_end_of_its_hour():
    assert set(rows(observation("EWR", 0))) == {("EWR", START + HOUR)}


def test_rain_adds_up_and_visibility_takes_the_worst_over_three_hours():
    found = rows(*(observation("EWR", n, precip_in=0.5 * n, visib_mi=10.0 - n) for n in range(5)))
    last = found["EWR", START + 5 * HOUR]
    assert last["precip_in_3h"] == 0.5 * (2 + 3 + 4)
    assert last["visib_mi_min_3h"] == 6


def test_a_missing_value_is_the_mean_of_the_other_airports_and_a_missing_gust_the_wind():
    found = rows(
        observation("EWR", 0, temp_f=None, wind_gust_mph=None, wind_speed_mph=7.0),
        observation("JFK", 0, temp_f=50.0),
        observation("LGA", 0, temp_f=60.0),
    )
    row = found["EWR", START + HOUR]
    assert (row["temp_f"], row["wind_gust_mph"]) == (55, 7)


def test_pressure_that_no_airport_reports_is_the_standard_one_and_other_values_stay_missing():
    row = rows(observation("EWR", 0, pressure_mb=None, humid_pct=None))["EWR", START + HOUR]
    assert row["pressure_mb"] == pytest.approx(STANDARD_PRESSURE_MB)
    assert row["humid_pct"] is None


def test_a_late_observation_does_not_reach_rows_known_before_it():
    late = START + 3 * HOUR
    found = rows(
        observation("EWR", 0, temp_f=None),
        observation("JFK", 0, temp_f=50.0, ingested_at=late),
        observation("EWR", 1, temp_f=40.0),
    )
    assert found["EWR", START + HOUR]["temp_f"] is None
    assert found["JFK", late]["temp_f"] == 50


def test_a_corrected_observation_does_not_change_what_was_known():
    found = rows(observation("EWR", 0, temp_f=50.0), observation("EWR", 0, temp_f=99.0, ingested_at=START + 4 * HOUR))
    assert found["EWR", START + HOUR]["temp_f"] == 50


def test_a_day_that_comes_all_at_once_gives_one_row_and_never_an_older_hour_as_the_newest():
    """A quarantined day that heals: all its hours become known at one time, after younger ones are."""
    healed = START + 7.5 * HOUR
    found = rows(
        *(observation("EWR", n, temp_f=float(n), ingested_at=healed) for n in range(5)),  # before what is known
        *(observation("EWR", n, temp_f=float(n)) for n in (5, 6, 7)),
        *(observation("JFK", n, temp_f=float(n), ingested_at=healed) for n in range(5)),  # the newest that JFK has
    )
    ewr = {at: row["temp_f"] for (origin, at), row in found.items() if origin == "EWR"}
    assert ewr == {START + (n + 1) * HOUR: n for n in (5, 6, 7)}
    assert {at: row["temp_f"] for (origin, at), row in found.items() if origin == "JFK"} == {healed: 4}
