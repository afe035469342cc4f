"""The jobs over days, run for real: in order, since each leaves what the next begins with."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from pipelines.data import quarantine
from pipelines.use_case import USE_CASE_ENV

pytestmark = [pytest.mark.xdist_group("orchestration"), pytest.mark.timeout(300)]

HERE = Path(__file__).parent
BIKES = HERE.parent / "byo" / "bikes"
REPOSITORY = HERE.parents[2]


def rows(result: dg.ExecuteInProcessResult, asset: str) -> set[object]:
    """What the asset's materializations say they wrote or hold."""
    made = [event.materialization for event in result.get_asset_materialization_events()]
    found = [it.metadata for it in made if it.asset_key.to_user_string() == asset]
    return {metadata["rows written" if asset.startswith("lake/") else "rows"].value for metadata in found}


@pytest.fixture(scope="module")
def backfill(world):
    """Three days in one run, two days later."""
    world.clock(dt.datetime(2013, 1, 5, 12, tzinfo=dt.UTC))
    return world.run("backfill", "2013-01-01", "2013-01-03")


def test_a_backfill_of_days_is_one_run_that_fills_each_of_them(world, backfill):
    assert backfill.success
    assert len(world.instance.get_runs()) == 1
    assert set(world.lake.snapshot("flights").rows_per_day()) == {dt.date(2013, 1, day) for day in (1, 2, 3)}
    partitions = world.instance.get_materialized_partitions(dg.AssetKey(["features", "weather"]))
    assert partitions == {"2013-01-01", "2013-01-02", "2013-01-03"}
    assert world.online_keys() > 1000
    assert rows(backfill, "lake/planes") == {3322}


def test_the_daily_run_takes_the_next_day(world, backfill):
    before = world.lake.versions()
    result = world.run("daily", "2013-01-04")
    assert result.success
    assert rows(result, "lake/flights") == {world.lake.snapshot("flights").rows_per_day()[dt.date(2013, 1, 4)]}
    assert world.lake.versions()["feature_carrier_history"] == before["feature_carrier_history"] + 1


def test_a_repeated_run_changes_no_data(world, backfill):
    before = {
        table: world.lake.read(table).num_rows for table in world.lake.tables()
    } | {"flights version": world.lake.version("flights")}  # fmt: skip
    result = world.run("daily", "2013-01-04")
    after = {
        table: world.lake.read(table).num_rows for table in world.lake.tables()
    } | {"flights version": world.lake.version("flights")}  # fmt: skip
    assert result.success
    assert rows(result, "lake/flights") == rows(result, "lake/weather") == rows(result, "lake/planes") == {0}
    assert after == before


@pytest.fixture
def broken_weather(world):
    """A storm of a thousand miles an hour on the fifth."""
    from pipelines.flights import use_case

    table = next(item for item in use_case.USE_CASE.tables if item.name == "weather")
    read = table.read_day

    def storm(day: dt.date) -> pl.DataFrame:
        return read(day).with_columns(wind_speed_mph=pl.lit(1048.0, pl.Float32))

    object.__setattr__(table, "read_day", storm)  # frozen; the definitions hold this very object
    yield
    object.__setattr__(table, "read_day", read)


def test_a_quarantined_day_fails_its_check_and_stops_what_follows(world, backfill, broken_weather):
    world.clock(dt.datetime(2013, 1, 6, 12, tzinfo=dt.UTC))
    versions = world.lake.versions()
    result = world.run("daily", "2013-01-05")
    assert not result.success
    check = next(it for it in result.get_asset_check_evaluations() if it.asset_key.path[-1] == "weather")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    failures = check.metadata["failures"].records
    assert failures[0].data["column"] == "wind_speed_mph"
    assert "2013-01-05 quarantined" in check.description
    assert len(quarantine.find(world.layout.quarantine, "weather", dt.date(2013, 1, 5))) == 1
    started = {event.step_key for event in result.all_node_events if event.is_step_start}
    assert not started & {"features", "online_features"}
    assert world.lake.versions()["feature_weather"] == versions["feature_weather"]


def test_a_bad_day_is_not_tried_again_and_again(world):
    failed = world.instance.get_runs()[0]
    kinds = [it.dagster_event.event_type_value for it in world.instance.all_logs(failed.run_id) if it.is_dagster_event]
    assert "STEP_FAILURE" in kinds and "STEP_UP_FOR_RETRY" not in kinds


def test_the_mended_day_heals_and_goes_on(world, backfill):
    result = world.run("daily", "2013-01-05")
    assert result.success
    assert all(item.resolved for item in quarantine.find(world.layout.quarantine, "weather"))


def test_a_day_ahead_of_the_clock_is_a_warning_and_makes_nothing(world, backfill):
    result = world.run("daily", "2013-01-20")
    assert result.success
    warned = [it for it in result.get_asset_check_evaluations() if not it.passed]
    assert warned and all(it.severity is dg.AssetCheckSeverity.WARN for it in warned)
    assert not rows(result, "features/weather")
    assert dt.date(2013, 1, 20) not in world.lake.snapshot("flights").rows_per_day()


def test_prediction_records_are_drained(world):
    result = world.jobs["predictions"].execute_in_process(instance=world.instance)
    assert rows(result, "lake/predictions") == {0}


def test_another_use_case_has_its_own_assets_and_none_of_flights():
    script = (
        "import json, sys; from pipelines.orchestration.definitions import defs; "
        "keys = [key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()]; "
        "jobs = [job.name for job in defs.resolve_all_job_defs()]; "
        "print(json.dumps([keys, jobs, [name for name in sys.modules if name.startswith('pipelines.flights')]]))"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHTDECK_")}
    environment = inherited | {
        "PYTHONPATH": f"{BIKES}{os.pathsep}{REPOSITORY}",
        USE_CASE_ENV: "bike_share.use_case:USE_CASE",
        "FLIGHTDECK_SPECS": str(BIKES / "specs"),
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    keys, jobs, flights = json.loads(done.stdout)
    assert {"lake/readings", "lake/stations", "features/station_now", "candidate/full", "version/full"} <= set(keys)
    assert {"daily", "backfill", "train_full", "gate_full"} <= set(jobs)
    assert not flights
