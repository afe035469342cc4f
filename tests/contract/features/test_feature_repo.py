"""Facts about feature_repo/ that Feast does not check itself."""

import ast
import datetime as dt
import os
import re
from pathlib import Path

import pytest
import yaml

import feature_repo
from feature_repo.request import EXAMPLE, ON_DEMAND_FEATURES, entity_keys
from feature_repo.rowwise import CALENDAR_FEATURES
from feature_repo.transforms import BUILDS

pytestmark = pytest.mark.xdist_group("feast")  # its import and the state folder cost seconds, once

REPO = Path(feature_repo.__file__).parent
MODULES = sorted(path.name for path in REPO.glob("*.py") if path.name != "__init__.py")


@pytest.fixture(scope="module")
def definitions():
    from feature_repo import definitions

    return definitions


def test_feast_sees_definitions_alone():
    from feast.repo_operations import get_repo_files

    assert [path.name for path in get_repo_files(REPO)] == ["definitions.py"]


def test_feastignore_lists_what_exists():
    listed = [line for line in (REPO / ".feastignore").read_text().splitlines() if line and not line.startswith("#")]
    assert sorted([*listed, "definitions.py"]) == MODULES


def test_no_module_is_named_like_a_top_level_package():
    assert not {Path(name).stem for name in MODULES} & {"services", "pipelines", "flightdeck", "tests", "feature_repo"}


def test_definitions_export_every_object_once(definitions):
    from feature_repo.entities import ENTITIES
    from feature_repo.feature_services import SERVICES
    from feature_repo.views import VIEWS, calendar

    exported = [getattr(definitions, name) for name in definitions.__all__]
    for item in (*VIEWS.values(), *ENTITIES.values(), *SERVICES.values(), calendar):
        assert sum(found is item for found in exported) == 1, item.name


def test_every_feature_is_float32_and_named_once(definitions):
    names = []
    for item in (getattr(definitions, name) for name in definitions.__all__):
        for field in getattr(item, "features", None) or []:
            if not hasattr(field, "dtype"):
                continue
            assert str(field.dtype).startswith("Float32"), f"{item.name}.{field.name} is {field.dtype}"
            names.append(field.name)
    assert (
        len(names) == len(set(names)) == sum(len(build.features) for build in BUILDS.values()) + len(CALENDAR_FEATURES)
    )


def test_no_feature_is_named_like_a_label(definitions):
    assert not [name for build in BUILDS.values() for name in build.features if name.startswith("label_")]


def test_join_keys_are_those_of_a_request():
    assert {key for build in BUILDS.values() for key in build.keys} == set(entity_keys(EXAMPLE))


def test_on_demand_features_of_the_view_are_those_of_the_request(definitions):
    assert [field.name for field in definitions.calendar.features] == list(ON_DEMAND_FEATURES)


@pytest.mark.parametrize("build", BUILDS.values(), ids=list(BUILDS))
def test_a_ttl_is_whole_days_or_less_than_one(build):
    # Feast's Ibis join cannot make an interval of a day and a half.
    assert build.ttl < dt.timedelta(days=1) or build.ttl % dt.timedelta(days=1) == dt.timedelta(0)


@pytest.mark.parametrize("path", sorted(REPO.glob("feature_store*.yaml")), ids=lambda path: path.name)
def test_settings_name_one_project_and_no_variable_with_a_default(path, monkeypatch):
    text = path.read_text()
    assert not re.search(r"\$\{\w+:", text), "Feast reads ${VAR:default} as a variable of that odd name"
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "sqlite:///x.db" if "REGISTRY" in name else "localhost:6379")
    settings = yaml.safe_load(os.path.expandvars(text))
    assert settings["project"] == "flightdeck"
    assert settings["offline_store"]["type"] == "duckdb"
    assert settings["online_store"]["type"] == "redis"
    assert settings["registry"]["serve_features_while_materializing"] is True
    assert settings["entity_key_serialization_version"] == 3
    assert "$" not in str(settings)


def test_the_two_settings_differ_in_places_only():
    one, two = (
        yaml.safe_load((REPO / name).read_text()) for name in ("feature_store.yaml", "feature_store_cluster.yaml")
    )
    one["registry"]["path"] = two["registry"]["path"]
    one["online_store"]["connection_string"] = two["online_store"]["connection_string"]
    assert two["registry"].pop("sqlalchemy_config_kwargs")["pool_pre_ping"]  # SQLite has no connection to lose
    assert one == two


@pytest.mark.parametrize("name", ["transforms.py", "view_build.py", "rowwise.py", "request.py"])
def test_feature_code_imports_neither_pandas_nor_polars(name):
    tree = ast.parse((REPO / name).read_text())
    roots = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    } | {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not roots & {"pandas", "polars", "duckdb"}
