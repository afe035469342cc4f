"""A pipelines process finds the same environment wherever it runs: server, Job, CronJob, Dagster run."""

from __future__ import annotations

from typing import Any

import yaml

from .conftest import K8S, Document, workloads

PLATFORM = K8S / "base" / "platform"


def camel(value: Any) -> Any:
    """dagster-k8s takes Kubernetes' fields in snake_case."""
    if isinstance(value, dict):
        return {head(key): camel(item) for key, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def head(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


def run_config() -> dict[str, Any]:
    config = yaml.safe_load((PLATFORM / "dagster" / "dagster.yaml").read_text())["run_launcher"]["config"]
    return {name: camel(part) for name, part in config["run_k8s_config"].items()}


def test_jobs_crons_and_runs_get_one_environment():
    deployment = yaml.safe_load((PLATFORM / "pipelines-environment.yaml").read_text())
    cron = yaml.safe_load((PLATFORM / "pipelines-environment-cron.yaml").read_text())
    wanted = deployment["spec"]["template"]["spec"]["containers"][0]
    assert cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0] == wanted
    run = run_config()["container_config"]
    assert {"name": "pipelines", "env": run["env"], "envFrom": run["envFrom"]} == wanted


def test_what_is_put_together_stands_after_its_parts(kind_overlay: list[Document]):
    for it in workloads(kind_overlay):
        for container in it.containers:
            known = {"POSTGRES_ADDRESS", "POSTGRES_OPTIONS", "VALKEY_SCHEME", "AWS_ENDPOINT_URL"}
            known |= {f"VALKEY_{name}" for name in ("ONLINE_ADDRESS", "ONLINE_OPTIONS", "STREAMS_ADDRESS")}
            for item in container.get("env", []):
                used = {part.split(")")[0] for part in str(item.get("value", "")).split("$(")[1:]}
                assert used <= known, f"{it}: {item['name']} uses {used - known} before they are there"
                known.add(item["name"])


def test_a_runs_pod_is_as_shut_as_any_other():
    run = run_config()
    context = run["pod_spec_config"]["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert run["pod_spec_config"]["automountServiceAccountToken"] is False
    assert run["container_config"]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert set(run["container_config"]["resources"]) == {"requests", "limits"}


def test_who_only_orchestrates_gets_no_key_of_the_data(kind_overlay: list[Document]):
    for it in workloads(kind_overlay):
        if it.name in ("dagster-daemon", "dagster-webserver", "dagster-migrate"):
            names = {item["name"] for container in it.containers for item in container.get("env", [])}
            assert not names & {"AWS_SECRET_ACCESS_KEY", "FEAST_PASSWORD", "VALKEY_PASSWORD"}, it.name


def test_only_runs_of_the_gate_could_hold_the_signing_key(kind_overlay: list[Document]):
    holders = [it.name for it in workloads(kind_overlay) if "signing-key" in str(it.pod)]
    assert not holders
