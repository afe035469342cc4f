"""Reading from the API server's objects what is ready, and why not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from flightdeck.cluster.readiness import Part, Trouble, explain, newest, part_of, troubles_of


def workload(kind: str, spec: dict[str, Any], status: dict[str, Any], generation: int = 2) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "x", "generation": generation}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3}, 3),
        ({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3}, 0),  # about the old spec
        ({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "readyReplicas": 4}, 0),  # old pods still there
        ({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 1}, 1),
        ({}, 0),
    ],
)
def test_a_deployment_is_ready_when_all_pods_of_its_newest_spec_are_and_no_others(status: dict[str, Any], ready: int):
    part = part_of(workload("Deployment", {"replicas": 3}, status))
    assert (part.ready, part.wanted, part.done) == (ready, 3, ready == 3)


def test_a_deployment_of_no_replicas_is_ready_once_it_is_observed():
    assert part_of(workload("Deployment", {"replicas": 0}, {"observedGeneration": 2})).done
    assert not part_of(workload("Deployment", {"replicas": 0}, {"observedGeneration": 1})).done


def test_a_job_is_ready_when_it_has_succeeded_and_failed_when_it_says_so():
    assert part_of(workload("Job", {}, {"succeeded": 1})).done
    assert not part_of(workload("Job", {}, {"active": 1})).done
    gone = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "twice"}]}
    assert part_of(workload("Job", {}, gone)) == Part("job/x", 0, 1, "BackoffLimitExceeded: twice")


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Running", **status}}


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "main", "ready": False, "restartCount": 0, "state": state, "lastState": {}, **more}


def test_pods_that_start_or_run_or_have_ended_well_are_no_trouble():
    creating = container({"waiting": {"reason": "ContainerCreating"}})
    assert troubles_of([pod(containerStatuses=[creating])]) == []
    assert troubles_of([pod(containerStatuses=[container({"running": {}}, ready=True)])]) == []
    assert troubles_of([pod(phase="Succeeded", containerStatuses=[container({"terminated": {"exitCode": 1}})])]) == []


def test_a_crash_names_the_exit_code_and_comes_before_a_pull_that_fails():
    crash = container(
        {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, restartCount=3,
        lastState={"terminated": {"exitCode": 3, "reason": "Error"}},
    )  # fmt: skip
    pull = container({"waiting": {"reason": "ImagePullBackOff", "message": "no such digest\nmore"}})
    found = troubles_of([pod(containerStatuses=[pull]), pod(containerStatuses=[crash])])
    assert [it.reason for it in found] == ["CrashLoopBackOff", "ImagePullBackOff"]
    assert "exit code 3" in found[0].words
    assert found[1].words == "no such digest"


def test_a_pod_that_finds_no_node_says_why():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}
    (found,) = troubles_of([pod(phase="Pending", conditions=[condition])])
    assert (found.reason, found.words) == ("Unschedulable", "0/1 nodes: cpu")


def test_pods_that_are_going_are_left_alone():
    going = pod(containerStatuses=[container({"terminated": {"exitCode": 137}})])
    going["metadata"]["deletionTimestamp"] = "now"
    assert troubles_of([going]) == []


def test_the_broken_pod_of_an_earlier_spec_counts_for_nothing_once_a_newer_one_is_there():
    def of(deployment: str, digest: str, made: str) -> dict[str, Any]:
        owner = {"kind": "ReplicaSet", "name": f"{deployment}-{digest}"}
        labels = {"pod-template-hash": digest}
        return {"metadata": {"labels": labels, "ownerReferences": [owner], "creationTimestamp": made}}

    old, new, other = (
        of("web", "a1", "2026-01-01T00:00:00Z"),
        of("web", "b2", "2026-01-02T00:00:00Z"),
        of("api", "c3", "2025"),
    )
    alone: dict[str, Any] = {"metadata": {"labels": {}}}
    assert newest([old, new, other, alone]) == [new, other, alone]


class Gone:
    """kubectl where a pod's log is gone, as kubectl says it: as if it were the log, with exit code 0."""

    def __call__(self, *_: str) -> str:
        return "unable to retrieve container logs for containerd://1102"

    def find(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        ended = {"terminated": {"exitCode": 1, "message": "applying\nweather: removed; approve it\n"}}
        return {"status": {"containerStatuses": [{"name": "pipelines", "state": ended}]}}


def test_where_the_log_is_gone_the_last_words_are_those_that_the_container_left():
    trouble = Trouble("platform/features-apply-1", "pipelines", "Error", "ended with exit code 1 (Error)", 0)
    assert explain(cast(Any, Gone()), [trouble]).splitlines()[1:] == [
        "    | applying", "    | weather: removed; approve it",
    ]  # fmt: skip
