"""The emergency stop on the cluster: a ConfigMap that kubectl makes, read rarely and obeyed at once."""

from __future__ import annotations

from typing import Any

import pytest

from services.rollout_operator.kube.api import Refused
from services.rollout_operator.kube.operator import IDLE_S, Loop
from services.rollout_operator.kube.stops import FRESH_S, NAME, Stops
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.state import Stop
from services.rollout_operator.workloads import workload_name
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import champion_is, drive, served


def stop(cluster: Cluster, **data: str) -> None:
    """As `kubectl create configmap rollouts-stopped --from-literal=...` makes it."""
    cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data})


def lift(cluster: Cluster) -> None:
    del cluster.objects["ConfigMap", NAME]


def condition(cluster: Cluster) -> dict[str, Any]:
    return next((it for it in cluster.status["conditions"] if it["type"] == "Stopped"), {})


@pytest.fixture(autouse=True)
def _read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's seconds take no time."""
    monkeypatch.setattr("services.rollout_operator.kube.stops.FRESH_S", 0.0)


@pytest.mark.parametrize("phase", ["shadow", "canary"])
def test_a_running_rollout_is_aborted_told_and_begins_anew_when_the_stop_is_lifted(phase):
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == phase)
    stop(cluster, by="ann", reason="bad feature data")
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    words = "all rollouts are stopped by ann: bad feature data"
    aborting = next(it for it in cluster.status["history"] if it["target"] == "aborting")
    assert words in aborting["reason"] and aborting["who"] == "ann"
    assert words in cluster.status["reason"]
    assert (condition(cluster)["status"], condition(cluster)["message"]) == ("True", words)
    events = [it for (kind, _), it in cluster.objects.items() if kind == "Event" and it["type"] == "Warning"]
    assert any(words in it["message"] for it in events)
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}
    made = cluster.start()  # another operator: it is not in anybody's memory
    for _ in range(5):
        made.tick(cluster.now_s)
        cluster.pass_time()
    assert cluster.status["phase"] == "aborted" and "v2" in cluster.status["history"][-1]["reason"]
    lift(cluster)
    assert drive(cluster, champion_is(cluster, "2"))[-5:] == ["pending", "shadow", "canary", "promoting", "done"]
    assert condition(cluster)["status"] == "False" and "stopped" not in cluster.status["reason"]


def test_made_by_kubectl_alone_it_needs_no_words():
    cluster = served(Cluster())
    stop(cluster)
    cluster.want("2")
    cluster.start().tick(cluster.now_s)
    assert cluster.status["phase"] == "done"
    assert cluster.status["reason"].startswith("all rollouts are stopped by kubectl: no reason given; ")


def test_an_idle_rollout_does_not_ask_and_one_that_runs_does(monkeypatch):
    cluster = served(Cluster())
    asked: list[str] = []
    read = cluster.read

    def reading(kind: str, name: str) -> dict[str, Any] | None:
        asked.extend([kind] * (kind == "ConfigMap"))
        return read(kind, name)

    monkeypatch.setattr(cluster, "read", reading)
    made = cluster.start()
    made.tick(cluster.now_s)
    assert not asked
    cluster.want("2")
    made.tick(cluster.now_s)
    assert len(asked) == 1


def test_an_operator_that_may_not_read_it_lets_nothing_begin_and_goes_on_with_what_runs(monkeypatch):
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    read = cluster.read

    def forbidden(kind: str, name: str) -> dict[str, Any] | None:
        if kind == "ConfigMap":
            raise Refused("403")
        return read(kind, name)

    monkeypatch.setattr(cluster, "read", forbidden)
    drive(cluster, champion_is(cluster, "2"))
    cluster.want("3")
    made = cluster.start()
    for _ in range(3):
        made.tick(cluster.now_s)
    assert cluster.status["phase"] == "done" and "cannot be read" in cluster.status["reason"]


def test_a_rollout_that_waits_is_woken_and_an_idle_one_is_not():
    cluster = served(Cluster())
    loop = Loop("late", cluster.start)
    loop.tick()
    assert not loop.waits
    stop(cluster, reason="bad")
    cluster.want("2")
    loop.tick()
    assert loop.tick() == IDLE_S and loop.waits, "it costs as little as an idle one"


class Asked:
    """An API server that counts."""

    def __init__(self) -> None:
        self.count, self.there, self.away = 0, True, False

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        assert (kind, name) == ("ConfigMap", NAME)
        self.count += 1
        if self.away:
            raise Unavailable("away")
        return {"data": {"by": "ann", "reason": "x"}} if self.there else None


def test_a_thousand_rollouts_that_run_ask_once_in_two_seconds_and_a_watch_tells_sooner(monkeypatch):
    monkeypatch.undo()
    now, api = [0.0], Asked()
    stops = Stops(api, lambda: now[0])  # type: ignore[arg-type]
    assert stops.now(needed=False) is None and not api.count
    assert {stops.now(needed=True) for _ in range(1000)} == {Stop("ann", "x")}
    assert api.count == 1
    stops.told(None)
    assert stops.now(needed=True) is None and api.count == 1
    now[0] += FRESH_S
    assert stops.now(needed=True) == Stop("ann", "x") and api.count == 2, "a watch that missed something is put right"
    now[0] += FRESH_S
    api.away = True
    with pytest.raises(Unavailable):
        stops.now(needed=True)
