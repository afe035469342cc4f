"""Who could sign an approval, and who checks it: what the manifests let whom read."""

from __future__ import annotations

import yaml

from .conftest import K8S, Document, workloads

Overlay = tuple[str, list[Document]]
KEY = "signing-key"


def operator(documents: list[Document]) -> Document:
    return next(it for it in workloads(documents) if it.name == "rollout-operator").pod


def test_no_workload_of_any_overlay_mounts_the_signing_key(overlay: Overlay):
    """The gate's runs get it from their job alone: tests/unit/orchestration/test_definitions.py."""
    assert not [str(it) for it in workloads(overlay[1]) if KEY in str(it.pod)]


def test_nor_does_every_run_of_the_pipelines():
    launcher = yaml.safe_load((K8S / "base" / "platform" / "dagster" / "dagster.yaml").read_text())["run_launcher"]
    assert KEY not in str(launcher)


def test_nobody_may_read_secrets_from_the_api_server(overlay: Overlay):
    """A pod gets the Secrets that its manifest names, from the kubelet; no ServiceAccount may ask for others."""
    roles = [it for it in overlay[1] if it["kind"] in ("Role", "ClusterRole")]
    assert roles
    reading = [it["metadata"]["name"] for it in roles for rule in it["rules"] if "secrets" in rule.get("resources", [])]
    assert not reading
    bound = {it["roleRef"]["name"] for it in overlay[1] if it["kind"] in ("RoleBinding", "ClusterRoleBinding")}
    assert bound <= {it["metadata"]["name"] for it in roles}, "a role that is not ours may say anything"


def test_the_operator_cannot_change_what_it_trusts(overlay: Overlay):
    roles = [it for it in overlay[1] if it["kind"] == "Role" and it["metadata"]["name"] == "rollout-operator"]
    assert "flightdeck-serving" in {it["metadata"]["namespace"] for it in roles}
    verbs: dict[str, set[str]] = {}
    for rule in (rule for it in roles for rule in it["rules"]):
        for resource in rule["resources"]:
            verbs.setdefault(resource, set()).update(rule["verbs"])
    assert not verbs.keys() & {"secrets", "serviceaccounts/token", "roles", "rolebindings"}
    assert verbs.get("configmaps", set()) <= {"get", "list", "watch"}, "the keys are in one"


def test_the_operator_does_not_start_without_the_keys_and_sees_them_change(overlay: Overlay):
    pod = operator(overlay[1])
    (volume,) = [it for it in pod["volumes"] if it.get("configMap", {}).get("name") == "signing-public"]
    assert volume["configMap"]["optional"] is False
    (container,) = pod["containers"]
    (mount,) = [it for it in container["volumeMounts"] if it["name"] == volume["name"]]
    assert mount["readOnly"] and "subPath" not in mount, "a single file would never change in a running pod"
    (given,) = [it["value"] for it in container["env"] if it["name"] == "FLIGHTDECK_PUBLIC_KEY_FILE"]
    assert given == f"{mount['mountPath']}/signing.pub"


def test_its_secrets_are_named_one_by_one(overlay: Overlay):
    pod = operator(overlay[1])
    named = {
        item["valueFrom"]["secretKeyRef"]["name"]
        for container in pod["containers"] for item in container["env"] if "secretKeyRef" in item.get("valueFrom", {})
    }  # fmt: skip
    assert named == {"valkey"}
    assert not [it for it in pod["volumes"] if "secret" in it or "projected" in it]
