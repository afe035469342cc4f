"""A deploy refuses before it touches anything, and two never work at once."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import Any

import pytest

from flightdeck.cluster import deploy as module
from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.deploy import TIME, DeployRefused, deploy, is_alive

NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flightdeck-platform"}}
GOOD = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "good", "namespace": "flightdeck-platform"}}


class Server:
    """Stands for kubectl: objects by kind and name; refuses dry runs of what `refuses` names."""

    context = "test"

    def __init__(self, refuses: str = "", lease: dict[str, Any] | None = None) -> None:
        self.refuses, self.objects, self.calls = refuses, dict[tuple[str, str], Any](), list[str]()
        if lease:
            self.objects["lease", module.LEASE] = {"metadata": {"resourceVersion": "7"}, "spec": lease}

    def find(self, kind: str, name: str, namespace: str | None = None) -> Any:
        return self.objects.get((kind.lower(), name))

    def __call__(self, *args: str, stdin: str = "", timeout_s: float = 0) -> str:
        self.calls.append(" ".join(args))
        import yaml

        documents = [it for it in yaml.safe_load_all(stdin) if it]
        if args[0] in ("apply", "create"):
            if self.refuses and self.refuses in stdin:
                raise CommandFailed("kubectl ended with 1", f'error: unknown field "spec.{self.refuses}"')
            if "--dry-run=server" not in args:
                for it in documents:
                    self.objects[it["kind"].lower(), it["metadata"]["name"]] = it
        elif args[0] == "replace":
            (it,) = documents
            self.objects["lease", it["metadata"]["name"]] = it
        elif args[0] == "delete":
            names = [(it["kind"].lower(), it["metadata"]["name"]) for it in documents] or [("lease", module.LEASE)]
            for name in names:
                self.objects.pop(name, None)
        return ""


def test_a_wrong_key_is_refused_and_what_was_laid_for_the_check_is_taken_away():
    server = Server(refuses="replcas")
    prepared: list[int] = []
    with pytest.raises(DeployRefused, match=r"nothing was changed:\n.*unknown field"):
        deploy(server, [NAMESPACE, GOOD | {"data": {"replcas": "3"}}], prepare=lambda: prepared.append(1))  # type: ignore[arg-type]
    assert server.objects == {} and not prepared


def test_a_namespace_that_was_there_stays_when_a_deploy_is_refused():
    server = Server(refuses="replcas")
    server.objects["namespace", "flightdeck-platform"] = NAMESPACE
    with pytest.raises(DeployRefused):
        deploy(server, [NAMESPACE, GOOD | {"data": {"replcas": "3"}}])  # type: ignore[arg-type]
    assert ("namespace", "flightdeck-platform") in server.objects


def schema(field: str) -> dict[str, Any]:
    meta = {"name": "things.example"}
    return {"apiVersion": "v1", "kind": module.CRD, "metadata": meta, "spec": {"field": field}}


def test_what_needs_a_new_schema_is_checked_against_it():
    server = Server()
    server.objects["customresourcedefinition", "things.example"] = schema("old")
    deploy(server, [schema("new"), GOOD])  # type: ignore[arg-type]
    applied = [it for it in server.calls if it.startswith("apply")]
    first_check_of_the_rest = [n for n, it in enumerate(applied) if "--dry-run=server" in it][1]
    assert any("--dry-run=server" not in it for it in applied[:first_check_of_the_rest])
    assert server.objects["customresourcedefinition", "things.example"]["spec"] == {"field": "new"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_schema_of_before_comes_back_when_the_rest_is_refused_or_only_checked(dry_run: bool):
    server = Server(refuses="" if dry_run else "replcas")
    there = schema("old")
    there["metadata"] |= {"uid": "1", "resourceVersion": "2"}
    server.objects["customresourcedefinition", "things.example"] = there | {"status": {}}
    documents = [schema("new"), GOOD | {"data": {"replcas": "3"}}]
    if dry_run:
        deploy(server, documents, dry_run=True)  # type: ignore[arg-type]
    else:
        with pytest.raises(DeployRefused):
            deploy(server, documents)  # type: ignore[arg-type]
    assert server.objects["customresourcedefinition", "things.example"] == schema("old")


def test_secrets_are_made_after_the_check_and_before_what_reads_them():
    server = Server()
    deploy(server, [NAMESPACE, GOOD], prepare=lambda: server.calls.append("prepare"))  # type: ignore[arg-type]
    at = server.calls.index("prepare")
    assert any("--dry-run=server" in it for it in server.calls[:at])
    assert not any("--dry-run=server" in it for it in server.calls[at:])
    assert ("configmap", "good") in server.objects and ("lease", module.LEASE) not in server.objects


def held(seconds_ago: float) -> dict[str, Any]:
    then = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds_ago)
    return {"holderIdentity": "other", "leaseDurationSeconds": 120, "renewTime": then.strftime(TIME)}


def test_a_second_deploy_waits_and_is_refused_when_the_first_does_not_end():
    server, told = Server(lease=held(1)), list[str]()
    with pytest.raises(DeployRefused, match=r"another deploy \(other\)"):
        deploy(server, [NAMESPACE, GOOD], tell=told.append, wait_s=0)  # type: ignore[arg-type]
    assert ("configmap", "good") not in server.objects
    assert server.objects["lease", module.LEASE]["spec"]["holderIdentity"] == "other"


def test_a_deploy_takes_over_from_one_that_is_dead():
    server = Server(lease=held(500))
    deploy(server, [NAMESPACE, GOOD], wait_s=0)  # type: ignore[arg-type]
    assert ("configmap", "good") in server.objects
    assert any(it.startswith("replace") for it in server.calls)


@pytest.mark.parametrize("spec", [{}, {"renewTime": "yesterday"}])
def test_a_lease_that_tells_no_time_is_dead(spec: dict[str, Any]):
    assert not is_alive(spec, dt.datetime.now(dt.UTC))
    assert json.dumps(spec)


def test_a_long_deploy_renews_its_lease_and_leaves_one_that_another_took_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LEASE_S", 0.02)
    server = Server()
    with module.alone(server, lambda _: None, 1.0):  # type: ignore[arg-type]
        deadline = time.monotonic() + 5
        while not any(call.startswith("patch lease") for call in server.calls):
            assert time.monotonic() < deadline, server.calls
            time.sleep(0.01)
        server.objects["lease", module.LEASE]["spec"]["holderIdentity"] = "other"
    assert server.objects["lease", module.LEASE]["spec"]["holderIdentity"] == "other"
    patches = [call for call in server.calls if call.startswith("patch lease")]
    assert all('"op": "test", "path": "/spec/holderIdentity"' in call for call in patches)


@pytest.mark.parametrize(("condition", "left"), [("Failed", False), ("Complete", True)])
def test_a_job_that_gave_up_is_made_anew_and_one_that_is_done_stays(condition: str, left: bool):
    server, job = Server(), {"kind": "Job", "metadata": {"name": "migrate-1", "namespace": "flightdeck-platform"}}
    server.objects["job", "migrate-1"] = job | {"status": {"conditions": [{"type": condition, "status": "True"}]}}
    module._remove_failed_jobs(server, [job])  # type: ignore[arg-type]
    assert any(call.startswith("delete job migrate-1") for call in server.calls) is not left
