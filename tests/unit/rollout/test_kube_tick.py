"""The operator's tick against an API server of our own: the lab's decisions, the cluster's documents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from flightdeck.contracts.prediction import PredictionRecord
from services.rollout_operator.kube import orders
from services.rollout_operator.kube.api import Conflict
from services.rollout_operator.kube.operator import IDLE_S, TICK_S, Loop
from services.rollout_operator.kube.store import KubeStore
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.state import Phase
from services.rollout_operator.tick import Rollout
from services.rollout_operator.workloads import owner_reference, workload_name
from tests.unit.rollout.kube_cluster import Cluster, Killed


def drive(cluster: Cluster, until: Callable[[], bool], ticks: int = 90) -> list[str]:
    """Tick until then; after a kill or a conflict a new operator goes on, as the real loop does. Phases seen."""
    made: Rollout | None = None
    phases: list[str] = []
    for _ in range(ticks):
        try:
            made = made or cluster.start()
            made.tick(cluster.now_s)
        except (Killed, Unavailable):
            made = None
        cluster.pass_time()
        phase = cluster.status.get("phase", "")
        if phase and phases[-1:] != [phase]:
            phases.append(phase)
        if until():
            return phases
    raise AssertionError(f"never came; phases {phases}: {cluster.status.get('reason')}")


def champion_is(cluster: Cluster, version: str) -> Callable[[], bool]:
    """It serves alone: the phase is done and every other Deployment and Service is gone."""
    return lambda: (
        cluster.status.get("phase") == "done"
        and cluster.status["championVersion"] == f"v{version}"
        and cluster.routed() == {workload_name(cluster.release(version)): 100}
        and [name for kind, name in cluster.objects if kind == "Deployment"] == list(cluster.routed())
        and [name for kind, name in cluster.objects if kind == "Service"] == list(cluster.routed())
    )


def ended(cluster: Cluster) -> Callable[[], bool]:
    return lambda: cluster.status.get("phase") in ("done", "aborted")


@pytest.fixture
def cluster() -> Cluster:
    return served(Cluster())


def served(cluster: Cluster) -> Cluster:
    """The first release is champion."""
    cluster.want("1")
    assert drive(cluster, champion_is(cluster, "1")) == ["pending", "promoting", "done"]
    return cluster


FULL_WAY = ["pending", "shadow", "canary", "promoting", "done"]


def test_a_good_candidate_goes_the_whole_way_and_the_champion_retires(cluster):
    cluster.want("2")
    assert drive(cluster, champion_is(cluster, "2"))[-5:] == FULL_WAY
    rising = [now for now, before in zip(cluster.weights[1:], cluster.weights, strict=False) if now != before]
    assert rising[:2] == [10, 50]
    told = [it for (kind, _), it in cluster.objects.items() if kind == "Event"]
    assert len(told) == len(cluster.status["history"])
    complete = next(it for it in cluster.status["conditions"] if it["type"] == "Complete")
    assert complete["status"] == "True" and "v2" in complete["message"]


def test_a_candidate_that_scores_otherwise_goes_from_the_shadow_and_no_user_saw_it():
    cluster = served(Cluster(scores=lambda _: 0.9))
    cluster.weights.clear()
    cluster.want("2")
    assert drive(cluster, lambda: cluster.status["phase"] == "aborted")[-4:] == [
        "pending", "shadow", "aborting", "aborted",
    ]  # fmt: skip
    assert set(cluster.weights) == {0} and "scoreDelta" in cluster.status["reason"]
    assert ("Deployment", workload_name(cluster.release("2"))) not in cluster.objects
    assert ("Deployment", workload_name(cluster.release("1"))) in cluster.objects


def test_errors_under_weight_abort():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    cluster.failing = cluster.release("2").id
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    assert "errorRate" in cluster.status["reason"]
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}


def test_killed_before_any_of_its_writes_it_ends_as_if_it_had_not_been():
    whole = served(Cluster())
    whole.effects = 0
    whole.want("2")
    drive(whole, champion_is(whole, "2"))
    for kill_at in range(1, whole.effects + 1):
        cluster = served(Cluster())
        cluster.effects, cluster.kill_at = 0, kill_at
        cluster.want("2")
        phases = drive(cluster, champion_is(cluster, "2"))
        assert phases[-5:] == FULL_WAY, (kill_at, phases)
        serials = [it["serial"] for it in cluster.status["history"]]
        assert serials == sorted(set(serials)), f"killed before write {kill_at}: history {serials}"


def test_a_hand_edit_of_the_route_is_put_back_at_the_next_tick(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    edited = copy.deepcopy(cluster.objects["HTTPRoute", "late"])
    for backend in edited["spec"]["rules"][0]["backendRefs"]:
        backend["weight"] = 70
    cluster.put(edited)
    cluster.pass_time()
    cluster.start().tick(cluster.now_s)
    assert sorted(cluster.routed().values()) in ([10, 90], [50, 50]), "a weight of the plan"


def test_weight_is_taken_away_when_no_replica_is_ready(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    cluster.unready = cluster.release("2").id
    cluster.pass_time()
    cluster.start().tick(cluster.now_s)
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}


def test_users_sent_to_nobody_do_not_wait_for_the_evidence(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    cluster.unready = cluster.release("2").id
    cluster.pass_time()
    rollout = cluster.start()
    routed_when_read: list[dict[str, int]] = []

    def hangs() -> list[PredictionRecord]:
        routed_when_read.append(cluster.routed())
        raise OSError("timed out after 2 s")

    rollout.records.predictions = hangs  # type: ignore[method-assign]
    rollout.tick(cluster.now_s)
    cluster.pass_time()
    rollout.tick(cluster.now_s)
    assert routed_when_read, "the next tick does read it"
    assert all(len(routes) == 1 for routes in routed_when_read), "the weight was gone before the store was asked"


def test_an_order_is_obeyed_once_however_often_the_operator_dies(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    cluster.annotate("abort looks odd")
    cluster.kill_at = cluster.effects + 3  # after the decision was kept, before the annotation went
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    drive(cluster, lambda: "order" not in cluster.status)
    assert orders.ANNOTATION not in cluster.rollout["metadata"]["annotations"]
    assert len([it for it in cluster.status["history"] if it["target"] == "aborting"]) == 1
    cluster.annotate("abort looks odd")
    drive(cluster, lambda: orders.ANNOTATION not in cluster.rollout["metadata"]["annotations"])
    assert "no effect" in cluster.status["history"][-1]["reason"], "the same words again are a new order"


def test_a_decision_on_a_spec_that_changed_meanwhile_is_not_kept(cluster):
    made = cluster.start()
    original = cluster.replace_status

    def changed_meanwhile(document: Any) -> dict[str, Any]:
        cluster.annotate("pause")
        return original(document)

    cluster.replace_status = changed_meanwhile  # type: ignore[method-assign]
    cluster.want("2")
    before = copy.deepcopy(cluster.status)
    with pytest.raises(Conflict):
        made.tick(cluster.now_s)
    assert cluster.status == before
    assert ("Deployment", workload_name(cluster.release("2"))) not in cluster.objects


def test_a_champion_of_a_deploy_is_taken_over_as_it_stands():
    cluster = served(Cluster())
    kept = {key: cluster.status[key] for key in ("champion", "phase", "reason")}
    cluster.put({**cluster.rollout, "status": kept})
    cluster.effects = 0
    made = cluster.start()
    made.tick(cluster.now_s)
    assert cluster.status["state"]["phase"] == "done" and cluster.effects == 1, "nothing but the status is written"


def test_git_without_a_release_changes_nothing(cluster):
    found = copy.deepcopy(cluster.rollout)
    del found["spec"]["release"]
    cluster.put(found)
    made = cluster.start()
    made.tick(cluster.now_s)
    assert made.status.state and made.status.state.phase is Phase.DONE
    assert champion_is(cluster, "1")()


def test_a_release_of_another_model_is_refused_and_what_serves_goes_on(cluster):
    cluster.want("2")
    cluster.rollout["spec"]["release"]["model"]["name"] = "early"
    cluster.start().tick(cluster.now_s)
    plan_accepted = next(it for it in cluster.status["conditions"] if it["type"] == "PlanAccepted")
    assert plan_accepted["status"] == "False" and "early" in plan_accepted["message"]
    assert cluster.status["phase"] == "done"


def test_a_candidate_without_a_ready_replica_goes_at_the_deadline_and_the_reason_is_told(cluster):
    cluster.unready = cluster.release("2").id
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    assert "only 0 of 2 replicas ready" in cluster.status["reason"]


def test_while_the_rollout_is_deleted_the_champion_is_left_to_itself(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    made = cluster.start()
    store = made.store
    assert isinstance(store, KubeStore)
    made.platform.leave(cluster.release("1"))  # type: ignore[attr-defined]
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}
    champion = cluster.objects["Deployment", workload_name(cluster.release("1"))]
    candidate = cluster.objects["Deployment", workload_name(cluster.release("2"))]
    assert champion["metadata"]["ownerReferences"] == []
    assert candidate["metadata"]["ownerReferences"] == [owner_reference(cluster.rollout)]


def test_a_champion_that_was_left_behind_is_adopted_by_the_next_rollout(cluster):
    kept = cluster.rollout
    cluster.start().platform.leave(cluster.release("1"))  # type: ignore[attr-defined]
    new = {key: it for key, it in kept.items() if key != "status"}
    cluster.put({**new, "metadata": {"name": "late", "namespace": "n", "uid": "another"}})
    pods = [key for key in cluster.objects if key[0] == "Pod"]
    drive(cluster, champion_is(cluster, "1"))
    deployment = cluster.objects["Deployment", workload_name(cluster.release("1"))]
    assert deployment["metadata"]["ownerReferences"] == [owner_reference(cluster.rollout)]
    assert [key for key in cluster.objects if key[0] == "Pod"] == pods


def test_a_service_that_was_deleted_by_hand_comes_back(cluster):
    name = workload_name(cluster.release("1"))
    del cluster.objects["Service", name]
    for key in [key for key in cluster.objects if key[0] == "EndpointSlice"]:
        del cluster.objects[key]
    cluster.start().tick(cluster.now_s)
    assert ("Service", name) in cluster.objects


def test_an_idle_rollout_looks_rarely_and_one_under_way_each_second(cluster):
    loop = Loop("late", cluster.start)
    assert loop.tick() == IDLE_S, "after a restart it finds all as it shall be"
    cluster.want("2")
    assert loop.tick() == TICK_S


def test_a_rollout_that_ended_looks_soon_until_nothing_is_left_to_do(cluster):
    loop = Loop("late", cluster.start)
    loop.tick()
    del cluster.objects["Deployment", workload_name(cluster.release("1"))]
    assert loop.tick() == TICK_S, "it made the Deployment anew and looks whether that is all"
    assert loop.tick() == IDLE_S


def test_after_a_failed_tick_it_begins_from_what_is_kept(cluster):
    loop = Loop("late", cluster.start)
    loop.tick()
    read, cluster.read = cluster.read, away
    assert loop.tick() == TICK_S and loop.rollout is None
    cluster.read = read
    loop.tick()
    assert loop.rollout and loop.rollout.status.state and loop.rollout.status.state.phase is Phase.DONE


def away(kind: str, name: str) -> None:
    raise Unavailable("the API server is away")
