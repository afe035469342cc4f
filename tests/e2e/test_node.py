"""A node stops without a word: the replicas on the other one answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.commands import Kubectl, run
from flightdeck.cluster.names import GATEWAY_NAMESPACE, PLATFORM, SERVING
from tests.e2e.conftest import first_failure, until_ready

pytestmark = [pytest.mark.exhaustive, pytest.mark.usefixtures("settled")]

NOT_READY_S, BACK_S = 90.0, 300.0


@pytest.fixture
def worker(kubectl: Kubectl) -> Iterator[str]:
    """A node whose container can be stopped; it is started again whatever happens."""
    nodes = [it["metadata"] for it in kubectl.get("nodes")["items"]]
    workers = [it["name"] for it in nodes if "node-role.kubernetes.io/control-plane" not in it["labels"]]
    if not kubectl.context.startswith("kind-") or not workers:
        pytest.skip("NOT RUN: needs kind with two nodes; kind create cluster --config k8s/kind-two-nodes.yaml")
    yield workers[0]
    run(("docker", "start", workers[0]), timeout_s=60)


def pods_on(kubectl: Kubectl, node: str, namespace: str, label: str) -> list[str]:
    at = f"--field-selector=spec.nodeName={node}"
    return [it["metadata"]["name"] for it in kubectl.get("pods", "-n", namespace, "-l", label, at)["items"]]


def ready(kubectl: Kubectl, node: str) -> bool:
    conditions = kubectl.get("node", node)["status"]["conditions"]
    return any(it["type"] == "Ready" and it["status"] == "True" for it in conditions)


@pytest.mark.timeout(900)
def test_a_node_stops(kubectl: Kubectl, model: str, worker: str, load: Callable[..., Load], note: Callable[..., None]):
    lost = pods_on(kubectl, worker, SERVING, f"flightdeck.dev/model={model}")
    assert lost, f"no predictor of {model} runs on {worker}: its loss would show nothing"
    proxies = pods_on(kubectl, worker, GATEWAY_NAMESPACE, "gateway.envoyproxy.io/owning-gateway-name=flightdeck")
    assert not proxies, "the only way in runs on the node that stops"
    beside = len(pods_on(kubectl, worker, PLATFORM, "app.kubernetes.io/part-of=flightdeck"))
    users = load()
    users.more(80)
    run(("docker", "stop", "--time", "0", worker), timeout_s=60)
    stopped = time.monotonic()
    while ready(kubectl, worker):
        assert time.monotonic() - stopped < NOT_READY_S, f"{worker} still counts as ready"
        time.sleep(1)
    known_s = time.monotonic() - stopped
    users.more(200)
    run(("docker", "start", worker), timeout_s=60)
    took = until_ready(kubectl, BACK_S)
    users.more(80)
    words = f"{len(lost)} predictors and {beside} pods of the platform on it; not ready after {known_s:.0f} s"
    note("a node stopped and started again", users.answers, took, words)
    assert not users.failed, first_failure(users.answers)
