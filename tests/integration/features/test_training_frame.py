import datetime as dt
import importlib

import polars as pl
import pytest

from feature_repo.transforms import BUILDS
from pipelines.data.lake import Lake
from pipelines.features.build import build_features, feature_table
from pipelines.features.export import ExportError, export, read_export
from pipelines.features.registry import RegistryError
from pipelines.features.training_frame import TrainingFrameError, training_frame

pytestmark = pytest.mark.xdist_group("feast")  # its import and the state folder cost seconds, once

FROM, UNTIL = (dt.datetime(2013, 1, day, 10, tzinfo=dt.UTC) for day in (3, 11))


@pytest.fixture(scope="module")
def entity(use_case, lake):
    return use_case.entity_frame(lake, FROM, UNTIL, UNTIL + dt.timedelta(days=1))


@pytest.fixture(scope="module")
def built(layout, store, entity):
    return training_frame(layout, "late_v2", entity, store=store)


def test_every_row_is_there_once_in_order_with_float32_features(built, entity):
    assert built.frame.height == entity.height > 6000
    assert built.frame.select(entity.columns).equals(entity)
    assert set(built.frame.select(built.names).dtypes) == {pl.Float32}
    assert built.matrix().shape == (entity.height, len(built.features))


def test_features_come_in_the_order_of_the_service(built, store):
    service = store.get_feature_service("late_v2")
    assert built.names == [f.name for p in service.feature_view_projections for f in p.features]
    assert {f.source for f in built.features} == {"stored", "on_demand"}
    assert {tuple(f.join_keys) for f in built.features if f.view == "route_history"} == {("dest", "origin")}


@pytest.mark.parametrize("view", list(BUILDS))
def test_the_join_is_the_last_row_within_the_ttl_by_another_program(built, layout, entity, view):
    build = BUILDS[view]
    rows = pl.read_parquet(read_export(layout).path(view)).sort("event_timestamp")
    expected = (
        entity.sort("event_timestamp")
        .join_asof(rows, on="event_timestamp", by=list(build.keys), tolerance=build.ttl, check_sortedness=False)
        .sort("row_id")
        .select(build.features)
    )
    assert built.frame.sort("row_id").select(build.features).equals(expected)
    assert expected.null_count().row(0)[0] < expected.height / 3  # in January most planes are new to the lake


def test_on_demand_features_equal_those_of_feasts_own_path(built, store, entity, layout):
    few = entity.sample(40, seed=1)
    pandas = few.select(
        "row_id", "event_timestamp", "carrier", "origin", "dest", "tailnum", "sched_dep_utc"
    ).to_pandas()
    pandas["request_carrier"], pandas["request_origin"] = pandas["carrier"], pandas["origin"]
    service = store.get_feature_service("late_v2")
    theirs = pl.from_arrow(store.get_historical_features(entity_df=pandas, features=service).to_arrow()).sort("row_id")
    ours = built.frame.filter(pl.col("row_id").is_in(few["row_id"].implode())).sort("row_id")
    assert ours.select(built.names).equals(theirs.select(pl.col(built.names).cast(pl.Float32)))


def test_a_named_export_gives_the_same_frame_after_a_newer_one(layout, use_case, store, entity, built):
    lake = Lake(layout.lake)
    build_features(use_case, lake, FROM, FROM + dt.timedelta(days=1), views=["weather"])
    newer = export(lake, layout)
    assert newer != built.export_id
    again = training_frame(layout, "late_v2", entity, built.export_id, store=store)
    assert again.export_id == built.export_id
    assert again.table_versions == built.table_versions
    assert again.frame.equals(built.frame)


def test_building_a_range_twice_changes_no_row(layout, lake, use_case):
    before = {view: pl.from_arrow(lake.read(feature_table(view))) for view in BUILDS}
    build_features(use_case, lake, FROM, UNTIL)
    for view, rows in before.items():
        order = [*BUILDS[view].keys, "event_timestamp"]
        assert pl.from_arrow(lake.read(feature_table(view))).sort(order).equals(rows.sort(order)), view


def test_an_export_of_equal_versions_is_made_once(layout, lake):
    first = export(lake, layout)
    written = read_export(layout, first).path("weather").stat().st_mtime_ns
    assert export(lake, layout) == first
    assert read_export(layout, first).path("weather").stat().st_mtime_ns == written
    assert read_export(layout).id == first


def test_an_incomplete_export_is_told_and_not_pointed_at(layout, lake):
    name = export(lake, layout)
    manifest = layout.exports / name / "export.json"
    content = manifest.read_text()
    manifest.unlink()
    try:
        with pytest.raises(ExportError, match="delete it, then export again"):
            export(lake, layout)
    finally:
        manifest.write_text(content)
    assert export(lake, layout) == name


def test_what_is_missing_is_named(layout, store, entity):
    with pytest.raises(RegistryError, match="late_v99"):
        training_frame(layout, "late_v99", entity, store=store)
    with pytest.raises(ExportError, match="no export here"):
        training_frame(layout, "late_v2", entity, "x-none", store=store)
    with pytest.raises(TrainingFrameError, match="lacks tailnum"):
        training_frame(layout, "late_v2", entity.drop("tailnum"), store=store)
    with pytest.raises(TrainingFrameError, match="needs sched_dep_utc"):
        training_frame(layout, "late_v2", entity.drop("sched_dep_utc"), store=store)
    with pytest.raises(TrainingFrameError, match="row_id must be unique"):
        training_frame(layout, "late_v2", entity.with_columns(row_id=pl.lit(1, pl.Int64)), store=store)
    with pytest.raises(TrainingFrameError, match="temp_f"):
        training_frame(layout, "late_v2", entity.with_columns(temp_f=1.0), store=store)


def test_a_table_of_an_older_definition_is_not_mixed_with_a_newer_one(lake, use_case, monkeypatch):
    import dataclasses

    build = importlib.import_module("pipelines.features.build")
    fewer = dataclasses.replace(BUILDS["weather"], features=BUILDS["weather"].features[:-1])
    monkeypatch.setitem(build.BUILDS, "weather", fewer)
    with pytest.raises(ValueError, match="visib_mi_min_3h"):
        build_features(use_case, lake, FROM, UNTIL, views=["weather"])
