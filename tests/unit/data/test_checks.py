import datetime as dt

import polars as pl
import pytest

from pipelines.data import faults
from pipelines.data.checks import Volume, check_freshness, check_rows, check_volume, pandera_schema

DAY = dt.date(2020, 1, 5)


@pytest.fixture
def check(bus_rules):
    schema = pandera_schema(bus_rules)
    return lambda frame: check_rows(frame, bus_rules, schema, ["bus", "day"])


def test_a_good_day_fails_nothing(check, bus_frame):
    assert check(bus_frame(DAY)) == []


@pytest.mark.parametrize(
    ("fault", "kind", "column"),
    [
        (faults.scaled("riders", 10), "range", "riders"),
        (faults.scaled("riders", -1), "range", "riders"),
        (faults.nulled("bus", 0.2), "nulls", "bus"),
        (faults.nulled("riders", 0.6), "nulls", "riders"),
        (faults.repeated(2), "unique", "bus, day"),
        (faults.dropped("riders"), "column", "riders"),
        (lambda frame: frame.with_columns(extra=1), "column", "extra"),
        (faults.retyped("riders"), "type", "riders"),
        (faults.shifted("ingested_at", -dt.timedelta(hours=2)), "known after", "(row)"),
        (lambda frame: frame.with_columns(bus=pl.lit("tram")), "range", "bus"),
    ],
)
def test_each_fault_is_named_by_check_and_column(check, bus_frame, fault, kind, column):
    failures = check(fault(bus_frame(DAY)))
    assert (kind, column) in {(item.check, item.column) for item in failures}, failures


def test_nulls_up_to_the_stated_share_pass(check, bus_frame):
    assert check(faults.nulled("riders", 0.5)(bus_frame(DAY))) == []


def test_examples_name_the_bad_rows_and_are_few(check, bus_frame):
    frame = bus_frame(DAY).with_columns(riders=pl.int_range(85, 95, dtype=pl.Int32))
    [failure] = check(frame)
    assert failure.rows == 4
    assert failure.examples == tuple(f"b{number} 2020-01-05" for number in (6, 7, 8, 9))


def test_nan_is_never_in_range(bus_rules):
    rules = {"x": type(bus_rules.columns["riders"])(pl.Float32, low=0, high=1, null_share=0.5)}
    schema = pandera_schema(type(bus_rules)(rules, ("x",), bus_rules.volume, bus_rules.freshness))
    frame = pl.DataFrame({"x": [0.5, float("nan")]}, schema={"x": pl.Float32})
    failures = check_rows(frame, type(bus_rules)(rules, ("x",), bus_rules.volume, bus_rules.freshness), schema, ["x"])
    assert [item.check for item in failures] == ["range"]


@pytest.mark.parametrize(("rows", "fails"), [(99, True), (100, False), (1000, False), (1001, True)])
def test_volume_without_history_has_the_stated_bounds(rows, fails):
    assert bool(check_volume(rows, Volume(100, 1000), [], complete=True)) is fails


@pytest.mark.parametrize(("rows", "fails"), [(119, True), (120, False), (300, False), (301, True)])
def test_volume_with_history_stays_near_the_trailing_median(rows, fails):
    volume = Volume(100, 1000, min_history=3, low_factor=0.6, high_factor=1.5)
    assert bool(check_volume(rows, volume, [10, 200, 900], complete=True)) is fails


def test_a_day_still_being_delivered_may_be_short_but_not_long():
    volume = Volume(100, 1000)
    assert check_volume(0, volume, [], complete=False) == []
    assert check_volume(1001, volume, [], complete=False)


def fresh(rules, frame, day=DAY, now=None):
    return [item.check for item in check_freshness(frame, day, "Europe/Berlin", rules.freshness, now_utc=now)]


def test_freshness_passes_a_day_that_came_in_time(bus_rules, bus_frame):
    assert fresh(bus_rules, bus_frame(DAY), now=dt.datetime(2020, 1, 5, 12, tzinfo=dt.UTC)) == []


def test_a_record_from_the_future_fails(bus_rules, bus_frame):
    assert fresh(bus_rules, bus_frame(DAY), now=dt.datetime(2020, 1, 5, 11, tzinfo=dt.UTC)) == ["freshness"]


def test_events_of_another_local_day_fail(bus_rules, bus_frame):
    late_evening = faults.shifted("event_time", dt.timedelta(hours=13))(bus_frame(DAY))  # 23:00 UTC, midnight in Berlin
    assert "day" in fresh(bus_rules, late_evening)


def test_few_laggards_pass_and_many_fail(bus_rules, bus_frame):
    def delayed(buses: int) -> pl.DataFrame:
        late = pl.int_range(pl.len()) < buses
        return bus_frame(DAY).with_columns(
            ingested_at=pl.when(late).then(pl.col("ingested_at") + dt.timedelta(days=2)).otherwise("ingested_at")
        )

    assert fresh(bus_rules, delayed(1)) == []
    assert fresh(bus_rules, delayed(2)) == ["freshness"]
