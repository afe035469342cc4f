"""The registry after apply against definitions.py, and what plan and apply refuse."""

import dataclasses
import datetime as dt
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flightdeck.contracts.layout import StateLayout
from pipelines.features import registry
from pipelines.features.materialize import materialize
from pipelines.features.registry import DestructiveChange, RegistryError
from pipelines.features.registry_changes import Effect, compare

pytestmark = pytest.mark.xdist_group("feast")  # its import and the state folder cost seconds, once

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> StateLayout:
    found = StateLayout(tmp_path_factory.mktemp("registry-state"))
    os.environ.pop(registry.CONFIG_ENV, None)
    registry.apply(found)
    return found


def names(store) -> dict[str, set[str]]:
    return {
        "entities": {item.name for item in store.list_entities()} - {"__dummy"},
        "views": {item.name for item in store.list_feature_views()},
        "on demand": {item.name for item in store.list_on_demand_feature_views()},
        "services": {item.name for item in store.list_feature_services()},
    }


def defined() -> dict[str, set[str]]:
    from feature_repo.entities import ENTITIES
    from feature_repo.feature_services import SERVICES
    from feature_repo.views import VIEWS, calendar

    return {
        "entities": {item.name for item in ENTITIES.values()},
        "views": set(VIEWS),
        "on demand": {calendar.name},
        "services": set(SERVICES),
    }


def test_the_registry_holds_what_the_definitions_say(layout):
    assert names(registry.open_store(layout)) == defined()
    assert registry.plan(layout) == []


def test_applying_again_changes_nothing(layout):
    assert registry.apply(layout) == []


def test_a_view_that_left_the_definitions_is_deleted_only_when_approved(layout, monkeypatch):
    everything, services = registry.defined_objects(layout), defined()["services"]
    removed = {*services, "weather", "weather_batch"}
    without = [item for item in everything if item.name not in removed]
    monkeypatch.setattr(registry, "defined_objects", lambda _: without)
    destroyed = {change.name for change in registry.plan(layout) if change.effect is Effect.DESTROYS}
    assert destroyed >= {*services, "weather"}
    with pytest.raises(DestructiveChange, match="weather: removed"):
        registry.apply(layout)
    assert names(registry.open_store(layout)) == defined()
    monkeypatch.setenv(registry.ONLINE_REDIS_ENV, "127.0.0.1:1")
    with pytest.raises(RegistryError, match=r"registry is changed, but 127.0.0.1:1 does not answer"):
        registry.apply(layout, approve=True)
    left = names(registry.open_store(layout))
    assert left["views"] == defined()["views"] - {"weather"}
    assert left["services"] == set()
    monkeypatch.undo()
    registry.apply(layout)
    assert names(registry.open_store(layout)) == defined()


def test_without_a_registered_view_there_is_nothing_to_materialize_and_that_is_an_error(tmp_path):
    layout = StateLayout(tmp_path)
    folder = layout.exports / "current"
    folder.mkdir(parents=True)
    (folder / "export.json").write_text('{"id": "x", "table_versions": {}, "rows": {}}')
    with pytest.raises(RegistryError, match="flightdeck features apply"):
        materialize(layout, dt.datetime(2013, 1, 1, tzinfo=dt.UTC))


def test_a_registry_that_is_no_database_is_told(tmp_path):
    layout = StateLayout(tmp_path)
    layout.feast_registry.write_text("no database")
    with pytest.raises(RegistryError, match="cannot be opened"):
        registry.plan(layout)


def test_a_changed_keys_or_type_is_destructive(layout, monkeypatch):
    everything = [registry.describe(item) for item in registry.defined_objects(layout)]
    view = next(item for item in everything if item.name == "weather")
    changed = dataclasses.replace(view, facts={**view.facts, "feature temp_f": "Int64"})
    before, after = ({(item.kind, item.name): item} for item in (view, changed))
    [change] = compare(before, after)
    assert (change.effect, change.before[:7], change.after) == (Effect.DESTROYS, "Float32", "Int64")


def test_only_one_process_applies_at_a_time(layout):
    layout.run.mkdir(parents=True, exist_ok=True)
    with (layout.run / "features-apply.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RegistryError, match="another process is applying"):
            registry.apply(layout)
    assert registry.apply(layout) == []


def test_feast_apply_in_the_folder_registers_the_same(tmp_path):
    """As a user types it, with the cluster's settings pointed at a scratch registry."""
    layout = StateLayout(tmp_path)
    environment = {
        **os.environ,
        "FLIGHTDECK_STATE": str(tmp_path),
        "FLIGHTDECK_FEAST_REGISTRY": f"sqlite:///{layout.feast_registry}",
        "FLIGHTDECK_ONLINE_REDIS": "127.0.0.1:1",
        registry.CONFIG_ENV: "feature_store_cluster.yaml",
    }
    feast = Path(sys.executable).parent / "feast"
    done = subprocess.run(
        [feast, "apply"], cwd=ROOT / "feature_repo", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert names(registry.open_store(layout)) == defined()
    assert registry.plan(layout) == []


def test_what_a_served_release_reads_is_not_removed_although_approved(layout, monkeypatch):
    everything = registry.defined_objects(layout)
    without = [item for item in everything if item.name != "late_v1"]
    monkeypatch.setattr(registry, "defined_objects", lambda _: without)
    with pytest.raises(registry.ProtectedChange, match=r"late_v1: removed .*expand: .*roll out .*contract"):
        registry.apply(layout, approve=True, protect=["late_v1"])
    assert [service for _, service in registry.not_allowed(layout, ["late_v1"])] == ["late_v1"]
    assert registry.not_allowed(layout, ["late_v2"]) == []
    monkeypatch.undo()
    assert names(registry.open_store(layout)) == defined()


def test_protected_services_come_from_the_caller_and_the_environment(monkeypatch):
    monkeypatch.setenv(registry.PROTECTED_ENV, "late_v1, delay_v1,")
    assert registry.protected_services(["late_v2"]) == ["delay_v1", "late_v1", "late_v2"]


def test_a_variable_that_the_clusters_settings_need_and_lack_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(registry.CONFIG_ENV, "feature_store_cluster.yaml")
    monkeypatch.delenv("FLIGHTDECK_FEAST_REGISTRY", raising=False)
    monkeypatch.setenv(registry.ONLINE_REDIS_ENV, "valkey:6379,password=a: b#c")
    with pytest.raises(RegistryError, match=r"needs \$\{FLIGHTDECK_FEAST_REGISTRY\}"):
        registry.plan(StateLayout(tmp_path))
    monkeypatch.setenv("FLIGHTDECK_FEAST_REGISTRY", f"sqlite:///{tmp_path}/r.db")
    assert registry.settings(StateLayout(tmp_path))["online_store"]["connection_string"].endswith("=a: b#c")
