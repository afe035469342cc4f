"""Every flow in the table of docs/kubernetes.md passes on the cluster, and what the table does not name is refused.

Each source of the table tries each destination of the table: a destination is seen to answer from where it is named
before its silence towards the others means anything.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import re
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import CHECKOUT, IMAGES, PLATFORM, SERVING
from tests.contract.k8s.conftest import table, workloads
from tests.e2e.conftest import predict
from tests.e2e.probes import OPEN, Probe, attempts, running

NAME = "app.kubernetes.io/name"
USES = "flightdeck.dev/uses-"
OURS = (PLATFORM, SERVING)
EVERY_POD = "every pod"
BY_EFFECT = ("prometheus", "the Gateway's proxies")  # images of others, without Python: what they do shows what passes
OUTSIDE, OUTSIDE_PLACE, OUTSIDE_SOURCES = "the internet", "1.1.1.1:443", ("runs", "predictor", "dagster-daemon")
SETTLE_S = 3.0  # a policy reaches a new pod a moment after its address is known
Object = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """A destination: pods that a policy selects, or a fixed place."""

    name: str
    port: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    place: str = ""

    def at(self, pods: list[Object], asking: Object) -> str:
        """`host:port` for a pod that asks; of several pods another one than itself, which it always reaches."""
        if self.place:
            return self.place
        found = [
            it["status"]["podIP"] for it in pods
            if it["metadata"]["namespace"] == self.namespace
            and set(self.labels) <= set(it["metadata"].get("labels", {}).items())
        ]  # fmt: skip
        assert found, f"{self.name}: no ready pod in {self.namespace} has the labels {dict(self.labels)}"
        return f"{next((it for it in found if it != asking['status']['podIP']), found[0])}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Flow:
    """One row of the table; `home` is the namespace whose pods ask."""

    row: str
    sources: tuple[str, ...]
    home: str
    target: Target


def flows_of(kubectl: Kubectl) -> list[Flow]:
    """The table, with what its policies select on the cluster."""
    policies = [it for namespace in OURS for it in kubectl.get("networkpolicies", "-n", namespace)["items"]]
    flows = []
    for source, to, port, named in table((CHECKOUT / "docs" / "kubernetes.md").read_text(), "Network flows"):
        mine = [it for it in policies if f"`{it['metadata']['name']}`" in named]
        assert mine, f"{source} -> {to}: the cluster has none of the policies {named}"
        words = [it.removeprefix("flightdeck.dev/") for it in re.findall(r"`([^`]+)`", source)]
        workloads_named = [it for it in words if not it.startswith("uses-")]
        home = next((it["metadata"]["namespace"] for it in mine if "egress" in it["spec"]), "")
        target = target_of(kubectl, to.split(",")[0], port.split(",")[0], mine)
        flows.append(Flow(f"{source} -> {to}", tuple(workloads_named or words or [source]), home, target))
    return flows


def target_of(kubectl: Kubectl, to: str, port: str, policies: list[Object]) -> Target:
    """Whom the destination's own policy protects, else whom the source's policy selects."""
    for it in policies:
        if "ingress" in it["spec"]:
            labels = it["spec"]["podSelector"]["matchLabels"]
            return Target(f"{to}:{port}", port, it["metadata"]["namespace"], tuple(labels.items()))
    (peer,) = policies[0]["spec"]["egress"][0]["to"]
    if "podSelector" in peer:
        namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        return Target(f"{to}:{port}", port, namespace, tuple(peer["podSelector"]["matchLabels"].items()))
    places = {
        "the API server": f"kubernetes.default.svc:{port}",
        "the registry": urlsplit(environment(kubectl)["FLIGHTDECK_MODEL_PUSH"]).netloc,
    }
    assert to in places, f"{to}: it is no pod, and this test does not know its address"
    return Target(f"{to}:{port}", port, place=places[to])


def environment(kubectl: Kubectl) -> dict[str, str]:
    found: dict[str, str] = kubectl.get("configmap", "flightdeck-env", "-n", PLATFORM)["data"]
    return found


def ready_pods(kubectl: Kubectl) -> list[Object]:
    def ready(pod: Object) -> bool:
        conditions = {it["type"]: it["status"] for it in pod["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]

    return [it for it in kubectl.get("pods", "-A")["items"] if ready(it)]


def labels_of_jobs(kubectl: Kubectl) -> dict[str, dict[str, str]]:
    """Of each workload whose pods come and go: the labels that open flows to it."""
    jobs = workloads(kubectl.get("jobs,cronjobs", "-n", PLATFORM)["items"])
    found = {it.labels.get(NAME, it.name): it.labels for it in jobs}
    dagster = yaml.safe_load(kubectl.get("configmap", "dagster-instance", "-n", PLATFORM)["data"]["dagster.yaml"])
    found["runs"] = dagster["run_launcher"]["config"]["run_k8s_config"]["pod_template_spec_metadata"]["labels"]
    return {name: {k: v for k, v in labels.items() if k.startswith(USES)} for name, labels in found.items()}


def sources_of(kubectl: Kubectl, flows: list[Flow], pods: list[Object]) -> tuple[dict[str, Object], dict[str, Probe]]:
    """Who asks: pods of ours as they are, and probes with the labels of what does not run just now or is not ours."""
    real, probes = {}, {f"stranger in {it}": Probe("flow-stranger", it, {}) for it in (*OURS, "default")}
    jobs = labels_of_jobs(kubectl)
    for flow in flows:
        for name in set(flow.sources) - {EVERY_POD, *BY_EFFECT}:
            alive = [it for it in pods if it["metadata"].get("labels", {}).get(NAME) == name]
            if alive and any(image in alive[0]["spec"]["containers"][0]["image"] for image in IMAGES):
                real[name] = alive[0]
            else:
                labels = {f"flightdeck.dev/{name}": "true"} if name.startswith("uses-") else jobs.get(name)
                assert labels, f"{flow.row}: the cluster has neither a pod nor a Job of {name}"
                probe = Probe(f"flow-{name}", flow.home, labels)
                probes[name] = next((it for it in probes.values() if it.alike(probe)), probe)
    return real, probes


def seen_by_prometheus(kubectl: Kubectl) -> set[str]:
    """Names of the destinations that Prometheus reaches, by what it scrapes with success."""
    with forward(kubectl, PLATFORM, "prometheus", 9090) as at:
        found = httpx.get(f"{at}/api/v1/query", params={"query": "up == 1"}, timeout=10).json()["data"]["result"]
    jobs = {(it["metric"]["job"], it["metric"].get("component")) for it in found}
    return {
        name for name, reached in {
            "predictors": ("pods", "predictor") in jobs,
            "the Gateway's proxies": any(job == "gateway" for job, _ in jobs),
            "the API server": any(job != "prometheus" for job, _ in jobs),  # which told it of pods
        }.items() if reached
    }  # fmt: skip


def tried(
    kubectl: Kubectl, sources: dict[str, Object], targets: list[Target], pods: list[Object]
) -> dict[tuple[str, str], str]:
    """Of each source and destination: what came of it. A pod is not asked about itself."""

    def ask(name: str) -> dict[tuple[str, str], str]:
        asking = sources[name]
        places = {it.name: it.at(pods, asking) for it in targets if it.name != OUTSIDE or name in OUTSIDE_SOURCES}
        itself = f"{asking['status']['podIP']}:"
        places = {target: place for target, place in places.items() if not place.startswith(itself)}
        told = attempts(kubectl, asking, list(places.values()))
        return {(name, target): told[place] for target, place in places.items()}

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return {pair: said for found in pool.map(ask, sources) for pair, said in found.items()}


def nobodys(source: Object, target: Target, nodes: set[str]) -> str:
    """Why no policy of ours refuses what no row names; empty when one must."""
    if source["metadata"]["namespace"] not in OURS and target.namespace not in OURS:
        return "neither end is ours"
    if target.name.startswith("the API server") and source["status"]["hostIP"] in nodes:
        return "the API server is on the pod's own node, which a pod always reaches"
    if target.name == OUTSIDE and f"{USES}api-server" in source["metadata"]["labels"]:
        return "who may ask the API server may ask any address at its port"
    return ""


def nodes_of_api_server(kubectl: Kubectl) -> set[str]:
    found = kubectl.get("endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    return {address for it in found for end in it["endpoints"] for address in end["addresses"]}


@pytest.mark.usefixtures("settled")
def test_named_flows_pass_and_all_others_are_refused(
    kubectl: Kubectl, url: str, body: bytes, capsys: pytest.CaptureFixture[str]
):
    flows, pods, nodes = flows_of(kubectl), ready_pods(kubectl), nodes_of_api_server(kubectl)
    targets = {it.target.name: it.target for it in flows} | {OUTSIDE: Target(OUTSIDE, "443", place=OUTSIDE_PLACE)}
    real, probes = sources_of(kubectl, flows, pods)
    with running(kubectl, probes) as made:
        sources = real | made
        named = {(name, it.target.name) for it in flows for name in it.sources if name in sources}
        named |= {
            (name, it.target.name) for it in flows if EVERY_POD in it.sources
            for name in sources if sources[name]["metadata"]["namespace"] in OURS
        }  # fmt: skip
        whys = {(name, to): nobodys(sources[name], targets[to], nodes) for name in sources for to in targets}
        for _ in range(2):  # a busy node may lose a try, and be late with a new pod's policies
            time.sleep(SETTLE_S)
            found = tried(kubectl, sources, list(targets.values()), pods)
            blocked = {pair: found[pair] for pair in named if found[pair] != OPEN}
            passed = {pair: it for pair, it in found.items() if it == OPEN and pair not in named and not whys[pair]}
            if not blocked and not passed:
                break
    assert not blocked, "the table names these, and they did not pass: " + words(blocked)
    assert not passed, "no row names these, and they passed: " + words(passed)

    seen = seen_by_prometheus(kubectl)
    effects = {(name, it.target.name): "seen" for it in flows for name in it.sources if name in BY_EFFECT}
    unseen = [to for name, to in effects if name == "prometheus" and to.split(":")[0] not in seen]
    assert not unseen, f"Prometheus does not reach {unseen}; it reaches {sorted(seen)}"
    assert predict(url, body)["predictions"], "the Gateway's proxies reach no predictor"
    untried = [it.row for it in flows if it.target.name not in {to for _, to in [*named, *effects]}]
    assert not untried, f"nothing in this test tries {untried}"

    refused = {pair: it for pair, it in found.items() if it != OPEN and pair not in named}
    free = {pair for pair, it in found.items() if it == OPEN and pair not in named}
    there = any(to == OUTSIDE for _, to in free)  # asked by the one who may
    outside = (
        f"answers who may ask ({OUTSIDE_PLACE})" if there else "answers nobody from here: its silence shows nothing"
    )
    with capsys.disabled():
        print(f"\n  {len(named)} named flows tried and open, from {len(real)} pods of ours and {len(probes)} probes")
        print(f"  by their effect: {words(effects)}")
        print(f"  {len(refused)} unnamed ones tried and refused, e.g. {words(dict(sorted(refused.items())[::20]))}")
        print(f"  {OUTSIDE} {outside}")
        print(f"  {len(free)} more are not ours to refuse: {'; '.join(sorted({whys[it] for it in free}))}")


def words(pairs: dict[tuple[str, str], str]) -> str:
    return "; ".join(f"{source} -> {target} ({said})" for (source, target), said in sorted(pairs.items()))
