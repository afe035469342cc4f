"""What the gate of manifests must stop: a broken manifest, a pod that is not shut, a plan without hope."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.planted.checkout import Checkout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="NOT TESTED: no kubectl, so no manifest was rendered"),
]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path)


def test_a_field_that_no_schema_has_a_pod_that_may_write_and_a_floating_image_are_refused(checkout: Checkout):
    """One commit that breaks three things: each is told with what to do."""
    prometheus = "k8s/components/monitoring/prometheus.yaml"
    checkout.edit(prometheus, "image: prom/prometheus:v3.13.4", "image: prom/prometheus:main")
    checkout.edit(prometheus, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    checkout.edit("k8s/base/platform/mlflow/server.yaml", "  revisionHistoryLimit: 3\n", "  revisionHistoryLimits: 3\n")
    ran = checkout.gate("manifests")
    assert ran.code == 1, ran.text
    assert (
        "deployment/flightdeck-platform/mlflow does not fit its schema at spec: Additional properties are not"
        in ran.text
    )
    assert "'revisionHistoryLimits' was unexpected" in ran.text
    assert "image prom/prometheus:main floats" in ran.text and "do: name it by an exact tag" in ran.text
    assert "'readOnlyRootFilesystem': False" in ran.text and "mount an emptyDir where it writes" in ran.text


def test_a_manifest_that_is_no_yaml_and_a_plan_without_hope_are_refused(checkout: Checkout):
    checkout.edit("k8s/overlays/production/environment.yaml", "  AWS_REGION: eu-central-1\n", "  AWS_REGION: [eu\n")
    checkout.edit("specs/late.rollout.yaml", "minRequests: 100, deadline: 3m", "minRequests: 100, deadline: 20s")
    ran = checkout.gate("manifests", "--rate", "50")
    assert ran.code == 1, ran.text
    assert "REFUSED: overlay production does not render" in ran.text
    assert "do: mend it until `kubectl kustomize k8s/overlays/production` prints it" in ran.text
    assert "REFUSED: specs/late.rollout.yaml: spec.plan[1].canary.deadline with 3 replicas at 50 requests" in ran.text
    assert "rollout lint FILE --rate 50` shows what the plan can find out" in ran.text


def test_without_kubectl_nothing_passes(checkout: Checkout):
    ran = checkout.gate("manifests", PATH=str(checkout.root))
    assert ran.code == 1, ran.text
    assert "install kubectl 1.35 or newer" in ran.text
