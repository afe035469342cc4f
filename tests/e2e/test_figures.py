"""Speed and size that the stack promises, measured on the cluster as it stands."""

from __future__ import annotations

import datetime as dt
import json
import statistics

import pytest

from flightdeck.cluster import gateway
from flightdeck.cluster.champion import serving
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import GATEWAY_NAMESPACE, PLATFORM, SERVING
from flightdeck.contracts.layout import StateLayout
from flightdeck.lab.users import Arrival, Outcome, percentile
from flightdeck.load.incluster import run_job
from flightdeck.load.plan import LoadPlan, checked
from tests.e2e.conftest import Figures, predictor_pods, until_ready

pytestmark = pytest.mark.usefixtures("settled")

READY_S, IDLE_GB, P99_RATIO = 8.0, 4.0, 3.0
OVERLOAD_PER_S, OVERLOAD_S, ROUNDS, ROUND_S = 2000.0, 6.0, 5, 10.0


def test_one_predictor_pod_is_ready_within_seconds(kubectl: Kubectl, model: str, figures: Figures):
    before = set(predictor_pods(kubectl, model))
    kubectl("delete", "pod", min(before), "-n", SERVING)
    until_ready(kubectl)
    (name,) = set(predictor_pods(kubectl, model)) - before
    conditions = kubectl.get("pod", name, "-n", SERVING)["status"]["conditions"]
    at = {it["type"]: dt.datetime.fromisoformat(it["lastTransitionTime"]) for it in conditions}
    took = (at["Ready"] - at["PodScheduled"]).total_seconds()
    figures.add("a predictor pod, image present: from scheduled to ready", took, READY_S)


@pytest.mark.exhaustive
def test_the_idle_stack_fits_into_its_memory(kubectl: Kubectl, figures: Figures):
    used: dict[str, float] = {}
    for node in kubectl.get("nodes")["items"]:
        path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
        for pod in json.loads(kubectl("get", "--raw", path))["pods"]:
            space = pod["podRef"]["namespace"]
            if space in (PLATFORM, SERVING, GATEWAY_NAMESPACE):
                of = sum(it.get("memory", {}).get("workingSetBytes", 0) for it in pod.get("containers", ()))
                used[pod["podRef"]["name"]] = of / 1e9
    assert any(name.startswith("mlflow") for name in used), "the kubelet tells no memory of the stack's pods"
    figures.add("working set of the idle stack with Envoy Gateway", sum(used.values()), IDLE_GB, "GB")


@pytest.mark.exhaustive
def test_p99_through_the_gateway_is_near_that_of_a_pod(kubectl: Kubectl, model: str, body: bytes, figures: Figures):
    def measured(url: str, rate_per_s: float, seconds: float) -> list[Outcome]:
        plan = checked(LoadPlan(url, rate_per_s, seconds, "", ""))
        return run_job(
            kubectl, plan, [Arrival(0, "e2e", body)], registry="localhost:5001/flightdeck",
            state=StateLayout.from_env().root, tell=print,
        )  # fmt: skip

    release = serving(kubectl, model)
    assert release is not None
    through, direct = gateway.inside_url(kubectl), f"http://{model}-{release.id}.{SERVING}.svc:3000"
    crowd = [it for it in measured(through, OVERLOAD_PER_S, OVERLOAD_S) if it.ok]
    saturated_per_s = len(crowd) / (max(it.done_s for it in crowd) - min(it.sent_s for it in crowd))
    figures.add("answers a second through the Gateway, saturated", saturated_per_s, unit="/s")
    p99_ms: dict[str, list[float]] = {"direct": [], "through": []}
    for _ in range(ROUNDS):  # in turn, so that both meet whatever else the machine does
        for name, url in (("direct", direct), ("through", through)):
            outcomes = measured(url, saturated_per_s / 2, ROUND_S)
            assert all(it.ok for it in outcomes), f"{name}: {sum(not it.ok for it in outcomes)} failed"
            p99_ms[name].append(percentile([it.latency_ms for it in outcomes], 0.99))
    medians = {name: statistics.median(values) for name, values in p99_ms.items()}
    for name, value in medians.items():
        figures.add(f"p99 at half of that, {name}, median of {ROUNDS} rounds in turn", value, unit="ms")
    figures.add(
        "p99 through the Gateway as a multiple of direct", medians["through"] / medians["direct"], P99_RATIO, "x"
    )
