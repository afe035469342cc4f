"""A release as Deployment, Service and route."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator import workloads
from services.rollout_operator.workloads import NotPlaceable

CODE = f"localhost:5001/flightdeck/predictor@sha256:{'c' * 64}"
MODEL = f"localhost:5001/flightdeck/models/late@sha256:{'d' * 64}"
TEMPLATE: dict[str, Any] = {
    "metadata": {"name": "predictor"},
    "template": {
        "metadata": {"labels": {"app.kubernetes.io/name": "predictor"}},
        "spec": {
            "containers": [
                {
                    "name": "predictor", "image": CODE,
                    "env": [{"name": "PREDICTOR_DRAIN_S", "value": "2"}, {"name": "PREDICTOR_RELEASE", "value": "old"}],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    },
}  # fmt: skip


def release(image: str | None = MODEL, version: str = "7") -> Release:
    model = ModelRef(name="late", version=version, sha256="a" * 64, image=image)
    return Release.model_validate({"image": CODE, "model": model, "featureService": "late_v1"})


def objects(of: Release | None = None) -> list[dict[str, Any]]:
    return workloads.release_objects(TEMPLATE, of or release(), namespace="n", replicas=3, owner=None)


def test_the_model_is_mounted_by_digest_where_the_predictor_looks_for_it():
    deployment, _ = objects()
    spec = deployment["spec"]["template"]["spec"]
    assert {"name": "model", "image": {"reference": MODEL, "pullPolicy": "IfNotPresent"}} in spec["volumes"]
    (container,) = spec["containers"]
    env = {it["name"]: it["value"] for it in container["env"]}
    mounts = {it["name"]: it["mountPath"] for it in container["volumeMounts"]}
    assert mounts["model"] == f"{env['PREDICTOR_ARTEFACTS']}/{env['PREDICTOR_MODEL_SHA256']}"
    assert env["PREDICTOR_RELEASE"] == release().id and env["PREDICTOR_DRAIN_S"] == "2"
    assert len(env) == len(container["env"])
    assert mounts["tmp"] == "/tmp"


def test_the_template_is_not_changed():
    before = copy.deepcopy(TEMPLATE)
    objects()
    assert before == TEMPLATE


def test_two_releases_share_no_pods_and_the_service_finds_its_own():
    (one, service), (other, _) = objects(), objects(release(version="8"))
    assert one["metadata"]["name"] != other["metadata"]["name"]
    selector = one["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"] == selector
    assert selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()
    assert not selector.items() <= other["spec"]["template"]["metadata"]["labels"].items()


def test_a_model_that_is_in_no_registry_cannot_be_placed():
    with pytest.raises(NotPlaceable, match="no OCI registry"):
        objects(release(image=None))


def test_code_that_is_not_named_by_digest_is_refused():
    assert workloads.code_image(TEMPLATE) == CODE
    loose = copy.deepcopy(TEMPLATE)
    loose["template"]["spec"]["containers"][0]["image"] = "flightdeck/predictor:dev"
    with pytest.raises(NotPlaceable, match="not named by digest"):
        workloads.code_image(loose)


def test_a_template_without_the_predictor_is_refused():
    other = copy.deepcopy(TEMPLATE)
    other["template"]["spec"]["containers"][0]["name"] = "web"
    with pytest.raises(NotPlaceable, match="it has: web"):
        workloads.release_objects(other, release(), namespace="n", replicas=1, owner=None)


def test_git_says_where_a_route_hangs_and_a_rollout_what_it_routes_to():
    git = workloads.git_route("late", namespace="n", alone=True)
    own = workloads.http_route("late", {"late-a": 90, "late-b": 10}, namespace="n")
    assert set(git["spec"]) == {"parentRefs"} and set(own["spec"]) == {"rules"}
    assert git["metadata"] == own["metadata"]
    assert [(it["name"], it["weight"]) for it in own["spec"]["rules"][0]["backendRefs"]] == [
        ("late-a", 90),
        ("late-b", 10),
    ]
    assert workloads.git_route("late", namespace="n", alone=False)["spec"]["hostnames"] == ["late.localhost"]


@pytest.mark.parametrize("weights", [{"a": 90, "b": 20}, {"a": 110, "b": -10}])
def test_weights_that_are_no_shares_are_refused(weights: dict[str, int]):
    with pytest.raises(ValueError, match="together 100"):
        workloads.http_route("late", weights, namespace="n")


def test_the_first_champion_is_told_with_its_release():
    status = workloads.first_champion_status(release(), replicas=3, at="2026-01-01T00:00:00Z")
    assert Release.model_validate(status["champion"]) == release()
    assert status["conditions"][0]["type"] == "Complete"


def test_where_a_model_lies_does_not_make_another_release():
    assert release().id == release(image=None).id != release(version="8").id
