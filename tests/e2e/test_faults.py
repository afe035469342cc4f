"""Parts die under load: no user request fails while a healthy replica is there."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.champion import serving
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import PLATFORM, SERVING
from tests.e2e.conftest import first_failure, predictor_pods, until_ready

pytestmark = pytest.mark.usefixtures("settled")


def delete_pods(kubectl: Kubectl, namespace: str, label: str, *more: str) -> None:
    kubectl("delete", "pod", "-n", namespace, "-l", f"app.kubernetes.io/name={label}", "--wait=false", *more)


def test_a_predictor_pod_is_deleted(kubectl: Kubectl, model: str, load: Callable[..., Load], note: Callable[..., None]):
    users = load()
    users.more(80)
    victim = predictor_pods(kubectl, model)[0]
    kubectl("delete", "pod", victim, "-n", SERVING, "--wait=false")
    time.sleep(1)
    took = until_ready(kubectl)
    users.more(80)
    note("a predictor pod deleted", users.answers, took)
    assert not users.failed, first_failure(users.answers)
    assert victim not in predictor_pods(kubectl, model)


def test_a_predictor_pod_is_killed_without_grace(
    kubectl: Kubectl, model: str, load: Callable[..., Load], note: Callable[..., None]
):
    users = load()
    users.more(80)
    kubectl(
        "delete", "pod", predictor_pods(kubectl, model)[0], "-n", SERVING, "--grace-period=0", "--force", "--wait=false"
    )
    time.sleep(1)
    took = until_ready(kubectl)
    users.more(80)
    note("a predictor pod killed (-9)", users.answers, took)
    assert not users.failed, first_failure(users.answers)


def test_valkey_restarts(kubectl: Kubectl, load: Callable[..., Load], note: Callable[..., None]):
    users = load()
    users.more(80)
    began = time.monotonic()
    delete_pods(kubectl, PLATFORM, "valkey-online", "--grace-period=0", "--force")
    time.sleep(1)
    until_ready(kubectl)
    deadline = time.monotonic() + 120
    while any(it.reasons for it in users.more(40)):  # its features come back with the next materialization
        assert time.monotonic() < deadline, f"answers are still degraded: {users.answers[-1].reasons}"
        time.sleep(1)
    took = time.monotonic() - began
    reasons = sorted({reason for it in users.since(began) for reason in it.reasons})
    note("valkey-online restarted", users.answers, took, f"degraded: {', '.join(reasons)[:160]}")
    assert not users.failed, first_failure(users.answers)


def test_a_predictor_restarts_while_mlflow_and_the_object_store_are_down(
    kubectl: Kubectl, model: str, load: Callable[..., Load], note: Callable[..., None]
):
    users = load()
    users.more(80)
    down = [("deployment", "mlflow"), (kind_of(kubectl, "object-store"), "object-store")]
    try:
        for kind, name in down:
            kubectl("scale", kind, name, "-n", PLATFORM, "--replicas=0")
        for _, name in down:
            label = f"app.kubernetes.io/name={name}"
            kubectl("wait", "pod", "-n", PLATFORM, "-l", label, "--for=delete", "--timeout=90s", timeout_s=100)
        began = time.monotonic()
        kubectl("delete", "pod", predictor_pods(kubectl, model)[0], "-n", SERVING)
        release = serving(kubectl, model)
        assert release is not None
        until_ready(kubectl, only=lambda name: release.id in name)
        took = time.monotonic() - began
    finally:
        for kind, name in down:
            kubectl("scale", kind, name, "-n", PLATFORM, "--replicas=1")
    users.more(80)
    note("a predictor restarted while MLflow and the object store were down", users.answers, took)
    assert not users.failed, first_failure(users.answers)
    until_ready(kubectl)


def kind_of(kubectl: Kubectl, name: str) -> str:
    return "statefulset" if kubectl.find("statefulset", name, PLATFORM) else "deployment"
