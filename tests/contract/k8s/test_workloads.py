"""What holds of every workload in every overlay."""

from __future__ import annotations

import re

import pytest
import yaml

from flightdeck.cluster.manifests import OURS
from flightdeck.delivery.manifests import rules

from .conftest import K8S, OVERLAYS, Document, Workload, render, workloads

MAY_ASK_THE_API_SERVER = {"dagster-daemon", "dagster-webserver", "prometheus", "rollout-operator"}

Overlay = tuple[str, list[Document]]


def complaints(overlay: Overlay, rule: object) -> list[str]:
    return [f"{overlay[0]}: {it}: {said}" for it in workloads(overlay[1]) for said in rule(it)]  # type: ignore[operator]


def test_the_base_renders_alone_and_without_a_store():
    kinds = {document["kind"] for document in render(K8S / "base")}
    assert "Deployment" in kinds and "StatefulSet" not in kinds


def test_every_component_renders_alone():
    for folder in sorted((K8S / "components").glob("*/kustomization.yaml")):
        if yaml.safe_load(folder.read_text())["kind"] == "Kustomization":
            assert render(folder.parent)


def test_no_rule_that_the_gate_of_manifests_holds_is_broken(overlay: Overlay):
    """Pods shut, bounded and not root; images exact, by digest in production; all traffic denied; no Secret."""
    name, documents = overlay
    found = [f"{it.where}: {it.what}" for it in rules.broken(documents, by_digest=name == "production")]
    assert not found, f"{name}: {found}"


def test_the_namespaces_are_the_two_that_the_rules_look_at(overlay: Overlay):
    names = {it["metadata"]["name"] for it in overlay[1] if it["kind"] == "Namespace"}
    assert names == {"flightdeck-platform", "flightdeck-serving"}


def test_every_server_has_probes_that_fit_it(overlay: Overlay):
    def rule(it: Workload):
        if not it.stays:
            return
        for container in it.pod["containers"]:
            wanted = {"startupProbe", "livenessProbe"} | ({"readinessProbe"} if container.get("ports") else set())
            if missing := wanted - set(container):
                yield f"{container['name']}: no {missing}"

    assert not complaints(overlay, rule)


def test_a_predictor_is_ready_by_its_model_and_alive_by_itself(kind_overlay: list[Document]):
    container = next(it for it in workloads(kind_overlay) if it.name == "predictor").pod["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_a_predictors_grace_covers_its_drain(kind_overlay: list[Document]):
    pod = next(it for it in workloads(kind_overlay) if it.name == "predictor").pod
    environment = next(
        it for it in kind_overlay
        if it["kind"] == "ConfigMap" and it["metadata"].get("namespace") == "flightdeck-serving"
        and it["metadata"]["name"] == "flightdeck-env"
    )["data"]  # fmt: skip
    pause_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest_request_s, flush_s = 10, 5  # defaults of PREDICTOR_REQUEST_TIMEOUT_S and PREDICTOR_LOG_FLUSH_TIMEOUT_S
    needed_s = pause_s + float(environment["PREDICTOR_DRAIN_S"]) + longest_request_s + flush_s
    assert pod["terminationGracePeriodSeconds"] > needed_s


def test_everything_stops_within_a_stated_time_and_has_its_rank(overlay: Overlay):
    def rule(it: Workload):
        if it.stays and "terminationGracePeriodSeconds" not in it.pod:
            yield "no terminationGracePeriodSeconds"
        if not str(it.pod.get("priorityClassName", "")).startswith("flightdeck-"):
            yield "no priority class"
        if it.stays and not it.pod.get("topologySpreadConstraints"):
            yield "no topology spread"

    assert not complaints(overlay, rule)


def test_everything_that_stays_has_a_disruption_budget(overlay: Overlay):
    budgets = [
        (it["metadata"]["namespace"], it["spec"]["selector"]["matchLabels"].items())
        for it in overlay[1]
        if it["kind"] == "PodDisruptionBudget"
    ]

    def rule(it: Workload):
        held = [b for namespace, b in budgets if namespace == it.namespace and b <= it.labels.items()]
        if it.stays and len(held) != 1:
            yield f"{len(held)} disruption budgets"

    assert not complaints(overlay, rule)


def test_every_workload_is_somebody_of_its_own(overlay: Overlay):
    names = [it.pod.get("serviceAccountName", "default") for it in workloads(overlay[1])]
    made = {it["metadata"]["name"] for it in overlay[1] if it["kind"] == "ServiceAccount"}
    assert len(set(names)) == len(names) and set(names) <= made, sorted(names)


def test_only_who_needs_it_can_ask_the_api_server(overlay: Overlay):
    def rule(it: Workload):
        asks = it.pod.get("automountServiceAccountToken") is not False
        if asks != (it.name in MAY_ASK_THE_API_SERVER):
            yield "automountServiceAccountToken"

    assert not complaints(overlay, rule)


def test_a_third_party_image_has_one_tag_everywhere():
    tags: dict[str, set[str]] = {}
    for name in OVERLAYS:
        for image in rules.images(render(K8S / "overlays" / name)):
            repository, _, tag = image.partition("@")[0].rpartition(":")
            if not image.startswith(OURS):
                tags.setdefault(repository, set()).add(tag)
    assert tags and not {name: found for name, found in tags.items() if len(found) > 1}


def test_an_autoscaled_workload_has_no_replicas_in_git():
    documents = render(K8S / "overlays" / "production")
    scaled = {it["spec"]["scaleTargetRef"]["name"] for it in documents if it["kind"] == "HorizontalPodAutoscaler"}
    stated = {it["metadata"]["name"] for it in documents if it["kind"] == "Deployment" and "replicas" in it["spec"]}
    assert scaled and not scaled & stated


def cpu_milli(text: object) -> float:
    return float(str(text).removesuffix("m")) if str(text).endswith("m") else 1000 * float(str(text))


def test_the_stack_fits_a_node_with_two_cores(kind_overlay: list[Document]):
    """Of 2000m kind's own parts ask for 950m and Envoy Gateway's controller for 100m; a run or two must fit too."""
    asked = 60.0  # the proxy and its shutdown manager
    for it in workloads(kind_overlay):
        if it.stays:
            one = sum(cpu_milli(container["resources"]["requests"]["cpu"]) for container in it.pod["containers"])
            asked += one * (3 if it.name == "predictor" else 1)
    assert asked <= 700, f"{asked:.0f}m"


def test_nothing_here_knows_the_use_case():
    knowing = [
        str(path.relative_to(K8S)) for path in sorted(K8S.rglob("*")) if path.suffix in (".yaml", ".py", ".sh")
        if re.search(r"nycflights|pipelines[./]flights", path.read_text())
    ]  # fmt: skip
    assert not knowing


@pytest.mark.parametrize("name", ("kind.yaml", "kind-two-nodes.yaml"))
def test_kind_pins_its_node_image_and_listens_here_only(name: str):
    config = yaml.safe_load((K8S / name).read_text())
    for node in config["nodes"]:
        assert re.fullmatch(r"kindest/node:v1\.36\.4@sha256:[0-9a-f]{64}", node["image"])
        assert all(port["listenAddress"] == "127.0.0.1" for port in node.get("extraPortMappings", ()))


def test_every_folder_of_overlays_is_tested_here():
    assert {path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml")} == set(OVERLAYS)
