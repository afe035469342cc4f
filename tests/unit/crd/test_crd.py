"""The CRD is the typed object: made from it, and of one mind with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator import crd
from services.rollout_operator.workloads import first_champion_status
from tests.unit.crd.objects import ABSENT, CHANGES, GOOD, Object, accepted, changed, objects, problems

ROOT = Path(__file__).parents[3]
FILE = ROOT / "k8s" / "crds" / "modelrollouts.yaml"
# Refused by rules over several fields, or by a comparison of durations: e2e asks the API server about these.
BY_RULE = (
    "spec.plan",
    "spec.judge.margins",
    "spec.judge.slices",
    "spec.judge.scoreRange",
    "spec.readyDeadline",
    "metadata.name",
)
KNOWN_KEYS = {
    "type", "description", "properties", "required", "items", "enum", "pattern", "default", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems", "minLength", "maxLength", "format",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from walk(value, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def spec_schema() -> dict[str, Any]:
    return crd.schema()["properties"]["spec"]


def test_the_file_is_what_the_types_say():
    assert FILE.read_text() == crd.as_yaml(), "run `make crd`"


def test_every_node_is_structural():
    for path, node in walk(crd.schema()):
        assert set(node) <= KNOWN_KEYS, path
        assert "type" in node, path


def test_every_field_of_the_spec_is_described():
    for path, node in walk(spec_schema()):
        if not path.endswith("[]"):
            assert node.get("description"), path
        bounded = "minimum" in node or "maximum" in node
        assert not bounded or "bove" in node["description"] or "t least" in node["description"], path
        if "default" in node:
            assert f"Default: {node['default']}" in node["description"], path


UNITS = ("er cent", "alues", "hare", " %", "imes the", "airs", "nswers", "eplicas", "unit", "eaths")


def test_every_number_of_the_spec_says_in_which_unit():
    for path, node in walk(spec_schema()):
        if node["type"] in ("integer", "number") and not path.endswith("[]"):
            assert any(unit in node["description"] for unit in UNITS), f"{path}: {node['description']}"


def test_every_list_of_the_spec_says_how_many():
    for path, node in walk(spec_schema()):
        if node["type"] == "array":
            assert "items" in node["description"], path


def test_every_field_of_the_status_is_described():
    for path, node in walk(crd.schema()["properties"]["status"]):
        assert node.get("description") or path.endswith("[]"), path


def test_one_line_tells_the_story_and_a_wide_one_the_rest():
    version = crd.document()["spec"]["versions"][0]
    columns = version["additionalPrinterColumns"]
    story = [it["name"] for it in columns if not it.get("priority")]
    assert story == ["Model", "Champion", "Candidate", "Phase", "Weight", "Verdict", "Reason", "Age"]
    assert [it["name"] for it in columns if it.get("priority")] == ["Accepted", "Stopped", "Requests/s"]


def test_git_leaves_the_release_out():
    for path in ROOT.glob("specs/*.rollout.yaml"):
        content = yaml.safe_load(path.read_text())
        assert "release" not in content["spec"]
        assert not list(problems(spec_schema(), content["spec"])), path.name


def test_the_example_is_good():
    assert accepted(GOOD) and not list(problems(spec_schema(), GOOD["spec"]))


@pytest.mark.parametrize(("path", "value"), CHANGES, ids=lambda it: "absent" if it is ABSENT else str(it)[:40])
def test_the_schema_refuses_of_one_field_what_the_types_refuse(path: str, value: Any):
    made = changed(path, value)
    found = list(problems(spec_schema(), made["spec"]))
    if found:
        assert not accepted(made)
    elif not path.startswith(BY_RULE):
        assert accepted(made), path


@given(objects())
def test_what_the_types_take_the_schema_takes(made: Object):
    if accepted(made):
        assert not list(problems(spec_schema(), made["spec"]))


def test_a_status_of_the_first_champion_fits_the_schema():
    model = ModelRef(name="late", version="7", sha256="a" * 64, image=f"here/late@sha256:{'b' * 64}")
    release = Release.model_validate({"image": "code", "model": model, "featureService": "late_v1"})
    status = first_champion_status(release, replicas=3, at="2026-01-01T00:00:00Z")
    schema = crd.schema()["properties"]["status"]
    assert not list(problems(schema, status))
    told = {column["jsonPath"] for column in crd.document()["spec"]["versions"][0]["additionalPrinterColumns"]}
    assert {it.removeprefix(".status.").partition("[")[0] for it in told if it.startswith(".status")} <= set(
        schema["properties"]
    )


def test_the_scale_subresource_points_at_fields_that_exist():
    (version,) = crd.document()["spec"]["versions"]
    for path in version["subresources"]["scale"].values():
        part, name = path.removeprefix(".").split(".")
        assert name in version["schema"]["openAPIV3Schema"]["properties"][part]["properties"]


def test_a_change_leaves_the_example_alone():
    before = copy.deepcopy(GOOD)
    changed("spec.replicas", 5)
    assert before == GOOD
