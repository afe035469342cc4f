"""Where two parts of the operator meet: the stop and the gate, a refused spec and an autoscaler, and the like."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flightdeck.contracts.rollout import parse_rollout
from services.rollout_operator.kube.crosschecks import CountedRecords
from services.rollout_operator.kube.operator import IDLE_S, TICK_S, Loop
from services.rollout_operator.kube.stops import Stops
from services.rollout_operator.scaling import HOLD_S
from services.rollout_operator.workloads import workload_name
from tests.unit.rollout.kube_cluster import Cluster, Records
from tests.unit.rollout.test_gate import bare
from tests.unit.rollout.test_kube_stop import lift, stop
from tests.unit.rollout.test_kube_tick import drive, ended, served


@pytest.fixture
def cluster() -> Cluster:
    return served(Cluster())


def history(cluster: Cluster) -> list[str]:
    return [it["target"] for it in cluster.status["history"]]


def test_a_stop_is_asked_for_before_what_waited_begins_though_another_release_is_refused(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.want("3")
    made = cluster.start()
    made.tick(cluster.now_s)  # v3 waits, and was let in
    cluster.ask(bare(cluster.release("4")))
    cluster.annotate("abort")
    drive(cluster, ended(cluster))
    stop(cluster, by="ann", reason="bad feature data")
    before = len(history(cluster))
    cluster.start().tick(cluster.now_s)  # a new process, which no watch has told yet
    assert "pending" not in history(cluster)[before:]


def test_a_retry_asks_for_the_stop_first(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.annotate("abort")
    drive(cluster, ended(cluster))
    stop(cluster, by="ann", reason="bad feature data")
    cluster.annotate("retry")
    before = len(history(cluster))
    cluster.start().tick(cluster.now_s)
    assert "pending" not in history(cluster)[before:]


def refuse(cluster: Cluster, **spec: Any) -> None:
    """A plan that no rate of requests lets pass."""
    found = copy.deepcopy(cluster.rollout)
    found["spec"]["judge"]["margins"] |= {"errorRate": 1e-7}
    found["spec"] |= spec
    cluster.put(found)


def accepted(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = next(it for it in cluster.status["conditions"] if it["type"] == "PlanAccepted")
    return found


def test_an_autoscaler_is_not_refused_together_with_a_plan(cluster):
    cluster.now_s += HOLD_S
    refuse(cluster, replicas=5)
    made = cluster.start()
    for _ in range(2):
        made.tick(cluster.now_s)
        cluster.pass_time()
    assert accepted(cluster)["reason"] == "Refused"
    assert cluster.objects["Deployment", workload_name(cluster.release("1"))]["spec"]["replicas"] == 5
    assert parse_rollout(cluster.status["inForce"]).spec.judge.margins.error_rate == 0.05


def test_a_refused_plan_neither_starts_nor_ends_anything_but_replicas_follow(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    cluster.want("3")
    refuse(cluster, replicas=4)
    drive(cluster, lambda: cluster.status["phase"] == "done" and cluster.status["championVersion"] == "v2")
    assert cluster.objects["Deployment", workload_name(cluster.release("2"))]["spec"]["replicas"] == 4
    made = cluster.start()
    for _ in range(5):
        made.tick(cluster.now_s)
        cluster.pass_time()
    assert cluster.status["phase"] == "done" and "candidate" not in cluster.status


def test_what_a_stop_sent_home_does_not_begin_with_a_plan_that_is_refused_meanwhile(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    stop(cluster, reason="bad feature data")
    drive(cluster, ended(cluster))
    refuse(cluster)
    lift(cluster)
    made = cluster.start()
    for _ in range(3):
        made.tick(cluster.now_s)
        cluster.pass_time()
    assert cluster.status["phase"] == "aborted" and accepted(cluster)["reason"] == "Refused"
    cluster.rollout["spec"]["judge"]["margins"]["errorRate"] = 0.05
    made.tick(cluster.now_s)
    assert cluster.status["phase"] == "pending" and cluster.status["candidateVersion"] == "v2"


def test_a_spec_that_was_refused_from_the_first_look_on_is_told_beside_a_champion_of_a_deploy(cluster):
    found = copy.deepcopy(cluster.rollout)
    kept = {"champion": found["status"]["champion"], "phase": "done"}
    complete = {"type": "Complete", "status": "True", "reason": "FirstChampion", "message": "x"}
    cluster.put({**found, "status": {**kept, "conditions": [complete]}})
    refuse(cluster)
    loop = Loop("late", cluster.start)
    assert loop.tick() == IDLE_S, "it can do nothing until somebody changes the spec"
    assert accepted(cluster)["reason"] == "Refused" and complete in cluster.status["conditions"]
    assert cluster.status["champion"] == kept["champion"]
    effects = cluster.effects
    assert loop.tick() == IDLE_S and cluster.effects == effects


def test_a_slow_tick_does_not_take_the_champion_back_from_a_rollout_that_is_deleted(cluster, monkeypatch):
    made = cluster.start()
    name, list_ = workload_name(cluster.release("1")), cluster.list
    for _ in range(2):
        made.tick(cluster.now_s)
        cluster.pass_time()

    def slow(kind: str, selector: str, **more: Any) -> list[dict[str, Any]]:
        if kind == "Deployment":  # decided and kept; now it is made true
            monkeypatch.undo()
            cluster.rollout["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            cluster.start().platform.leave(cluster.release("1"))  # type: ignore[attr-defined]
        return list_(kind, selector, **more)

    monkeypatch.setattr(cluster, "list", slow)
    made.tick(cluster.now_s)
    assert "deletionTimestamp" in cluster.rollout["metadata"]
    assert cluster.objects["Deployment", name]["metadata"]["ownerReferences"] == []


def test_what_the_watch_tells_of_the_stop_is_newer_than_an_answer_that_is_under_way():
    class Slow:
        def read(self, kind: str, name: str) -> dict[str, Any]:
            stops.told(None)  # lifted, while the answer was on its way
            return {"data": {"reason": "bad feature data"}}

    stops = Stops(Slow())  # type: ignore[arg-type]
    assert stops.now(needed=True) is None
    assert stops.now(needed=True) is None


def test_a_reader_of_the_log_that_begins_anew_is_never_taken_for_the_one_before():
    seen = set()
    for _ in range(5):  # each is gone before the next one is made, which may then lie where it lay
        seen.add(CountedRecords(Records(Cluster())).serial)
    assert len(seen) == 5


def test_a_release_that_waits_begins_soon_whatever_the_watch_tells(cluster, monkeypatch):
    monkeypatch.setattr("services.rollout_operator.kube.operator.time.time", lambda: cluster.now_s)
    loop = Loop("late", cluster.start)
    cluster.want("2")
    loop.tick()
    cluster.want("3")
    loop.tick()
    cluster.annotate("abort")
    for _ in range(60):
        pause_s = loop.tick()
        cluster.pass_time()
        if cluster.status["phase"] == "aborted":
            break
    assert loop.waits and pause_s == TICK_S
