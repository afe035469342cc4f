"""The champion answers through the Gateway, whole."""

from __future__ import annotations

import httpx

from flightdeck.cluster.champion import serving
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import PLATFORM, SERVING
from tests.e2e.conftest import predict, until_ready


def test_every_part_is_ready(kubectl: Kubectl):
    until_ready(kubectl)


def test_the_champion_answers_with_fresh_features(url: str, body: bytes, kubectl: Kubectl, model: str):
    answer = predict(url, body)
    (row,) = answer["predictions"]
    assert 0 < row["score"] < 1
    assert row["degraded"] == []
    release = serving(kubectl, model)
    assert release is not None
    assert httpx.get(f"{url}/v1/model").json()["version"] == release.model.version


def test_the_champion_is_named_by_digests_and_its_pods_mount_exactly_that(kubectl: Kubectl, model: str):
    release = serving(kubectl, model)
    assert release is not None and release.model.image is not None and "@sha256:" in release.image
    pods = kubectl.get("pods", "-n", SERVING, "-l", f"flightdeck.dev/release={release.id}")["items"]
    assert len(pods) == kubectl.get("modelrollout", model, "-n", SERVING)["spec"]["replicas"]
    for pod in pods:
        volumes = [it["image"]["reference"] for it in pod["spec"]["volumes"] if "image" in it]
        assert volumes == [release.model.image]
        assert {it["image"] for it in pod["spec"]["containers"]} == {release.image}


def test_kubectl_tells_the_story_in_one_line(kubectl: Kubectl, model: str):
    line = kubectl("get", "modelrollouts", model, "-n", SERVING)
    release = serving(kubectl, model)
    assert release is not None
    assert model in line and f"v{release.model.version}" in line


def test_the_web_pages_answer(kubectl: Kubectl):
    from flightdeck.cluster.forward import forward

    for service, port, path in (
        ("mlflow", 5000, "/"),
        ("dagster-webserver", 3000, "/"),
        ("prometheus", 9090, "/-/ready"),
    ):
        with forward(kubectl, PLATFORM, service, port) as at:
            assert httpx.get(f"{at}{path}", follow_redirects=True).status_code == 200, service
