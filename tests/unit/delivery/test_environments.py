"""A file of environments is refused when it would let two of them meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightdeck.cluster.environments import placed
from flightdeck.contracts.environments import Environment, UnknownEnvironment, named, read

STAGING = Environment(name="staging", platform="s-platform", serving="s-serving", node_port_shift=1)


def written(folder: Path, text: str) -> Path:
    path = folder / "environments.yaml"
    path.write_text(text)
    return path


def test_two_environments_in_one_namespace_are_refused_unless_their_clusters_differ(tmp_path: Path):
    both = "a: {{platform: p, serving: s{one}}}\nb: {{platform: p, serving: t{two}}}\n"
    with pytest.raises(UnknownEnvironment, match="a share the namespace p; name another"):
        read(written(tmp_path, both.format(one="", two="")))
    assert set(read(written(tmp_path, both.format(one="", two=", context: other")))) == {"a", "b"}


@pytest.mark.parametrize(
    "text", ["a: {platform: p}", "a: {platform: p, serving: s, overlays: kind}", "[]", "a: {platform: P_1, serving: s}",
             "a: {platform: p, serving: s, promotes_from: b}", "a: {platform: p, serving: p}", ": :"],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, text: str):
    with pytest.raises(UnknownEnvironment, match=r"environments\.yaml"):
        read(written(tmp_path, text))


def test_an_unknown_name_is_told_with_those_that_are_there(tmp_path: Path):
    with pytest.raises(UnknownEnvironment, match=r"no environment 'prod'; .* has: a"):
        named(written(tmp_path, "a: {platform: p, serving: s}"), "prod")


def test_whole_names_move_wherever_they_stand_and_parts_of_names_stay():
    given = {
        "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "flightdeck-platform"},
        "data": {"a": "http://mlflow.flightdeck-platform:5000 my-flightdeck-platform flightdeck-platform-2",
                 "b": "priorityClassName: flightdeck-serving"},
    }  # fmt: skip
    (found,) = placed([given], STAGING)
    assert found["metadata"]["namespace"] == "s-platform"
    assert found["data"]["a"] == "http://mlflow.s-platform:5000 my-flightdeck-platform flightdeck-platform-2"
    assert found["data"]["b"] == "priorityClassName: flightdeck-serving"
    assert given["metadata"]["namespace"] == "flightdeck-platform"


def test_what_lies_outside_of_the_namespaces_gets_the_environments_name():
    role = {"kind": "Role", "metadata": {"name": "r", "namespace": "gateway"}}
    wide = {"kind": "ClusterRole", "metadata": {"name": "w"}}
    bound = {
        "kind": "RoleBinding", "metadata": {"name": "b", "namespace": "gateway"},
        "roleRef": {"kind": "Role", "name": "r"},
    }  # fmt: skip
    other = {
        "kind": "RoleBinding", "metadata": {"name": "o", "namespace": "flightdeck-serving"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
    }  # fmt: skip
    found = placed([role, wide, bound, other], STAGING)
    assert [it["metadata"]["name"] for it in found] == ["r-staging", "w-staging", "b-staging", "o"]
    assert found[2]["roleRef"]["name"] == "r-staging" and found[3]["roleRef"]["name"] == "view"


def test_node_ports_are_shifted():
    service = {"kind": "Service", "metadata": {"name": "s", "namespace": "x"}, "spec": {"ports": [{"nodePort": 30080}]}}
    assert placed([service], STAGING)[0]["spec"]["ports"][0]["nodePort"] == 30081
