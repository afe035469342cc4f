"""Nothing passes but named flows, both ends of a flow agree, and docs/kubernetes.md lists them all."""

from __future__ import annotations

import re

import yaml

from .conftest import K8S, Document, table, workloads

LABEL = "flightdeck.dev/uses-"


def policies(documents: list[Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {}
    for it in documents:
        if it["kind"] == "NetworkPolicy":
            found.setdefault(it["metadata"]["name"], []).append(it)
    return found


def users(documents: list[Document]) -> dict[str, set[str]]:
    """Of each destination: the workloads that carry its label. A run's pod is written in dagster.yaml."""
    found: dict[str, set[str]] = {}
    pods = {it.name: it.labels for it in workloads(documents)}
    run = yaml.safe_load((K8S / "base/platform/dagster/dagster.yaml").read_text())["run_launcher"]["config"]
    pods["runs"] = run["run_k8s_config"]["pod_template_spec_metadata"]["labels"]
    for name, labels in pods.items():
        for label in labels:
            if label.startswith(LABEL):
                found.setdefault(label.removeprefix(LABEL), set()).add(name)
    return found


def test_both_namespaces_deny_all_in_both_directions(kind_overlay: list[Document]):
    denying = policies(kind_overlay)["default-deny"]
    assert {it["metadata"]["namespace"] for it in denying} == {"flightdeck-platform", "flightdeck-serving"}
    assert all(it["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} for it in denying)


def test_only_names_are_open_to_all(kind_overlay: list[Document]):
    wide = {
        name for name, found in policies(kind_overlay).items() for it in found
        if it["spec"]["podSelector"] in ({}, None)
    }  # fmt: skip
    assert wide == {"default-deny", "all-to-dns"}


def test_every_policy_is_for_one_way_and_names_its_ports(kind_overlay: list[Document]):
    for name, found in policies(kind_overlay).items():
        for it in found:
            if name == "default-deny":
                continue
            assert len(it["spec"]["policyTypes"]) == 1, name
            for rule in it["spec"].get("ingress", []) + it["spec"].get("egress", []):
                assert rule.get("ports") and (rule.get("from") or rule.get("to")), f"{name}: a rule that is open"


def test_both_ends_of_a_flow_say_the_same_port(kind_overlay: list[Document]):
    found = policies(kind_overlay)
    for name, ingress in found.items():
        if match := re.fullmatch(r"(.+)-from-users-of-\1", name):
            egress = found[f"users-of-{match[1]}-to-{match[1]}"]
            ports = {it["spec"]["ingress"][0]["ports"][0]["port"] for it in ingress}
            assert ports == {it["spec"]["egress"][0]["ports"][0]["port"] for it in egress}, name


def test_every_label_that_opens_a_flow_has_its_policy(overlay: tuple[str, list[Document]]):
    name, documents = overlay
    open_to = {
        label.removeprefix(LABEL) for found in policies(documents).values() for it in found
        for label in (it["spec"]["podSelector"] or {}).get("matchLabels", {}) if label.startswith(LABEL)
    }  # fmt: skip
    assert set(users(documents)) <= open_to, name


def test_the_table_of_flows_is_what_the_manifests_say(kind_overlay: list[Document], page: str):
    rows = table(page, "Network flows")
    listed = {policy for row in rows for policy in re.findall(r"`([^`]+)`", row[3])}
    assert listed == set(policies(kind_overlay)) - {"default-deny"}
    for target, names in users(kind_overlay).items():
        row = next(row for row in rows if f"`uses-{target}`" in row[0])
        assert set(re.findall(r"`([^`]+)`", row[0])) - {f"uses-{target}"} == names, row
        spoken = {port for policy in re.findall(r"`([^`]+)`", row[3]) for port in ports_of(kind_overlay, policy)}
        assert set(re.findall(r"\d+", row[2])) == spoken, row


def ports_of(documents: list[Document], name: str) -> set[str]:
    return {
        str(port["port"]) for it in policies(documents)[name]
        for rule in it["spec"].get("ingress", []) + it["spec"].get("egress", []) for port in rule["ports"]
    }  # fmt: skip


def test_the_table_of_permissions_is_what_the_manifests_say(kind_overlay: list[Document], page: str):
    said = {
        (it["metadata"]["name"], resource, verb)
        for it in kind_overlay if it["kind"] in ("Role", "ClusterRole")
        for rule in it["rules"] for resource in rule.get("resources", rule.get("nonResourceURLs", []))
        for verb in rule["verbs"]
    }  # fmt: skip
    listed = set()
    for account, resources, verbs, _why in table(page, "Who may ask the API server"):
        for resource in re.findall(r"`([^`]+)`", resources):
            listed |= {(account.strip("`"), resource, verb.strip()) for verb in verbs.split(",")}
    assert listed == said
