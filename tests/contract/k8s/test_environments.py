"""Environments of one cluster share what Kubernetes has once, and nothing else; no name of another is left behind."""

from __future__ import annotations

import itertools
import json
import re

import pytest
import yaml

from flightdeck.cluster.environments import SHARED, placed
from flightdeck.cluster.names import BASE_PLATFORM, BASE_SERVING, ENVIRONMENTS
from flightdeck.contracts.environments import Environment, read

from .conftest import K8S, OVERLAYS, Document, render, table

ALL = read(ENVIRONMENTS)


def documents(overlay: str) -> list[Document]:
    return render(K8S / "overlays" / overlay)


def objects(found: list[Document]) -> set[tuple[str, str, str]]:
    return {
        (it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"])
        for it in found if it["kind"] not in SHARED
    }  # fmt: skip


def node_ports(found: list[Document]) -> set[str]:
    return set(re.findall(r'"nodePort": (\d+)', json.dumps(found)))


def without_priorities(found: list[Document]) -> str:
    """As text, but for the names of priority classes, which are the cluster's."""
    text = json.dumps([it for it in found if it["kind"] != "PriorityClass"])
    return re.sub(r'"priorityClassName": "[a-z-]+"', "", text)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_dev_is_what_git_says(overlay: str):
    assert placed(documents(overlay), ALL["dev"]) == documents(overlay)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"dev"}))
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_of_the_names_in_git_is_left(overlay: str, name: str):
    text = without_priorities(placed(documents(overlay), ALL[name]))
    left = [text[it.start() - 60 : it.end() + 20] for it in re.finditer(f"{BASE_PLATFORM}|{BASE_SERVING}", text)]
    assert not left


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_two_environments_of_one_cluster_share_no_object_and_no_port(overlay: str):
    found = {name: placed(documents(overlay), environment) for name, environment in ALL.items()}
    for one, other in itertools.combinations(found, 2):
        assert not objects(found[one]) & objects(found[other]), (one, other)
        assert not node_ports(found[one]) & node_ports(found[other]), (one, other)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_shared_is_the_same_in_all(overlay: str):
    def shared(environment: Environment) -> list[str]:
        found = [it for it in placed(documents(overlay), environment) if it["kind"] in SHARED]
        for it in found:
            it["metadata"] = {key: value for key, value in it["metadata"].items() if key != "namespace"}
        return sorted(json.dumps(it, sort_keys=True) for it in found)

    assert len({tuple(shared(it)) for it in ALL.values()}) == 1


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_binding_names_a_role_and_an_account_of_its_environment(kind_overlay: list[Document], name: str):
    found = placed(kind_overlay, ALL[name])
    there = objects(found)
    for it in found:
        if it["kind"] == "RoleBinding":
            space = it["metadata"]["namespace"]
            assert (it["roleRef"]["kind"], space, it["roleRef"]["name"]) in there, it["metadata"]
            for subject in it["subjects"]:
                assert ("ServiceAccount", subject.get("namespace", space), subject["name"]) in there, it["metadata"]


def test_every_priority_class_that_a_pod_names_is_there(kind_overlay: list[Document]):
    found = placed(kind_overlay, ALL["staging"])
    classes = {it["metadata"]["name"] for it in found if it["kind"] == "PriorityClass"}
    assert set(re.findall(r'"priorityClassName": "([a-z-]+)"', json.dumps(found))) <= classes


def test_an_environment_sees_only_its_own_gateway(kind_overlay: list[Document]):
    found = placed(kind_overlay, ALL["staging"])
    text = json.dumps(found)
    for it in re.findall(r'owning-gateway-name(?:": "|=)flightdeck([^}]*)', text):
        assert "owning-gateway-namespace" in it[:80] and "flightdeck-staging-serving" in it[:140], it[:160]


def test_the_text_of_config_maps_moves_too(kind_overlay: list[Document]):
    found = placed(kind_overlay, ALL["staging"])
    maps = {it["metadata"]["name"].split("-")[0]: it for it in found if it["kind"] == "ConfigMap"}
    dagster = next(it for it in found if it["kind"] == "ConfigMap" and "dagster.yaml" in it["data"])
    assert yaml.safe_load(dagster["data"]["dagster.yaml"])["run_launcher"]["config"]["job_namespace"] == (
        ALL["staging"].platform
    )
    assert maps


def test_the_table_of_environments_is_what_the_file_says():
    rows = table((K8S.parent / "docs" / "environments.md").read_text(), "What differs")
    said = {row[0]: row[1:] for row in rows}
    order = list(ALL)
    for field in ("overlay", "context", "platform", "serving", "promotes_from", "node_port_shift", "requests_per_s"):
        values = [getattr(ALL[name], field) for name in order]
        for value, cell in zip(values, said[f"`{field}`"], strict=True):
            expected = (
                f"`{value}`" if isinstance(value, str) and value else f"{value:g}" if not isinstance(value, str) else ""
            )
            assert cell.startswith(expected), (field, value, cell)
