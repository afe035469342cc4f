"""An autoscaler and a rollout: `spec.replicas` through /scale, when idle and while a candidate is judged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from flightdeck.cluster.overlays import autoscaled
from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator import crd, scaling
from services.rollout_operator.state import Phase, State
from services.rollout_operator.workloads import workload_name
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import champion_is, drive, served

RELEASE = Release.model_validate(
    {"image": "c", "model": ModelRef(name="late", version="1", sha256="a" * 64), "featureService": "s"}
)


def scale(cluster: Cluster, replicas: int) -> None:
    """As an HPA does."""
    found = copy.deepcopy(cluster.rollout)
    found["spec"]["replicas"] = replicas
    cluster.put(found)


def replicas_of(cluster: Cluster, version: str) -> int:
    found: int = cluster.objects["Deployment", workload_name(cluster.release(version))]["spec"]["replicas"]
    return found


def ticks(cluster: Cluster, count: int) -> None:
    made = cluster.start()
    for _ in range(count):
        made.tick(cluster.now_s)
        cluster.pass_time()


@pytest.mark.parametrize(
    ("wanted", "before", "state", "now_s", "found"),
    [
        (2, None, None, 0.0, 2),
        (2, 5, State(Phase.CANARY, 10.0, 0.0, champion=RELEASE, candidate=RELEASE), 9e9, 5),
        (7, 5, State(Phase.CANARY, 10.0, 0.0, champion=RELEASE, candidate=RELEASE), 20.0, 7),
        (2, 5, State(Phase.ABORTED, 10.0, 0.0, champion=RELEASE), 10.0 + scaling.HOLD_S - 1, 5),
        (7, 5, State(Phase.DONE, 10.0, 0.0, champion=RELEASE), 20.0, 7),
        (2, 5, State(Phase.DONE, 10.0, 0.0, champion=RELEASE), 10.0 + scaling.HOLD_S, 2),
        (2, 5, State(Phase.DONE, 10.0, 10.0, champion=RELEASE), 11.0, 2),  # a champion that was taken over
    ],
)
def test_replicas_only_grow_until_the_rollout_has_been_over_for_a_while(wanted, before, state, now_s, found):
    assert scaling.in_force(wanted, before, state, now_s) == found


def test_an_idle_champion_follows_up_and_down():
    cluster = served(Cluster())
    cluster.now_s += scaling.HOLD_S
    for replicas in (5, 1, 3):
        scale(cluster, replicas)
        ticks(cluster, 2)
        assert replicas_of(cluster, "1") == replicas
    ticks(cluster, 1)
    assert cluster.status["replicas"] == 3 and cluster.status["wantedReplicas"] == 3
    labels = dict(it.split("=") for it in cluster.status["selector"].split(","))
    pods = [it["metadata"]["labels"] for (kind, _), it in cluster.objects.items() if kind == "Pod"]
    assert len([it for it in pods if labels.items() <= it.items()]) == cluster.status["replicas"]


def test_more_in_a_rollout_is_for_champion_and_candidate_and_the_candidate_gets_no_more_users_than_it_can_answer():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: 50 in cluster.routed().values())
    cluster.weights.clear()
    scale(cluster, 4)
    ticks(cluster, 1)
    assert (replicas_of(cluster, "1"), replicas_of(cluster, "2")) == (4, 4)
    drive(cluster, champion_is(cluster, "2"))
    assert replicas_of(cluster, "2") == 4 and cluster.status["replicas"] == 4


def test_the_weight_stays_in_proportion_to_ready_replicas_after_a_scale_up():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: sorted(cluster.routed().values()) == [10, 90])
    scale(cluster, 4)
    cluster.start().tick(cluster.now_s)  # before any new pod is ready
    assert sorted(cluster.routed().values()) == [5, 95]


def test_fewer_waits_for_the_end_of_the_rollout_and_for_the_users_to_be_seen_again():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: 50 in cluster.routed().values())
    scale(cluster, 1)
    ticks(cluster, 1)
    assert (replicas_of(cluster, "1"), replicas_of(cluster, "2")) == (2, 2)
    drive(cluster, champion_is(cluster, "2"))
    ticks(cluster, 3)
    assert replicas_of(cluster, "2") == 2, "as many as were judged, all users have only just come"
    cluster.now_s += scaling.HOLD_S
    ticks(cluster, 1)
    assert replicas_of(cluster, "2") == 1


def test_a_restart_of_the_operator_remembers_what_was_in_force():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    scale(cluster, 5)
    ticks(cluster, 1)
    scale(cluster, 2)
    ticks(cluster, 1)
    assert (replicas_of(cluster, "1"), replicas_of(cluster, "2")) == (5, 5)
    assert yaml.safe_load(cluster.status["inForce"])["spec"]["replicas"] == 5


def test_the_scale_subresource_reads_what_the_operator_writes():
    cluster = served(Cluster())
    ticks(cluster, 1)
    version: dict[str, Any] = crd.document()["spec"]["versions"][0]
    paths = version["subresources"]["scale"]
    for path in paths.values():
        part: Any = cluster.rollout
        for key in path.strip(".").split("."):
            part = part[key]
        assert part
    replicas = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["replicas"]
    assert replicas["default"] >= 1 and replicas["minimum"] == 1


def test_a_rollout_that_an_autoscaler_names_is_found_by_its_kind():
    def hpa(kind: str, name: str) -> dict[str, Any]:
        return {"kind": "HorizontalPodAutoscaler", "spec": {"scaleTargetRef": {"kind": kind, "name": name}}}

    assert autoscaled([hpa("Deployment", "mlflow"), hpa("ModelRollout", "late"), {"kind": "Service"}]) == {"late"}
