"""PlanAccepted on the cluster: what is refused does not begin, what is doubted is told with a better plan."""

from __future__ import annotations

import copy
from typing import Any

from services.rollout_operator.kube.operator import IDLE_S
from services.rollout_operator.kube.platform import KubePlatform
from services.rollout_operator.kube.rate import WINDOW_S
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.tick import Rollout
from tests.unit.rollout import kube_cluster
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import champion_is, drive, served


def started(cluster: Cluster) -> Rollout:
    """An operator by whose clock the cluster's seconds pass."""
    made = cluster.start()
    assert isinstance(made.platform, KubePlatform)
    made.platform.rate.clock = lambda: cluster.now_s
    return made


def ticks(cluster: Cluster, made: Rollout, count: int) -> None:
    for _ in range(count):
        made.tick(cluster.now_s)
        cluster.pass_time()


def accepted(cluster: Cluster) -> dict[str, Any]:
    found: dict[str, Any] = next(it for it in cluster.status["conditions"] if it["type"] == "PlanAccepted")
    return found


def warnings(cluster: Cluster) -> list[dict[str, Any]]:
    events = [it for (kind, _), it in cluster.objects.items() if kind == "Event"]
    return [it for it in events if it["reason"] in ("CannotPassInTime", "Refused")]


def replan(cluster: Cluster, **judge: Any) -> None:
    found = copy.deepcopy(cluster.rollout)
    found["spec"]["judge"]["margins"] |= judge
    cluster.put(found)


MEASURED_TICKS = int(120 + WINDOW_S) + 2  # idle, the counters are read once a minute


def test_the_users_rate_is_measured_while_nothing_is_rolled_out_and_the_plan_is_accepted():
    cluster = served(Cluster())
    ticks(cluster, started(cluster), MEASURED_TICKS)
    assert cluster.status["requestsPerSecond"] == kube_cluster.PER_TICK
    assert (accepted(cluster)["status"], accepted(cluster)["reason"]) == ("True", "Accepted")
    assert not warnings(cluster)


def test_a_plan_that_cannot_pass_at_the_rate_of_the_cluster_is_told_with_a_better_one_and_may_begin(monkeypatch):
    cluster = served(Cluster())
    monkeypatch.setattr(kube_cluster, "PER_TICK", 2)
    found = copy.deepcopy(cluster.rollout)
    for step in found["spec"]["plan"]:
        (body,) = step.values()
        body["deadline"] = "20s"
    cluster.put(found)
    made = started(cluster)
    ticks(cluster, made, MEASURED_TICKS)
    assert cluster.status["requestsPerSecond"] == 2.0
    said = accepted(cluster)
    assert (said["status"], said["reason"]) == ("False", "CannotPassInTime")
    assert "it passes: spec.plan[0].shadow.deadline" in said["message"]
    (event,) = warnings(cluster)
    assert event["type"] == "Warning" and event["message"] == said["message"][:1000]
    cluster.want("2")
    ticks(cluster, made, 5)
    assert cluster.status["phase"] == "shadow" and accepted(cluster)["message"] == said["message"]
    assert len(warnings(cluster)) == 1


def test_a_plan_that_no_rate_lets_pass_is_refused_and_no_release_begins():
    cluster = served(Cluster())
    replan(cluster, errorRate=1e-7)
    cluster.want("2")
    ticks(cluster, started(cluster), 3)
    assert (accepted(cluster)["status"], accepted(cluster)["reason"]) == ("False", "Refused")
    assert "at any rate" in accepted(cluster)["message"]
    assert champion_is(cluster, "1")()
    assert len(warnings(cluster)) == 1
    replan(cluster, errorRate=0.05)
    drive(cluster, champion_is(cluster, "2"))


def test_a_rollout_that_runs_goes_on_with_the_plan_with_which_it_began():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    replan(cluster, errorRate=1e-7)
    drive(cluster, lambda: cluster.status["phase"] == "done" and cluster.status["championVersion"] == "v2")
    assert accepted(cluster)["status"] == "False"


def test_a_gateway_that_tells_nothing_is_asked_again_a_minute_later_and_no_tick_fails(monkeypatch):
    cluster = served(Cluster())
    asked: list[str] = []

    def fetch(url: str) -> str:
        asked.append(url)
        raise Unavailable("away")

    monkeypatch.setattr(cluster, "fetch", fetch)
    ticks(cluster, started(cluster), 70)
    assert len(asked) == 2
    assert "requestsPerSecond" not in cluster.status or cluster.status["requestsPerSecond"] > 0


def test_an_idle_rollout_costs_two_requests_to_the_api_server_a_minute(monkeypatch):
    cluster = served(Cluster())
    made = started(cluster)
    ticks(cluster, made, MEASURED_TICKS)
    calls: list[str] = []
    for name in ("read", "list", "apply", "patch", "replace_status", "create", "delete"):
        original = getattr(cluster, name)

        def counting(*args: Any, _original: Any = original, _name: str = name, **more: Any) -> Any:
            calls.append(_name)
            return _original(*args, **more)

        monkeypatch.setattr(cluster, name, counting)
    for _ in range(int(IDLE_S)):
        cluster.pass_time()
    made.tick(cluster.now_s)
    assert len(calls) * 60 / IDLE_S <= 2, calls
