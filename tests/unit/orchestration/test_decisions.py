from __future__ import annotations

import datetime as dt

import dagster as dg
import pytest

from flightdeck.contracts.model_spec import model_specs
from pipelines.data.lake import LakeError
from pipelines.orchestration.days import complete_months, deliveries, month_end_utc, span_utc
from pipelines.orchestration.failures import is_away, told
from pipelines.use_case import load_use_case

FLIGHTS = load_use_case()
JULY = [dt.date(2013, 7, day) for day in (1, 2, 3)]


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("no"),
        TimeoutError("late"),
        LakeError("s3://lake/flights: nothing was written: Generic S3 error: error sending request"),
        caused(RuntimeError("the registry cannot be opened"), ConnectionResetError("gone")),
    ],
)
def test_a_store_that_is_away_is_tried_again(error):
    assert is_away(error)
    with pytest.raises(type(error)), told():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a feature came out NaN"),
        LakeError("s3://lake/flights: no such table; run `flightdeck data ingest` first"),
        LakeError("nothing was written: Generic S3 error: 403 Forbidden AccessDenied"),
    ],
)
def test_a_wrong_setting_or_bad_data_is_not(error):
    assert not is_away(error)
    with pytest.raises(dg.Failure) as found, told():
        raise error
    assert not found.value.allow_retries
    assert str(error) in found.value.description


def test_one_day_is_taken_as_delivered_by_now():
    now = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
    assert deliveries(FLIGHTS, JULY[:1], now) == [(JULY[0], JULY[0], now)]


def test_of_several_days_those_that_are_over_are_a_backfill():
    noon = dt.datetime(2013, 7, 3, 12, tzinfo=dt.UTC)
    assert deliveries(FLIGHTS, JULY, noon) == [(JULY[0], JULY[1], None), (JULY[2], JULY[2], noon)]
    later = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert deliveries(FLIGHTS, JULY, later) == [(JULY[0], JULY[2], None)]


def test_features_are_built_to_the_end_of_the_day_and_never_beyond_now():
    midnight = dt.datetime(2013, 7, 1, 4, tzinfo=dt.UTC)  # in New York
    assert span_utc(FLIGHTS, JULY[:1], midnight + dt.timedelta(days=9)) == (midnight, midnight + dt.timedelta(days=1))
    assert span_utc(FLIGHTS, JULY[:1], midnight + dt.timedelta(hours=8))[1] == midnight + dt.timedelta(hours=8)
    assert len(set(span_utc(FLIGHTS, JULY[:1], midnight - dt.timedelta(hours=8)))) == 1


def test_a_month_is_complete_when_none_of_its_days_is_missing():
    days = set(FLIGHTS.days(dt.date(2013, 1, 1), dt.date(2013, 2, 28)))
    assert complete_months(FLIGHTS, days) == ["2013-01", "2013-02"]
    assert complete_months(FLIGHTS, days - {dt.date(2013, 2, 12)}) == ["2013-01"]


def test_a_month_ends_at_midnight_of_the_source():
    assert month_end_utc(FLIGHTS, "2013-06") == dt.datetime(2013, 7, 1, 4, tzinfo=dt.UTC)
    assert month_end_utc(FLIGHTS, "2013-12") == dt.datetime(2014, 1, 1, 5, tzinfo=dt.UTC)


def test_a_folder_without_a_spec_is_refused(tmp_path):
    (tmp_path / "late.rollout.yaml").write_text("kind: ModelRollout\n")
    with pytest.raises(ValueError, match="no model spec"):
        model_specs(tmp_path)
